//! Instructions that may fault, and what became of them: #UD and #GP are caught where [`attempt!`] expects them, and stay
//! fatal elsewhere. Only CPU 0 attempts.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::interrupts;

use crate::tables;

/// Vector of #UD.
pub(crate) const UD: u64 = 6;
/// Vector of #GP.
pub(crate) const GP: u64 = 13;
/// What [`finish`] gives if nothing was caught.
pub(crate) const NOTHING: u64 = u64::MAX;

/// Where to continue after an exception; 0 if none is expected.
pub(crate) static RESUME: AtomicU64 = AtomicU64::new(0);
/// The stack to continue with.
pub(crate) static STACK: AtomicU64 = AtomicU64::new(0);
static CAUGHT: AtomicU64 = AtomicU64::new(NOTHING);
static ERROR_CODE: AtomicU64 = AtomicU64::new(0);
/// The handlers that were there before, for what nobody expects.
static FATAL_UD: AtomicU64 = AtomicU64::new(0);
static FATAL_GP: AtomicU64 = AtomicU64::new(0);

// After an expected exception the CPU is back at CPL 0, wherever it was.
global_asm!(
    r#"
    .section .text.catch, "ax", @progbits
    .align 16
catch_ud:
    cmp qword ptr [rip + {resume}], 0
    jne 2f
    jmp [rip + {fatal_ud}]
2:  push 0
    push rax
    mov eax, 6
    jmp 4f

    .align 16
catch_gp:
    cmp qword ptr [rip + {resume}], 0
    jne 3f
    jmp [rip + {fatal_gp}]
3:  push rax
    mov eax, 13
4:  mov [rip + {caught}], rax
    mov rax, [rsp + 8]
    mov [rip + {error_code}], rax
    xor eax, eax
    xchg rax, [rip + {resume}]
    mov [rsp + 16], rax
    mov qword ptr [rsp + 24], 0x08
    mov rax, [rip + {stack}]
    mov [rsp + 40], rax
    mov qword ptr [rsp + 48], 0x10
    pop rax
    add rsp, 8
    iretq
    .previous
    "#,
    resume = sym RESUME,
    stack = sym STACK,
    caught = sym CAUGHT,
    error_code = sym ERROR_CODE,
    fatal_ud = sym FATAL_UD,
    fatal_gp = sym FATAL_GP,
);

unsafe extern "C" {
    static catch_ud: u8;
    static catch_gp: u8;
}

/// Installs the handlers.
pub(crate) fn install() {
    FATAL_UD.store(tables::handler(UD as u8), Ordering::Relaxed);
    FATAL_GP.store(tables::handler(GP as u8), Ordering::Relaxed);
    // SAFETY: they return by IRETQ to where `attempt!` says, which gives up what they change, or do not return at all;
    // no CPU faults meanwhile.
    unsafe {
        interrupts::set_handler(UD as u8, &raw const catch_ud);
        interrupts::set_handler(GP as u8, &raw const catch_gp);
    }
}

/// What became of an attempt: the vector of the exception, or [`NOTHING`].
pub(crate) fn finish() -> u64 {
    if RESUME.swap(0, Ordering::Relaxed) != 0 {
        return NOTHING;
    }
    CAUGHT.swap(NOTHING, Ordering::Relaxed)
}

/// The error code of the last exception that was caught, 0 if it has none.
pub(crate) fn error_code() -> u64 {
    ERROR_CODE.load(Ordering::Relaxed)
}

/// Executes instructions, with operands as of `asm!` by explicit register (not R15, nor a label 9), and gives the vector
/// of the exception that ended them, or [`NOTHING`].
macro_rules! attempt {
    ([$($instruction:literal),+ $(,)?] $(, $($operands:tt)+)?) => {{
        // SAFETY: what the instructions change is given up by the operands; an exception continues at the end.
        unsafe {
            core::arch::asm!(
                "lea r15, [rip + 9f]",
                "mov [rip + {resume}], r15",
                "mov [rip + {stack}], rsp",
                $($instruction,)+
                "9:",
                resume = sym $crate::catch::RESUME,
                stack = sym $crate::catch::STACK,
                out("r15") _,
                $($($operands)+)?
            );
        }
        $crate::catch::finish()
    }};
}
pub(crate) use attempt;

/// RDMSR.
///
/// # Errors
/// The exception that it gave.
pub(crate) fn read_msr(msr: u32) -> Result<u64, u64> {
    let (low, high): (u32, u32);
    let caught = attempt!(["rdmsr"], in("ecx") msr, out("eax") low, out("edx") high);
    if caught == NOTHING { Ok(u64::from(high) << 32 | u64::from(low)) } else { Err(caught) }
}

/// WRMSR; gives the exception.
pub(crate) fn write_msr(msr: u32, value: u64) -> u64 {
    attempt!(["wrmsr"], in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

/// Lets interrupts in for a moment.
pub(crate) fn open() {
    // SAFETY: whatever may come has a handler that saves what it uses.
    unsafe { asm!("sti", "nop", "pause", "cli", options(nostack)) };
}
