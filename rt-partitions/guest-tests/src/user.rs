//! User code: CPL 3, for one instruction at a time.

use core::arch::{asm, global_asm};

use partita_abi::hypercall::NOP;
use partita_rt::place::uses_vmmcall;

use crate::catch::attempt;
use crate::tables::{USER_CODE, USER_DATA};

global_asm!(
    r#"
    .section .text.user, "ax", @progbits
    .align 16
user_vmmcall:
    mov eax, {nop}
    vmmcall
user_vmcall:
    mov eax, {nop}
    vmcall
user_hlt:
    hlt
    .previous
    "#,
    nop = const NOP,
);

unsafe extern "C" {
    static user_vmmcall: u8;
    static user_vmcall: u8;
    static user_hlt: u8;
}

const PRESENT: u64 = 1 << 0;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Lets user code into the page of `address`.
pub(crate) fn open_page(address: u64) {
    let mut table: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) table, options(nomem, nostack, preserves_flags)) };
    for shift in [39, 30, 21, 12] {
        let entry = ((table & ADDRESS) + (address >> shift & 0x1FF) * 8) as *mut u64;
        // SAFETY: the boot page tables, which map themselves one to one; no other CPU changes them.
        let value = unsafe { entry.read_volatile() };
        if value & PRESENT == 0 {
            return;
        }
        // SAFETY: as above; the kernel's own rights stay.
        unsafe { entry.write_volatile(value | USER) };
        if value & LARGE != 0 {
            break;
        }
        table = value;
    }
    // SAFETY: flushes the translations.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}

/// Executes user code, interrupts off, and gives the vector of the exception that ends it.
fn execute(code: *const u8) -> u64 {
    open_page(code as u64);
    attempt!(
        ["push rdx", "push 0", "push 2", "push rcx", "push rax", "iretq"],
        in("rax") code, in("rcx") USER_CODE, in("rdx") USER_DATA,
    )
}

/// A hypercall.
pub(crate) fn hypercall() -> u64 {
    execute(if uses_vmmcall() { &raw const user_vmmcall } else { &raw const user_vmcall })
}

/// HLT, which is the kernel's.
pub(crate) fn halt() -> u64 {
    execute(&raw const user_hlt)
}
