//! A few instructions, executed from a page of their own with every register as given, in any mode that has 64-bit handlers. They
//! end by a UD2, or by the exception that comes before it.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::tables;
use crate::trap::{self, RESUME, STACK_AT};
use crate::user;

const PAGE_LEN: usize = 4096;
/// UD2.
const END: [u8; 2] = [0x0F, 0x0B];

/// RAX to R15 without RSP, in the order of the trap handlers' frames.
pub(super) type Registers = [u64; 15];
/// Where in [`Registers`].
pub(super) const RAX: usize = 14;
/// See [`RAX`].
pub(super) const RCX: usize = 13;
/// See [`RAX`].
pub(super) const RDX: usize = 12;
/// See [`RAX`].
pub(super) const RBX: usize = 11;
/// See [`RAX`].
pub(super) const R12: usize = 3;
/// XMM0 to XMM15.
pub(super) type Vectors = [[u64; 2]; 16];

/// What the instructions begin with. All but the vector registers is popped from here.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub(super) struct State {
    pub(super) vectors: Vectors,
    pub(super) registers: Registers,
    rip: u64,
    cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    ss: u64,
    /// The vector registers at the end.
    pub(super) vectors_after: Vectors,
}

const _: () =
    assert!(core::mem::offset_of!(State, registers) == 256 && core::mem::offset_of!(State, vectors_after) == 416);

/// A mode, and a privilege level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// 64-bit mode, the kernel.
    Long,
    /// Compatibility mode with 32-bit code, the kernel.
    Kernel32,
    /// Compatibility mode with 16-bit code, the kernel. The segment begins with the page of the code.
    Kernel16,
    /// 64-bit mode, user code.
    User,
    /// Compatibility mode with 32-bit code, user code.
    User32,
}

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_LEN]>);

// SAFETY: one CPU at a time uses them.
unsafe impl Sync for Page {}

static CODE: Page = Page(UnsafeCell::new([0; PAGE_LEN]));
static STACK: Page = Page(UnsafeCell::new([0; PAGE_LEN]));
/// The state that is under way.
static STATE: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .section .text.boundaries_enter, "ax", @progbits
    .align 16
boundaries_enter:               // RDI: the state
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    lea rax, [rip + 2f]
    mov [rip + {resume}], rax
    mov [rip + {stack}], rsp
    mov [rip + {state}], rdi
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqa xmm\n, [rdi + \n * 16]
    .endr
    lea rsp, [rdi + 256]
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
    iretq
2:  mov rdi, [rip + {state}]
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqa [rdi + 416 + \n * 16], xmm\n
    .endr
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    .previous
    "#,
    resume = sym RESUME,
    stack = sym STACK_AT,
    state = sym STATE,
);

unsafe extern "C" {
    fn boundaries_enter(state: &mut State);
}

/// The address of the page that the instructions are in.
pub(super) fn code_page() -> u64 {
    CODE.0.get() as u64
}

/// Opens the pages of code and stack to user code, and prepares descriptors for all modes. Once on each CPU, in [`trap::begin`]'s table.
pub(super) fn prepare() {
    user::open_page(code_page());
    user::open_page(STACK.0.get() as u64);
    tables::set_code_16(code_page());
}

impl State {
    /// Every register has a pattern of its own, upper halves included; interrupts are off.
    pub(super) fn new(mode: Mode) -> Self {
        let pattern = |seed: u64| (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 0x8000_0001_0000_0000;
        let mut registers = core::array::from_fn(|index| pattern(index as u64));
        // QEMU takes these two for part of the MSR's number (docs/platforms.md).
        registers[RCX] &= !(3 << 32);
        let (cs, ss, rip) = match mode {
            Mode::Long => (tables::KERNEL_CODE, tables::KERNEL_DATA, code_page()),
            Mode::Kernel32 => (tables::KERNEL_CODE_32, tables::KERNEL_DATA, code_page()),
            Mode::Kernel16 => (tables::KERNEL_CODE_16, tables::KERNEL_DATA, 0),
            Mode::User => (tables::USER_CODE, tables::USER_DATA, code_page()),
            Mode::User32 => (tables::USER_CODE_32, tables::USER_DATA, code_page()),
        };
        Self {
            vectors: core::array::from_fn(|index| [pattern(100 + index as u64), pattern(200 + index as u64)]),
            registers,
            rip,
            cs,
            rflags: 2,
            rsp: STACK.0.get() as u64 + PAGE_LEN as u64 - 64,
            ss,
            vectors_after: [[0; 2]; 16],
        }
    }

    /// Where the first instruction is, as RIP.
    pub(super) const fn begins_at(&self) -> u64 {
        self.rip
    }

    /// Sets the low half of a register, and keeps the upper one.
    pub(super) fn set_low(&mut self, register: usize, value: u32) {
        if let Some(register) = self.registers.get_mut(register) {
            *register = *register & !0xFFFF_FFFF | u64::from(value);
        }
    }

    /// Executes the instructions. What came meanwhile is noted by [`trap`].
    pub(super) fn execute(&mut self, code: &[&[u8]]) {
        let bytes = code.iter().copied().chain([&END[..]]).flatten();
        // SAFETY: this CPU's alone, and nobody executes it now.
        let page = unsafe { &mut *CODE.0.get() };
        for (place, byte) in page.iter_mut().zip(bytes) {
            *place = *byte;
        }
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        // SAFETY: they end by an exception, which continues behind the entry; what they change is in the state, or
        // saved; nobody else uses the stack that they have.
        unsafe { boundaries_enter(self) };
        RESUME.store(0, Ordering::Relaxed);
    }

    /// What the last exception found. To be asked right behind [`Self::execute`].
    pub(super) fn after(&self) -> trap::Interrupted {
        trap::interrupted()
    }
}
