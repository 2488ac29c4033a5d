//! Executes a few bytes in another mode of the CPU, and comes back whatever becomes of them: by the INT3 behind them, or by
//! another exception.
//!
//! All of it is in low memory, where real mode reaches it and nobody needs what was there.

mod legacy;

use core::arch::{asm, naked_asm};

use crate::cpus::cr3;
use crate::gates::{self, BACK, NOTHING, attempt};
use crate::tables::{CODE_32, USER_CODE, USER_CODE_32, USER_DATA};

/// Where the bytes are put.
pub(crate) const CODE_AT: u64 = 0x7000;
/// Where they find some data.
pub(crate) const DATA_AT: u64 = 0x6000;
/// Top of their stack.
pub(crate) const STACK_TOP: u32 = 0x6000;
const PAGE: u64 = 4096;
const INT3: u8 = 0xCC;
const ADDRESS_SIZE: u8 = 0x67;
const KERNEL_DATA: u16 = 0x10;
/// The bit of RFLAGS that is always set.
const RFLAGS_FIXED: u64 = 2;
const IOPL_SHIFT: u32 = 12;
/// A page table's entry: for privilege level 3, too.
const USER: u64 = 1 << 2;
/// OSFXSR, OSXMMEXCPT, OSXSAVE.
const CR4_ON: u64 = 0b11 << 9 | 1 << 18;
const TABLE_ADDRESS: u64 = 0xF_FFFF_FFFF_F000;

/// A mode of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// 64-bit code of privilege level 3.
    User64,
    /// 32-bit code of privilege level 0 in long mode.
    Kernel32,
    /// 32-bit code of privilege level 3 in long mode.
    User32,
    /// 32-bit code of privilege level 0 without long mode and paging.
    Protected,
    /// Real mode.
    Real,
    /// Virtual-8086 mode.
    Virtual8086,
}
use Mode::{Kernel32, Protected, Real, User32, User64, Virtual8086};

impl Mode {
    /// Whether code has 16-bit operands and addresses.
    pub(crate) const fn is_16_bit(self) -> bool {
        matches!(self, Real | Virtual8086)
    }
}

/// Registers before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) rax: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
}

/// What became of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct After {
    /// The vector of the exception, [`NOTHING`] if they came to their end.
    pub(crate) caught: u64,
    /// Its error code, if it has one.
    pub(crate) error_code: u64,
    pub(crate) rax: u64,
    pub(crate) rdx: u64,
    /// Bytes that it pushed beside what each pushes, 4 for an error code; not known of long mode.
    pub(crate) pushed: u32,
}

/// Writes into low memory.
pub(crate) fn write(at: u64, bytes: &[u8]) {
    for (byte, place) in bytes.iter().zip(at..) {
        // SAFETY: low memory that nothing uses any more, mapped one to one.
        unsafe { (place as *mut u8).write_volatile(*byte) };
    }
}

/// Reads `N` bytes of low memory.
pub(crate) fn read<const N: usize>(at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    for (byte, place) in bytes.iter_mut().zip(at..) {
        // SAFETY: as above.
        *byte = unsafe { (place as *const u8).read_volatile() };
    }
    bytes
}

/// Lets privilege level 3 use the first 2 MiB of memory, the image's, and nothing else; fills the tables of legacy mode.
pub(crate) fn prepare() {
    let mut table = cr3();
    for _ in 0..3 {
        let first = (table & TABLE_ADDRESS) as *mut u64;
        // SAFETY: the boot page tables' first entries lead to pages of 2 MiB; nothing else changes them.
        unsafe {
            table = first.read_volatile() | USER;
            first.write_volatile(table);
        }
    }
    // SAFETY: the same tables again, to flush the TLB; SSE and XSAVE are switched on.
    unsafe {
        asm!("mov cr3, {0}", "mov {0}, cr4", "or {0}, {on}", "mov cr4, {0}", inout(reg) cr3() => _, on = const CR4_ON,
            options(nostack));
    }
    for at in (CODE_AT..CODE_AT + PAGE).chain(DATA_AT..DATA_AT + PAGE) {
        write(at, &[INT3]);
    }
    legacy::prepare();
}

/// Executes bytes with this IOPL. If they address memory by RDX, an address of 32 bits is meant in 16-bit modes, too.
pub(crate) fn execute(mode: Mode, iopl: u64, bytes: &[u8], addresses: bool, before: &Registers) -> After {
    let prefix: &[u8] = if addresses && mode.is_16_bit() { &[ADDRESS_SIZE] } else { &[] };
    write(CODE_AT, prefix);
    let code = CODE_AT + prefix.len() as u64;
    write(code, bytes);
    // Where an instruction ends early, by the prefixes that it was not known with, what follows it is harmless.
    write(code + bytes.len() as u64, &[INT3; 16]);
    let rflags = RFLAGS_FIXED | iopl << IOPL_SHIFT;
    let after = match mode {
        Kernel32 => return_to(CODE_32, KERNEL_DATA, rflags, before),
        User64 => return_to(USER_CODE, USER_DATA, rflags, before),
        User32 => return_to(USER_CODE_32, USER_DATA, rflags, before),
        Protected | Real | Virtual8086 => legacy::visit(mode, rflags, before),
    };
    After { caught: if after.caught == BACK { NOTHING } else { after.caught }, ..after }
}

/// By IRET: RIP and what follows it; general registers stay.
#[repr(C)]
struct Frame {
    rip: u64,
    code: u64,
    rflags: u64,
    rsp: u64,
    data: u64,
}

/// Returns to a frame, at R13, and comes back behind the exception that the guard at R14 catches.
#[unsafe(naked)]
extern "C" fn return_and_come_back() {
    naked_asm!(
        "push rbx",
        "push rbp",
        "mov [r14 + 8], rsp",
        "lea r15, [rip + 2f]",
        "mov [r14], r15",
        "mov ds, [r13 + 32]",
        "mov es, [r13 + 32]",
        "push [r13 + 32]",
        "push [r13 + 24]",
        "push [r13 + 16]",
        "push [r13 + 8]",
        "push [r13]",
        "iretq",
        "2:",
        "pop rbp",
        "pop rbx",
        "ret"
    )
}

fn return_to(code: u16, data: u16, rflags: u64, before: &Registers) -> After {
    let frame = Frame { rip: CODE_AT, code: code.into(), rflags, rsp: STACK_TOP.into(), data: data.into() };
    let (rax, rdx): (u64, u64);
    let caught = attempt!(["call r12"], inout("r12") return_and_come_back as *const () => _, inout("r13") &raw const frame => _,
        inout("rax") before.rax => rax, inout("rcx") before.rcx => _, inout("rdx") before.rdx => rdx,
        inout("rsi") before.rsi => _, inout("rdi") before.rdi => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    // SAFETY: the segments that this program has.
    unsafe {
        asm!("mov ds, {0:e}", "mov es, {0:e}", in(reg) u32::from(KERNEL_DATA), options(nostack, preserves_flags))
    };
    After { caught, error_code: gates::guard().error_code(), rax, rdx, pushed: 0 }
}
