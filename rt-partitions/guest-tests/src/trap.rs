//! Exceptions of every vector, noted one by one: faults that [`trial!`] expects end what it tries, traps go on. One CPU at a
//! time uses this, by a table of its own, between [`begin`] and [`end`].

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::{end as end_payload, println};

/// Exceptions that a guest is tested with.
pub(crate) mod vector {
    /// #DE.
    pub(crate) const DIVIDE: u64 = 0;
    /// #DB.
    pub(crate) const DEBUG: u64 = 1;
    /// #BP.
    pub(crate) const BREAKPOINT: u64 = 3;
    /// #OF.
    pub(crate) const OVERFLOW: u64 = 4;
    /// #BR.
    pub(crate) const BOUND: u64 = 5;
    /// #UD.
    pub(crate) const INVALID_OPCODE: u64 = 6;
    /// #NM.
    pub(crate) const DEVICE_NOT_AVAILABLE: u64 = 7;
    /// #DF.
    pub(crate) const DOUBLE_FAULT: u64 = 8;
    /// #TS.
    pub(crate) const INVALID_TSS: u64 = 10;
    /// #NP.
    pub(crate) const NOT_PRESENT: u64 = 11;
    /// #SS.
    pub(crate) const STACK: u64 = 12;
    /// #GP.
    pub(crate) const GENERAL_PROTECTION: u64 = 13;
    /// #PF.
    pub(crate) const PAGE: u64 = 14;
    /// #MF.
    pub(crate) const X87: u64 = 16;
    /// #AC.
    pub(crate) const ALIGNMENT: u64 = 17;
    /// #XM.
    pub(crate) const SIMD: u64 = 19;
}
pub(crate) use vector::*;

/// No exception came.
pub(crate) const NOTHING: u64 = u64::MAX;
const RFLAGS_RF: u64 = 1 << 16;
const RFLAGS_FIXED: u64 = 1 << 1;
/// DR6 with nothing noted.
pub(crate) const DR6_CLEAR: u64 = 0xFFFF_0FF0;
const KERNEL_CODE: u64 = 0x08;
const KERNEL_DATA: u64 = 0x10;
/// Exceptions that are noted in detail.
const NOTES: usize = 24;
/// Bytes between two stubs.
const STUB_LEN: usize = 16;
const EXCEPTIONS: usize = 32;
const NMI: usize = 2;

/// An exception that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trap {
    /// Its vector, or [`NOTHING`].
    pub(crate) vector: u64,
    /// Its error code, 0 if it has none.
    pub(crate) error: u64,
    /// Where it came.
    pub(crate) rip: u64,
    /// RFLAGS in its frame.
    pub(crate) rflags: u64,
    /// CS in its frame.
    pub(crate) cs: u64,
    /// Stack pointer in its handler.
    pub(crate) stack: u64,
    /// CR2 in its handler.
    pub(crate) cr2: u64,
    /// DR6 in its handler, for #DB.
    pub(crate) dr6: u64,
}

const NO_TRAP: Trap = Trap { vector: NOTHING, error: 0, rip: 0, rflags: 0, cs: 0, stack: 0, cr2: 0, dr6: 0 };

/// Registers that an exception found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted {
    /// R15 to R8, RDI, RSI, RBP, RBX, RDX, RCX, RAX.
    pub(crate) registers: [u64; 15],
    /// RSP.
    pub(crate) rsp: u64,
}

