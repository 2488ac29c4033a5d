//! Exceptions, which end the payload with a report, and interrupts, for which it installs handlers.
//!
//! Handlers are assembly: one that measures begins with RDTSC and saves nothing. That is sound because interrupts are off
//! but in assembly that names what its handlers change, and in [`wait`], whose handlers save all.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_trace::Event;
use partita_x86_bare::apic::SPURIOUS_VECTOR;
use partita_x86_bare::exceptions::{self, EXCEPTIONS, ExceptionFrame};
use partita_x86_bare::rdtsc;
use x86_64::VirtAddr;
use x86_64::structures::DescriptorTablePointer;

use crate::{console, cpu, start, trace};

/// Wakes a CPU from [`wait`]; its handler does nothing else.
pub const WAKE_VECTOR: u8 = 0xF0;
/// Notes the time; see [`wait_for_alarm`] and [`spin_for_alarm`].
pub const ALARM_VECTOR: u8 = 0xF1;

global_asm!(
    r#"
    .section .text.interrupts, "ax", @progbits
    .align 16
payload_alarm:
    push rax
    push rdx
    push rcx
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov [rip + {alarm}], rax
    jmp 3f
    .align 16
payload_wake:
    push rax
    push rdx
    push rcx
3:  xor eax, eax
    xor edx, edx
    mov ecx, 0x80B          // x2APIC EOI
    wrmsr
    pop rcx
    pop rdx
    pop rax
payload_spurious:
    iretq
    .previous
    "#,
    alarm = sym ALARM,
);

unsafe extern "C" {
    static payload_alarm: u8;
    static payload_wake: u8;
    static payload_spurious: u8;
}

/// The code segment of the boot code's descriptor table.
const CODE_SELECTOR: u64 = 0x08;
/// Present, privilege level 0, 64-bit interrupt gate: interrupts are off in the handler.
const INTERRUPT_GATE: u64 = 0x8E00;

/// A gate descriptor (SDM vol. 3, figure "64-Bit IDT Gate Descriptors").
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    const MISSING: Self = Self { low: 0, high: 0 };

    const fn to(handler: u64) -> Self {
        let low = handler & 0xFFFF | CODE_SELECTOR << 16 | INTERRUPT_GATE << 32 | (handler >> 16 & 0xFFFF) << 48;
        Self { low, high: handler >> 32 }
    }
}

/// The interrupt descriptor table of all CPUs.
struct Table(UnsafeCell<[Gate; 256]>);

// SAFETY: it is changed only under the contract of `set_handler`.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([Gate::MISSING; 256]));

/// When [`ALARM_VECTOR`] came last; 0 before.
static ALARM: AtomicU64 = AtomicU64::new(0);

/// Fills the table and loads it on this CPU. For the boot CPU, before it takes anything.
pub(crate) fn init() {
    for vector in 0..EXCEPTIONS {
        // SAFETY: the stub of this exception; no CPU takes anything yet.
        unsafe { set_handler(vector, exceptions::stub(vector) as *const u8) };
    }
    // SAFETY: these save what they use, end their interrupt and return by IRETQ; no CPU takes anything yet.
    unsafe {
        set_handler(WAKE_VECTOR, &raw const payload_wake);
        set_handler(ALARM_VECTOR, &raw const payload_alarm);
        set_handler(SPURIOUS_VECTOR, &raw const payload_spurious);
    }
    load();
}

/// Makes `handler` that of `vector`, on all CPUs.
///
/// # Safety
/// The handler returns by IRETQ and ends the interrupt if it is one of a local APIC; what it changes is free in all code
/// that it can interrupt; and no CPU takes this vector meanwhile.
pub unsafe fn set_handler(vector: u8, handler: *const u8) {
    let gate = TABLE.0.get().cast::<Gate>().wrapping_add(usize::from(vector));
    // SAFETY: the table has a gate for every vector, and nobody uses this one meanwhile, by the contract.
    unsafe { gate.write_volatile(Gate::to(handler as u64)) };
}

/// Loads the table on this CPU.
pub(crate) fn load() {
    let limit = (size_of::<[Gate; 256]>() - 1) as u16;
    let pointer = DescriptorTablePointer { limit, base: VirtAddr::new(TABLE.0.get() as u64) };
    // SAFETY: the table is a static, and every gate in it is sound.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
}

/// Halts until an interrupt was handled, or for no reason at all: ask again what was waited for. An interrupt that came
/// since interrupts went off ends it at once. All vectors that may come have handlers that save what they use.
pub fn wait() {
    // SAFETY: STI holds interrupts back until HLT; handlers save what they use.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Halts until [`ALARM_VECTOR`] came, and returns when it did. For one CPU.
pub fn wait_for_alarm() -> u64 {
    loop {
        wait();
        let stamp = ALARM.swap(0, Ordering::Relaxed);
        if stamp != 0 {
            return stamp;
        }
    }
}

/// As [`wait_for_alarm`], but spins.
pub fn spin_for_alarm() -> u64 {
    // SAFETY: the handler saves what it uses; it is the runtime's, and others that may come save all, too.
    unsafe {
        asm!("sti", "2: cmp qword ptr [rip + {alarm}], 0", "je 2b", "cli", alarm = sym ALARM, options(nostack));
    }
    ALARM.swap(0, Ordering::Relaxed)
}

/// An exception ends the payload.
#[unsafe(no_mangle)]
extern "C" fn bare_exception(frame: &ExceptionFrame) -> ! {
    let ExceptionFrame { vector, error_code, rip, rsp, rflags, .. } = *frame;
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    trace::record(rdtsc(), Event::Mark { id: vector as u32, first: rip, second: error_code });
    defmt::error!("exception {} (error code {:#x}) at {:#x}, cr2 {:#x}", vector, error_code, rip, cr2);
    console::print_fatal(format_args!(
        "\npayload: fatal: exception {vector} (error code {error_code:#x}) on CPU {}: rip {rip:#x} rsp {rsp:#x} \
         rflags {rflags:#x} cr2 {cr2:#x}\n",
        cpu::index(),
    ));
    start::end(false)
}
