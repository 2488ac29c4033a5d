//! The interrupt descriptor table of an attacker: it survives every exception, counts what comes, and goes on where the
//! attack wants to.
//!
//! One handler serves all 256 vectors. Whether a vector below 32 is an exception or an interrupt that was sent is told by the
//! local APIC, in whose service it is then; whether there is an error code by the stack, which the CPU aligns to 16 bytes
//! before it pushes.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use partita_x86_bare::apic;

use crate::console::fail;
use crate::tables::{KERNEL_CODE, Pointer};

/// Vector of #DB.
pub(crate) const DB: u64 = 1;
/// Vector of NMIs.
pub(crate) const NMI: u64 = 2;
/// Vector of INT3, by which code of any privilege can come back.
pub(crate) const BACK: u64 = 3;
/// Vector of #UD.
pub(crate) const UD: u64 = 6;
/// Vector of #GP.
pub(crate) const GP: u64 = 13;
/// Vector of #PF.
pub(crate) const PF: u64 = 14;
/// What [`Guard::finish`] gives if nothing was caught.
pub(crate) const NOTHING: u64 = u64::MAX;
const VECTORS: usize = 256;
const STUB_LEN: usize = 16;
/// CPUs are told apart by the low bits of their APIC IDs.
const IDS: usize = 16;
/// Present, privilege level 0, interrupt gate of 64 bits, or of 32 in legacy mode.
pub(crate) const INTERRUPT_GATE: u64 = 0x8E00;
/// Privilege level 3, beside it.
pub(crate) const FOR_USERS: u64 = 0x6000;

/// Where a CPU goes on after an exception, and what it has had.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Guard {
    /// Where to go on; 0 if no exception is expected.
    resume: AtomicU64,
    stack: AtomicU64,
    vector: AtomicU64,
    error_code: AtomicU64,
    exceptions: AtomicU64,
    nmis: AtomicU64,
    interrupts: AtomicU64,
    /// 1: interrupts and NMIs go on at `resume`, too.
    breaks: AtomicU64,
    /// What LGDT loads again before the way on, which needs the kernel's segments.
    gdt: [AtomicU64; 2],
}

static GUARDS: [Guard; IDS] = [const {
    Guard {
        resume: AtomicU64::new(0),
        stack: AtomicU64::new(0),
        vector: AtomicU64::new(NOTHING),
        error_code: AtomicU64::new(0),
        exceptions: AtomicU64::new(0),
        nmis: AtomicU64::new(0),
        interrupts: AtomicU64::new(0),
        breaks: AtomicU64::new(0),
        gdt: [AtomicU64::new(0), AtomicU64::new(0)],
    }
}; IDS];

/// A gate's words, one gate after the other (APM vol. 2 section 4.8.4).
static TABLE: [[AtomicU64; 2]; VECTORS] = [const { [AtomicU64::new(0), AtomicU64::new(0)] }; VECTORS];

global_asm!(
    r#"
    .altmacro
    .macro hostile_stub vector
    .align 16
    push \vector
    jmp hostile_common
    .endm

    .section .text.gates, "ax", @progbits
    .align 16
hostile_stubs:
    .set vector, 0
    .rept {vectors}
    hostile_stub %vector
    .set vector, vector + 1
    .endr

    .align 16
hostile_common:
    push rax
    push rcx
    push rdx
    push rbx
    mov ecx, 0x802              // x2APIC ID
    rdmsr
    and eax, 15
    shl eax, 7
    lea rbx, [rip + {guards}]
    add rbx, rax
    mov ecx, [rsp + 32]
    cmp ecx, 2
    je 4f
    shr ecx, 5
    add ecx, 0x810              // in service
    rdmsr
    mov ecx, [rsp + 32]
    bt eax, ecx
    jnc 2f
    inc qword ptr [rbx + 48]
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80B              // EOI
    wrmsr
    jmp 5f

2:  inc qword ptr [rbx + 32]
    xor eax, eax
    test rsp, 8
    jz 3f
    mov rax, [rsp + 40]
3:  mov [rbx + 24], rax
6:  xor ecx, ecx
    xchg rcx, [rbx]
    test rcx, rcx
    jz 7f
    mov eax, [rsp + 32]
    mov [rbx + 16], rax
    lgdt [rbx + 64]
    mov rdx, [rbx + 8]
    lea rax, [rsp + 40]
    test rsp, 8
    jz 9f
    add rax, 8
9:  mov [rax], rcx
    mov qword ptr [rax + 8], 0x08
    mov qword ptr [rax + 16], 2
    mov [rax + 24], rdx
    mov qword ptr [rax + 32], 0x10
8:  pop rbx
    pop rdx
    pop rcx
    pop rax
    test rsp, 8
    jz 9f
    add rsp, 8
9:  add rsp, 8
    iretq

4:  inc qword ptr [rbx + 40]
5:  cmp qword ptr [rbx + 56], 0
    je 8b
    cmp qword ptr [rbx], 0
    jne 6b
    jmp 8b

7:  mov rdi, [rsp + 32]
    mov rsi, [rbx + 24]
    lea rdx, [rsp + 40]
    test rsp, 8
    jz 9f
    add rdx, 8
9:  mov rdx, [rdx]
    and rsp, -16
    cld
    call {unexpected}
    ud2
    .previous
    "#,
    vectors = const VECTORS,
    guards = sym GUARDS,
    unexpected = sym unexpected,
);