/// What the stubs leave on the stack.
#[derive(Debug)]
#[repr(C)]
struct Frame {
    registers: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Where to continue after a fault; 0 if none is expected.
pub(crate) static RESUME: AtomicU64 = AtomicU64::new(0);
/// The stack to continue with.
pub(crate) static STACK_AT: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Vectors whose handler returns to where the exception came.
static GOES_ON: AtomicU64 = AtomicU64::new(0);

struct Own<T>(UnsafeCell<T>);

// SAFETY: one CPU at a time uses them.
unsafe impl<T> Sync for Own<T> {}

static TRAPS: Own<[Trap; NOTES]> = Own(UnsafeCell::new([NO_TRAP; NOTES]));
/// What the last exception found.
static INTERRUPTED: Own<Interrupted> = Own(UnsafeCell::new(Interrupted { registers: [0; 15], rsp: 0 }));
static TABLE: Own<[[u64; 2]; 256]> = Own(UnsafeCell::new([[0; 2]; 256]));
static BEFORE: Own<Pointer> = Own(UnsafeCell::new(Pointer { limit: 0, base: 0 }));

/// The operand of LIDT.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

global_asm!(
    r#"
    .altmacro
    .macro trap_stub number
    .align 16
    .if ((0x60227D00 >> \number) & 1) == 0
    push 0
    .endif
    push \number
    jmp trap_common
    .endm

    .section .text.trap, "ax", @progbits
    .align 16
trap_stubs:
    .set trap_number, 0
    .rept {exceptions}
    trap_stub %trap_number
    .set trap_number, trap_number + 1
    .endr

    .align 16
trap_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    cld
    call {trapped}
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
    .previous
    "#,
    exceptions = const EXCEPTIONS,
    trapped = sym trapped,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

extern "C" fn trapped(frame: &mut Frame) {
    let (cr2, dr6): (u64, u64);
    // SAFETY: reads registers.
    unsafe { asm!("mov {}, cr2", "mov {}, dr6", out(reg) cr2, out(reg) dr6, options(nomem, nostack, preserves_flags)) };
    let trap = Trap {
        vector: frame.vector,
        error: frame.error,
        rip: frame.rip,
        rflags: frame.rflags,
        cs: frame.cs,
        stack: core::ptr::from_ref(frame) as u64,
        cr2,
        dr6,
    };
    let index = COUNT.fetch_add(1, Ordering::Relaxed) as usize;
    // SAFETY: this CPU's alone, and it reads them only when no exception comes.
    if let Some(note) = unsafe { &mut *TRAPS.0.get() }.get_mut(index) {
        *note = trap;
    }
    // SAFETY: likewise.
    unsafe { *INTERRUPTED.0.get() = Interrupted { registers: frame.registers, rsp: frame.rsp } };
    if frame.vector == DEBUG {
        // SAFETY: the CPU sets its bits and never clears them.
        unsafe { asm!("mov dr6, {}", in(reg) DR6_CLEAR, options(nomem, nostack, preserves_flags)) };
    }
    if frame.vector < 64 && GOES_ON.load(Ordering::Relaxed) >> frame.vector & 1 == 1 {
        // A breakpoint on the instruction that comes next has been seen.
        frame.rflags |= if frame.vector == DEBUG { RFLAGS_RF } else { 0 };
        return;
    }
    let resume = RESUME.swap(0, Ordering::Relaxed);
    if resume == 0 {
        println!("fatal: nobody expects {trap:x?}");
        end_payload(false);
    }
    (frame.rip, frame.cs, frame.rflags) = (resume, KERNEL_CODE, RFLAGS_FIXED);
    (frame.rsp, frame.ss) = (STACK_AT.load(Ordering::Relaxed), KERNEL_DATA);
}

/// Loads the table on this CPU, which has its task state. Gates of #BP and #OF are open to user code.
pub(crate) fn begin() {
    let mut before = Pointer { limit: 0, base: 0 };
    // SAFETY: stores ten bytes.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut before, options(nostack, preserves_flags)) };
    // SAFETY: one CPU at a time does this.
    let table = unsafe { &mut *TABLE.0.get() };
    for (index, gate) in table.iter_mut().enumerate() {
        // SAFETY: the runtime's table has a gate of two words for every vector.
        *gate = unsafe { (before.base as *const [u64; 2]).add(index).read_volatile() };
        if index < EXCEPTIONS && index != NMI {
            let stub = (&raw const trap_stubs).wrapping_add(index * STUB_LEN) as u64;
            let is_open = index as u64 == BREAKPOINT || index as u64 == OVERFLOW;
            let kind: u64 = if is_open { 0xEE00 } else { 0x8E00 };
            *gate = [stub & 0xFFFF | KERNEL_CODE << 16 | kind << 32 | (stub >> 16 & 0xFFFF) << 48, stub >> 32];
        }
    }
    let pointer = Pointer { limit: (size_of_val(table) - 1) as u16, base: table.as_ptr() as u64 };
    // SAFETY: every gate of it is sound.
    unsafe {
        *BEFORE.0.get() = before;
        asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags));
    }
    forget();
}

