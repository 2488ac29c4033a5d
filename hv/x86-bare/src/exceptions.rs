//! Exceptions that nobody handles: one stub each, which reports and does not come back. The binary provides the report:
//!
//! ```ignore
//! #[unsafe(no_mangle)]
//! extern "C" fn bare_exception(frame: &ExceptionFrame) -> ! { ... }
//! ```

use core::arch::global_asm;

/// Exceptions come first among the vectors.
pub const EXCEPTIONS: u8 = 32;
/// Bytes between two stubs.
const STUB_LEN: u64 = 16;

// Each stub pushes an error code if the CPU did not (APM vol. 2 section 8.2), then its vector.
global_asm!(
    r#"
    .altmacro
    .macro exception_stub vector
    .align 16
    .if (\vector == 8) || ((\vector >= 10) && (\vector <= 14)) || (\vector == 17) || (\vector == 21) || (\vector == 29) || (\vector == 30)
    .else
    push 0
    .endif
    push \vector
    jmp exception_report
    .endm

    .section .text.exceptions, "ax", @progbits
    .align 16
    .global exception_stubs
exception_stubs:
    .set vector, 0
    .rept 32
    exception_stub %vector
    .set vector, vector + 1
    .endr

exception_report:
    cld
    mov rdi, rsp
    and rsp, -16
    call bare_exception
    ud2
    .previous
    "#,
);

unsafe extern "C" {
    static exception_stubs: u8;
}

/// Address of the stub of an exception, for the interrupt descriptor table. Vectors past the last exception get the last
/// one's.
pub fn stub(vector: u8) -> u64 {
    &raw const exception_stubs as u64 + u64::from(vector.min(EXCEPTIONS - 1)) * STUB_LEN
}

/// What a stub leaves on the stack.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ExceptionFrame {
    /// Its vector.
    pub vector: u64,
    /// Its error code, 0 if it has none.
    pub error_code: u64,
    /// Where it happened.
    pub rip: u64,
    /// The code segment there.
    pub cs: u64,
    /// The flags there.
    pub rflags: u64,
    /// The stack there.
    pub rsp: u64,
    /// The stack segment there.
    pub ss: u64,
}
