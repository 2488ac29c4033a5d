//! The pulse: a guest for the smallest partition, which is started again and again. At each start it tells on its console
//! whether it finds what a fresh start promises, `pulse: fresh` or `pulse: STALE` with what is stale. Then it spoils all of
//! that for its next life, and stays in some state.
//!
//! Options: `state=`[`STATES`], in which all vCPUs stay (default `spin_if0`); `vcpus=1|2`, how many it starts (default 1).

#![no_std]
#![no_main]

mod extended;
mod flood;
mod fresh;
mod gates;
mod stale;
mod state;

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::cell::UnsafeCell;
use core::fmt::{Arguments, Write};
use core::sync::atomic::{AtomicU64, Ordering};

use partita_abi::cpuid::LEAF_PARTITION;
use partita_abi::report::EXIT_FAILURE;
use partita_rows::Options;
use partita_x86_bare::application::{self, Start};
use partita_x86_bare::boot_info::{BootInfo, BootInfoError};
use partita_x86_bare::exceptions::ExceptionFrame;
use partita_x86_bare::uart::Uart;
use partita_x86_bare::{BootBlock, apic, discover, end_run};

use stale::Stale;
use state::{FLOOD, STATES};

const KEYS: &[&str] = &["state", "vcpus"];
/// Most vCPUs that it starts.
const VCPUS_MAX: u64 = 2;
const STACK_LEN: usize = 16 * 1024;
/// In place of the ticks of a millisecond: a vCPU needs no 10 ms between INIT and start-up IPI, and lives are short.
const START_TICKS: u64 = 10_000;

#[unsafe(no_mangle)]
static boot_block: BootBlock = BootBlock::new();

#[repr(C, align(64))]
struct Stack(UnsafeCell<[u8; STACK_LEN]>);

// SAFETY: only vCPU 1 uses it.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; STACK_LEN]));

/// The state in which the vCPUs stay, by its place in [`STATES`].
static STATE: AtomicU64 = AtomicU64::new(0);

/// The entry code comes here.
#[unsafe(no_mangle)]
fn bare_main(boot: Result<BootInfo, BootInfoError>) -> ! {
    let mut stale = Stale::default();
    fresh::check_memory(&mut stale);
    fresh::check_vcpu(&mut stale);
    if let Some(base) = console() {
        Uart::init(base);
    }
    print(format_args!("pulse: {stale}\n"));
    fresh::spoil_memory();
    let boot = boot.unwrap_or_else(|error| fail(format_args!("{error}")));
    let (state, vcpus) = options(&boot).unwrap_or_else(|error| fail(format_args!("{error}")));
    STATE.store(state as u64, Ordering::Release);
    gates::fill(state == FLOOD);
    if vcpus > 1 {
        start_other(&boot);
    }
    stay()
}

fn options(boot: &BootInfo) -> Result<(usize, u64), partita_rows::OptionError<'static>> {
    let options = Options::new(boot.cmdline, KEYS)?;
    Ok((options.choice("state", 0, STATES)?, options.number("vcpus", 1, 1..=VCPUS_MAX)?))
}

/// Has vCPU 1 look and spoil, too.
fn start_other(boot: &BootInfo) {
    // SAFETY: the RSDP is the hypervisor's, and the boot page tables map the low 4 GiB one to one.
    let ids = unsafe { discover::discover_cpus(boot.rsdp, apic::id()) };
    let ids = ids.unwrap_or_else(|error| fail(format_args!("{error}")));
    let Some(&apic_id) = ids.get(1) else { fail(format_args!("there is no vCPU 1; give the partition two pCPUs")) };
    let stack_top = STACK.0.get() as u64 + STACK_LEN as u64;
    let start = Start { apic_id, stack_top, entry: begin_other, argument: 1, ticks_per_ms: START_TICKS };
    let cr3: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
    // SAFETY: the start-up page is RAM below the image that only ever holds this code, mapped one to one; vCPU 1 does not
    // run, and the stack is its own.
    unsafe {
        application::install(cr3);
        // Nobody waits for it: it tells itself.
        application::start(&start, || true);
    }
}

extern "C" fn begin_other(number: u64) -> ! {
    let mut stale = Stale::default();
    fresh::check_vcpu(&mut stale);
    print(format_args!("pulse: vCPU {number}: {stale}\n"));
    stay()
}

/// Spoils what this vCPU's next life is to find fresh, and stays in the state that was asked for.
fn stay() -> ! {
    let state = STATE.load(Ordering::Acquire) as usize;
    gates::load();
    extended::spoil();
    if state == FLOOD {
        flood::flood()
    }
    fresh::spoil_vcpu();
    state::stay(state)
}

/// I/O base of the partition's own serial port, if it has one.
fn console() -> Option<u16> {
    u16::try_from(__cpuid(LEAF_PARTITION).edx).ok().filter(|base| *base != 0)
}

/// Prints, if there is a console: the vCPUs one after the other.
fn print(text: Arguments<'_>) {
    if let Some(base) = console() {
        // The serial port takes everything.
        let _ = Uart::new(base).write_fmt(text);
    }
}

fn fail(why: Arguments<'_>) -> ! {
    print(format_args!("pulse: error: {why}\n"));
    end_run(EXIT_FAILURE)
}

/// The stubs of exceptions come here.
#[unsafe(no_mangle)]
extern "C" fn bare_exception(frame: &ExceptionFrame) -> ! {
    fail(format_args!("exception {} at {:#x}, error code {:#x}", frame.vector, frame.rip, frame.error_code))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}
