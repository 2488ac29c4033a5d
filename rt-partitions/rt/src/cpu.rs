//! What each CPU has for itself, found by its GS base; and starting the others.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use partita_trace::ring::Writer;
use partita_x86_bare::application::{self, Start};
use partita_x86_bare::{apic, write_msr};
use x86_64::registers::control::Cr3;

use crate::error::Error;
use crate::interrupts;
use crate::machine::Machine;

/// Most CPUs of a payload.
pub const CPUS_MAX: usize = 8;

/// Where interrupt handlers, which are assembly, find the number of their CPU: `gs:[INDEX_AT_GS]`.
pub const INDEX_AT_GS: usize = core::mem::offset_of!(Cpu, index);

const GS_BASE: u32 = 0xC000_0101;
const STACK_LEN: usize = 32 * 1024;

/// A CPU's own block. The GS base points to it.
#[repr(C)]
struct Cpu {
    this: AtomicPtr<Cpu>,
    index: AtomicU64,
    online: AtomicU64,
    /// Used by its own CPU only.
    writer: UnsafeCell<Option<Writer<'static>>>,
}

// SAFETY: the writer is its CPU's own, all else is atomic.
unsafe impl Sync for Cpu {}

impl Cpu {
    const fn new() -> Self {
        Self {
            this: AtomicPtr::new(core::ptr::null_mut()),
            index: AtomicU64::new(0),
            online: AtomicU64::new(0),
            writer: UnsafeCell::new(None),
        }
    }
}

static CPUS: [Cpu; CPUS_MAX] = [const { Cpu::new() }; CPUS_MAX];

#[repr(C, align(64))]
struct Stack(UnsafeCell<[u8; STACK_LEN]>);

// SAFETY: each is used by one CPU only, as its stack.
unsafe impl Sync for Stack {}

/// Those of CPU 1 and up.
static STACKS: [Stack; CPUS_MAX - 1] = [const { Stack(UnsafeCell::new([0; STACK_LEN])) }; CPUS_MAX - 1];

/// Makes this CPU the one with that number. First thing on each CPU.
pub(crate) fn init(index: usize) {
    let Some(cpu) = CPUS.get(index) else { partita_x86_bare::halt_forever() };
    cpu.this.store(core::ptr::from_ref(cpu).cast_mut(), Ordering::Relaxed);
    cpu.index.store(index as u64, Ordering::Relaxed);
    // SAFETY: nothing else uses the GS base.
    unsafe { write_msr(GS_BASE, core::ptr::from_ref(cpu) as u64) };
}

fn current() -> &'static Cpu {
    let cpu: *const Cpu;
    // SAFETY: each CPU's GS base points to its block, whose first word is its own address, since `init`.
    unsafe { asm!("mov {}, gs:[0]", out(reg) cpu, options(nostack, preserves_flags, readonly)) };
    // SAFETY: as above; the block is a static.
    unsafe { &*cpu }
}

/// The number of this CPU: 0 is the one that booted.
pub fn index() -> usize {
    current().index.load(Ordering::Relaxed) as usize
}

/// This CPU's writer. Its owner holds no reference beyond one record.
pub(crate) fn writer() -> *mut Option<Writer<'static>> {
    current().writer.get()
}

/// What a CPU does once it is started; passed by number, because the start-up page carries one word.
static ENTRIES: [AtomicPtr<()>; CPUS_MAX] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CPUS_MAX];

/// Starts CPU `index` and lets it call `entry`, interrupts off, its local APIC enabled, its trace ring ready.
///
/// # Errors
/// There is no such CPU, or it did not come up within the deadline.
pub fn start(machine: &Machine, index: usize, entry: fn() -> !) -> Result<(), Error> {
    let too_few = Error::TooFewCpus { found: machine.apic_ids.len(), needed: index + 1 };
    let (Some(&apic_id), Some(cpu), Some(slot)) = (machine.apic_ids.get(index), CPUS.get(index), ENTRIES.get(index))
    else {
        return Err(too_few);
    };
    let Some(stack) = index.checked_sub(1).and_then(|other| STACKS.get(other)) else { return Err(too_few) };
    slot.store(entry as *mut (), Ordering::Release);
    let start = Start {
        apic_id,
        stack_top: stack.0.get() as u64 + STACK_LEN as u64,
        entry: begin,
        argument: index as u64,
        ticks_per_ms: machine.clocks.tsc_hz / 1000,
    };
    // SAFETY: the start-up page is RAM below the image that nobody uses, mapped one to one; the CPU is not running, and
    // the stack its own.
    let online = unsafe {
        application::install(Cr3::read_raw().0.start_address().as_u64());
        application::start(&start, || cpu.online.load(Ordering::Acquire) != 0)
    };
    if online { Ok(()) } else { Err(Error::CpuSilent { cpu: index }) }
}

extern "C" fn begin(index: u64) -> ! {
    let index = index as usize;
    init(index);
    interrupts::load();
    apic::enable();
    crate::trace::attach(index);
    let (Some(cpu), Some(entry)) = (CPUS.get(index), ENTRIES.get(index)) else { partita_x86_bare::halt_forever() };
    cpu.online.store(1, Ordering::Release);
    // SAFETY: `start` stored this function here before it started this CPU.
    let entry: fn() -> ! = unsafe { core::mem::transmute(entry.load(Ordering::Acquire)) };
    entry()
}
