//! Guests where the hypervisor could leave a state that the CPU does not enter again: at the end of the address space, in the
//! shadow of MOV SS and STI, and at bits of CR4 that guests are not shown.

use core::arch::asm;
use core::cell::UnsafeCell;

use crate::claims::Claims;
use crate::trap::{self, DEBUG, GENERAL_PROTECTION, NOTHING, Trap, trial};

const PAGE_LEN: usize = 4096;
/// The last two bytes that 32-bit code can have.
const LAST: u64 = 0xFFFF_FFFE;
const PRESENT_WRITABLE: u64 = 0b11;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
const CR4_TSD: u64 = 1 << 2;
const CR4_DE: u64 = 1 << 3;
/// Bits of CR4 whose features guests are not shown: LA57, VMXE, SMXE, CET, PKS, UINTR.
const CR4_HIDDEN: [(u32, &str); 6] = [
    (12, "CR4.LA57 cannot be set"),
    (13, "CR4.VMXE cannot be set"),
    (14, "CR4.SMXE cannot be set"),
    (23, "CR4.CET cannot be set"),
    (24, "CR4.PKS cannot be set"),
    (25, "CR4.UINTR cannot be set"),
];

/// A page: a table, or code.
#[repr(C, align(4096))]
struct Page<T>(UnsafeCell<T>);

// SAFETY: one CPU at a time uses them.
unsafe impl<T> Sync for Page<T> {}

static TABLE: Page<[u64; 512]> = Page(UnsafeCell::new([0; 512]));
static CODE: Page<[u8; PAGE_LEN]> = Page(UnsafeCell::new([0; PAGE_LEN]));

/// The entry of the boot page tables for the last 2 MiB below 4 GiB.
fn last_entry() -> *mut u64 {
    let cr3: u64;
    // SAFETY: reads a register; the tables are mapped one to one, and have entries for the low 4 GiB.
    unsafe {
        asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags));
        let pointers = ((cr3 & ADDRESS) as *const u64).read_volatile() & ADDRESS;
        let directory = (pointers as *const u64).add(3).read_volatile() & ADDRESS;
        (directory as *mut u64).add(511)
    }
}

fn flush() {
    // SAFETY: flushes translations.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}

/// Executes an instruction of two bytes at the end of the 4 GiB that 32-bit code has; at 0 a jump leads back.
fn at_the_end(instruction: [u8; 2], code_32: u16) -> Trap {
    let entry = last_entry();
    // SAFETY: this CPU's alone; nobody uses what was mapped there, nor the first bytes of RAM.
    let before = unsafe {
        let code = CODE.0.get().cast::<u8>();
        code.add(PAGE_LEN - 2).write_volatile(instruction[0]);
        code.add(PAGE_LEN - 1).write_volatile(instruction[1]);
        TABLE.0.get().cast::<u64>().add(511).write_volatile(code as u64 | PRESENT_WRITABLE);
        let before = entry.read_volatile();
        entry.write_volatile(TABLE.0.get() as u64 | PRESENT_WRITABLE);
        before
    };
    flush();
    let trap = trial!(
        [
            "push rbx", "lea rax, [rip + 2f]", "mov byte ptr [rcx], 0xEA", "mov [rcx + 1], eax", "mov word ptr [rcx + 5], 8",
            "xor eax, eax", "push rdx", "push rsi", "retfq", "2: pop rbx",
        ],
        out("rax") _, inout("rcx") 0_u64 => _, inout("rdx") u64::from(code_32) => _, inout("rsi") LAST => _,
    );
    // SAFETY: as it was.
    unsafe { entry.write_volatile(before) };
    flush();
    trap
}

/// The instruction pointer wraps. `code_32` selects 32-bit code.
pub(crate) fn wrap(claims: &mut Claims, code_32: u16) {
    for (instruction, text) in [
        ([0x90, 0x90], "behind NOP at the end of 4 GiB RIP is 0"),
        ([0x0F, 0xA2], "  behind CPUID, too"),
        ([0xE4, 0x80], "  behind IN"),
        ([0x0F, 0x09], "  behind WBINVD"),
    ] {
        let trap = at_the_end(instruction, code_32);
        claims.about(text, trap.vector == NOTHING, trap.vector, trap.rip);
    }
}

/// Executes instructions behind a MOV to SS, with RFLAGS.TF set, and gives the address behind them.
macro_rules! step_in_shadow {
    ([$($instruction:literal),+]) => {{
        trap::go_on_after(DEBUG);
        let behind: u64;
        // SAFETY: SS gets what it has; each #DB goes on.
        unsafe {
            asm!(
                "lea r14, [rip + 3f]", "mov r13, rbx", "mov r12d, ss", "xor eax, eax", "xor ecx, ecx",
                "pushfq", "or qword ptr [rsp], 0x100", "popfq",
                "mov ss, r12d",
                $($instruction,)+
                "3: nop",
                "pushfq", "and qword ptr [rsp], -0x101", "popfq",
                "mov rbx, r13",
                out("r14") behind, out("r13") _, out("r12") _, out("rax") _, out("rcx") _, out("rdx") _,
            );
        }
        behind
    }};
}

/// Single steps behind MOV SS, which holds the one of its own back.
pub(crate) fn shadow(claims: &mut Claims) {
    let mut claim = |text: &str, behind: u64| {
        let [first, second] = [0, 1].map(trap::get);
        claims.about(text, first.vector == DEBUG && first.rip == behind, first.rip, behind);
        claims.equal("  and then behind the next one", second.rip, behind + 1);
    };
    let behind = step_in_shadow!(["nop"]);
    claim("with TF the first trap behind MOV SS comes behind the next instruction", behind);
    let behind = step_in_shadow!([".byte 0xF1"]);
    claim("  if that is INT1, too", behind);
    let behind = step_in_shadow!(["cpuid"]);
    claim("  or CPUID", behind);
    let behind = step_in_shadow!(["in al, 0x80"]);
    claim("  or IN", behind);
    let behind = step_in_shadow!(["wbinvd"]);
    claim("  or WBINVD", behind);
}

fn cr4() -> u64 {
    let cr4: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags)) };
    cr4
}

/// What guests may write to CR4.
pub(crate) fn control(claims: &mut Claims) {
    let before = cr4();
    for (bit, text) in CR4_HIDDEN {
        let trap = trial!(["mov cr4, rax"], in("rax") before | 1 << bit);
        claims.about(text, trap.vector == GENERAL_PROTECTION && cr4() == before, trap.vector, cr4());
    }
    let others = before ^ (CR4_TSD | CR4_DE);
    let trap = trial!(["mov cr4, rax"], in("rax") others);
    claims.about("CR4 shows what was written", trap.vector == NOTHING && cr4() == others, trap.vector, cr4());
    let trap = trial!(["mov cr4, rax"], in("rax") before);
    claims.about("  and that again", trap.vector == NOTHING && cr4() == before, trap.vector, cr4());
}
