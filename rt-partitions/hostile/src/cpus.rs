//! The attacker's vCPUs: the second one is started, again and again if an attack breaks it.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use heapless::Vec;
use partita_x86_bare::application::{self, Start};
use partita_x86_bare::boot_info::BootInfo;
use partita_x86_bare::{apic, discover, relax};

use crate::console::fail;
use crate::tables::{self, CPUS};

const STACK_LEN: usize = 16 * 1024;
/// In place of the ticks of a millisecond: a vCPU needs no 10 ms between INIT and start-up IPI, and lives are short.
const START_TICKS: u64 = 10_000;
/// Looks after which the second vCPU is given up: it may be a thread of a busy host.
const LOOKS_MAX: u64 = 1 << 32;

#[repr(C, align(64))]
struct Stack(UnsafeCell<[u8; STACK_LEN]>);

// SAFETY: only vCPU 1 uses it.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; STACK_LEN]));
static JOB: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static STARTS: AtomicU64 = AtomicU64::new(0);

/// The x2APIC IDs of the partition's vCPUs, the boot vCPU first.
pub(crate) fn ids(boot: &BootInfo) -> Vec<u32, CPUS> {
    // SAFETY: the RSDP is the hypervisor's, and the boot page tables map the low 4 GiB one to one.
    let found = unsafe { discover::discover_cpus(boot.rsdp, apic::id()) };
    let found = found.unwrap_or_else(|error| fail(format_args!("{error}")));
    found.iter().copied().take(CPUS).collect()
}

/// How often the second vCPU has begun its job.
pub(crate) fn starts() -> u64 {
    STARTS.load(Ordering::Acquire)
}

/// The page tables in use.
pub(crate) fn cr3() -> u64 {
    let cr3: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
    cr3
}

/// The fourth control register.
pub(crate) fn cr4() -> u64 {
    let cr4: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags)) };
    cr4
}

/// Starts the second vCPU, whatever it does, and waits until it begins its job.
pub(crate) fn start_other(apic_id: u32, job: fn() -> !) {
    JOB.store(job as *mut (), Ordering::Release);
    let before = starts();
    let stack_top = STACK.0.get() as u64 + STACK_LEN as u64;
    let start = Start { apic_id, stack_top, entry: begin_other, argument: 0, ticks_per_ms: START_TICKS };
    // SAFETY: the start-up page is RAM below the image, mapped one to one, which attacks may overwrite, so that it is filled
    // again; the stack is vCPU 1's own, which begins anew.
    unsafe {
        application::install(cr3());
        application::start(&start, || starts() > before);
    }
    wait_until("vCPU 1 does not start", || starts() > before);
}

extern "C" fn begin_other(_: u64) -> ! {
    tables::load(1);
    apic::enable();
    STARTS.fetch_add(1, Ordering::Release);
    let job = JOB.load(Ordering::Acquire);
    if job.is_null() {
        fail(format_args!("vCPU 1 has no job"));
    }
    // SAFETY: only functions of this type are stored, by `start_other`.
    let job: fn() -> ! = unsafe { core::mem::transmute(job) };
    job()
}

/// Waits, and fails if it takes too long.
pub(crate) fn wait_until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..LOOKS_MAX {
        if done() {
            return;
        }
        relax();
    }
    fail(format_args!("{what}"))
}