unsafe extern "C" {
    static hostile_stubs: u8;
}

extern "C" fn unexpected(vector: u64, error_code: u64, rip: u64) -> ! {
    fail(format_args!("exception {vector} at {rip:#x}, error code {error_code:#x}"))
}

/// Fills the table, before any CPU loads it.
pub(crate) fn fill() {
    for (vector, [low, high]) in TABLE.iter().enumerate() {
        let handler = &raw const hostile_stubs as u64 + (vector * STUB_LEN) as u64;
        let stack: u64 = if vector as u64 == NMI { 2 } else { 1 };
        let users = if vector as u64 == BACK { FOR_USERS } else { 0 };
        let attributes = u64::from(KERNEL_CODE) << 16 | stack << 32 | (INTERRUPT_GATE | users) << 32;
        low.store(handler & 0xFFFF | attributes | (handler >> 16 & 0xFFFF) << 48, Ordering::Relaxed);
        high.store(handler >> 32, Ordering::Relaxed);
    }
}

/// Loads the table on this CPU.
pub(crate) fn load() {
    load_pointer(&Pointer { limit: (size_of_val(&TABLE) - 1) as u16, base: (&raw const TABLE) as u64 });
}

/// Loads some table, which may be none.
pub(crate) fn load_pointer(pointer: &Pointer) {
    // SAFETY: the table's gates lead to the handler; where another one is loaded, the next exception is meant to be the end.
    unsafe { asm!("lidt [{}]", in(reg) pointer, options(readonly, nostack, preserves_flags)) };
}

/// The guard of this CPU.
pub(crate) fn guard() -> &'static Guard {
    let [first, ..] = &GUARDS;
    GUARDS.get(apic::id() as usize % IDS).unwrap_or(first)
}

/// Notes this CPU's descriptor table.
pub(crate) fn note_gdt(pointer: &Pointer) {
    let [low, high] = &guard().gdt;
    let (limit, base) = (pointer.limit, pointer.base);
    low.store(u64::from(limit) | base << 16, Ordering::Relaxed);
    high.store(base >> 48, Ordering::Relaxed);
}

impl Guard {
    /// What became of an attempt: the vector of the exception, or [`NOTHING`].
    pub(crate) fn finish(&self) -> u64 {
        if self.resume.swap(0, Ordering::Relaxed) != 0 {
            return NOTHING;
        }
        self.vector.swap(NOTHING, Ordering::Relaxed)
    }

    /// The error code of the last exception, 0 if it had none.
    pub(crate) fn error_code(&self) -> u64 {
        self.error_code.load(Ordering::Relaxed)
    }

    /// Interrupts that came.
    pub(crate) fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// NMIs that came.
    pub(crate) fn nmis(&self) -> u64 {
        self.nmis.load(Ordering::Relaxed)
    }

    /// Whether interrupts and NMIs end an attempt, too.
    pub(crate) fn set_breaks(&self, breaks: bool) {
        self.breaks.store(breaks.into(), Ordering::Relaxed);
    }
}

/// Executes instructions, with operands as of `asm!` by explicit register (not R14, R15, nor a label 9), and gives the
/// vector of the exception that ended them, or [`NOTHING`].
macro_rules! attempt {
    ([$($instruction:literal),+ $(,)?] $(, $($operands:tt)+)?) => {{
        let guard = $crate::gates::guard();
        // SAFETY: what the instructions change is given up by the operands; an exception continues at the end.
        unsafe {
            core::arch::asm!(
                "lea r15, [rip + 9f]",
                "mov [r14 + 8], rsp",
                "mov [r14], r15",
                $($instruction,)+
                "9:",
                in("r14") guard,
                out("r15") _,
                $($($operands)+)?
            );
        }
        guard.finish()
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