/// Loads the table again that was there before.
pub(crate) fn end() {
    // SAFETY: `begin` noted it.
    unsafe { asm!("lidt [{}]", in(reg) BEFORE.0.get(), options(nostack, preserves_flags)) };
}

/// Changes the gate of a vector, while the table is loaded: its low word is given to `change`.
pub(crate) fn change_gate(vector: u64, change: impl FnOnce(u64) -> u64) {
    // SAFETY: one CPU at a time does this, and none of its exceptions is under way.
    if let Some([low, _]) = unsafe { &mut *TABLE.0.get() }.get_mut(vector as usize) {
        *low = change(*low);
    }
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Forgets what came, and lets the handlers of no vector go on.
pub(crate) fn forget() {
    COUNT.store(0, Ordering::Relaxed);
    GOES_ON.store(0, Ordering::Relaxed);
    RESUME.store(0, Ordering::Relaxed);
}

/// Forgets what came, and lets the handler of `vector` return to where it came from, from now on.
pub(crate) fn go_on_after(vector: u64) {
    forget();
    GOES_ON.store(1 << vector, Ordering::Relaxed);
}

/// How many exceptions came.
pub(crate) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// The exception with this number, from 0 on.
pub(crate) fn get(index: usize) -> Trap {
    if index as u64 >= count() {
        return NO_TRAP;
    }
    // SAFETY: this CPU's alone, and none of its exceptions is under way.
    unsafe { &*TRAPS.0.get() }.get(index).copied().unwrap_or(NO_TRAP)
}

/// What the last exception found.
pub(crate) fn interrupted() -> Interrupted {
    // SAFETY: this CPU's alone, and none of its exceptions is under way.
    unsafe { *INTERRUPTED.0.get() }
}

/// What became of a trial: the last exception.
pub(crate) fn finish() -> Trap {
    RESUME.store(0, Ordering::Relaxed);
    let last = count().checked_sub(1).map_or(NO_TRAP, |last| get(last as usize));
    COUNT.store(0, Ordering::Relaxed);
    last
}

/// Executes instructions, with operands as of `asm!` by explicit register (not R15, nor a label 9), and gives the
/// exception that ended them.
macro_rules! trial {
    ([$($instruction:expr),+ $(,)?] $(, $($operands:tt)+)?) => {{
        // SAFETY: what the instructions change is given up by the operands; an exception continues at the end.
        unsafe {
            core::arch::asm!(
                "lea r15, [rip + 9f]",
                "mov [rip + {resume}], r15",
                "mov [rip + {stack}], rsp",
                $($instruction,)+
                "9:",
                resume = sym $crate::trap::RESUME,
                stack = sym $crate::trap::STACK_AT,
                out("r15") _,
                $($($operands)+)?
            );
        }
        $crate::trap::finish()
    }};
}
pub(crate) use trial;

/// [`trial!`] at privilege level 3, with these RFLAGS; not R14 either. The pages of the code and of the stack have to be open
/// to user code. What does not fault ends at a UD2.
macro_rules! user_trial {
    ([$($instruction:expr),+ $(,)?], $rflags:expr $(, $($operands:tt)+)?) => {
        $crate::trap::trial!(
            [
                "mov r15, rsp", "push 0x1B", "push r15", "push r14", "push 0x23", "lea r14, [rip + 8f]", "push r14", "iretq",
                "8:", $($instruction,)+ "ud2",
            ],
            inout("r14") $rflags => _, $($($operands)+)?
        )
    };
}
pub(crate) use user_trial;
