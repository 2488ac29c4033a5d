//! Every instruction that SVM can intercept or that is privileged, with values that it must not get through with. Those that
//! end a partition are in `shutdowns.rs`, ports and registers have attacks of their own.

use core::arch::asm;
use core::cell::UnsafeCell;

use partita_abi::hypercall::NOP;

use crate::Orders;
use crate::gates::{DB, GP, NMI, NOTHING, UD, attempt};
use crate::tables::{self, CODE_32, KERNEL_CODE, OTHER_TASK, TASK};
use crate::tally::Tally;

const CODE_LEN: usize = 32;
const DATA_WORDS: usize = 512;
/// Long enough for any access of the instructions below.
const FAR_POINTER_WORD: usize = 0;
const RET: u8 = 0xC3;
/// Bits of CR4 but for PAE and those that QEMU's CPU lacks: see `shutdowns.rs`.
const CR4_BITS: [u32; 17] = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 16, 17, 18, 20, 21];
const NOPS: [u8; 8] = [0x90; 8];

#[repr(C, align(4096))]
struct Code(UnsafeCell<[u8; CODE_LEN]>);
#[repr(C, align(4096))]
struct Data(UnsafeCell<[u64; DATA_WORDS]>);

// SAFETY: only vCPU 0 uses it.
unsafe impl Sync for Code {}
// SAFETY: likewise.
unsafe impl Sync for Data {}

static CODE: Code = Code(UnsafeCell::new([RET; CODE_LEN]));
static DATA: Data = Data(UnsafeCell::new([0; DATA_WORDS]));

/// What an instruction is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    /// #UD, counted as refused.
    Hidden,
    /// #GP, counted as refused.
    Refused,
    /// This exception, without the hypervisor.
    Exception(u64),
    /// An exception, whichever the CPU has for it.
    Some,
    /// Nothing.
    Nothing,
    /// What the CPU likes.
    Any,
}
use Gives::{Any, Exception, Hidden, Nothing, Refused, Some as Fault};

/// Bytes of an instruction, with RAX, RCX and RDX.
struct Try(&'static str, &'static [u8], [u64; 3], Gives);

/// In RDX: the address of some data.
const POINTER: u64 = 0xDA7A;
const JUNK: u64 = 0xDEAD_BEEF_F00D_4321;

#[rustfmt::skip]
const TRIES: &[Try] = &[
    Try("VMRUN of 0", &[0x0F, 0x01, 0xD8], [0, 0, 0], Hidden),
    Try("VMRUN of this memory", &[0x0F, 0x01, 0xD8], [0x1000, 0, 0], Hidden),
    Try("VMRUN of foreign memory", &[0x0F, 0x01, 0xD8], [0x4000_0000, 0, 0], Hidden),
    Try("VMLOAD of this memory", &[0x0F, 0x01, 0xDA], [0x1000, 0, 0], Hidden),
    Try("VMLOAD of foreign memory", &[0x0F, 0x01, 0xDA], [0x4000_0000, 0, 0], Hidden),
    Try("VMSAVE to this memory", &[0x0F, 0x01, 0xDB], [0x1000, 0, 0], Hidden),
    Try("VMSAVE to foreign memory", &[0x0F, 0x01, 0xDB], [0x4000_0000, 0, 0], Hidden),
    Try("STGI", &[0x0F, 0x01, 0xDC], [0, 0, 0], Hidden),
    Try("CLGI", &[0x0F, 0x01, 0xDD], [0, 0, 0], Hidden),
    Try("SKINIT", &[0x0F, 0x01, 0xDE], [0, 0, 0], Hidden),
    Try("SKINIT of foreign memory", &[0x0F, 0x01, 0xDE], [0x4000_0000, 0, 0], Hidden),
    Try("INVLPGA of the host's ASID", &[0x0F, 0x01, 0xDF], [0, 0, 0], Hidden),
    Try("INVLPGA of an ASID", &[0x0F, 0x01, 0xDF], [0x10_0000, 2, 0], Hidden),
    Try("INVLPGA of no ASID", &[0x0F, 0x01, 0xDF], [JUNK, JUNK, 0], Hidden),
    Try("MONITOR", &[0x0F, 0x01, 0xC8], [0x1000, 0, 0], Hidden),
    Try("MWAIT", &[0x0F, 0x01, 0xC9], [0, 0, 0], Hidden),
    // #GP for the extension comes before the intercept.
    Try("MWAIT into a deep sleep", &[0x0F, 0x01, 0xC9], [0x60, 0, 0], Hidden),
    Try("MWAIT with extensions", &[0x0F, 0x01, 0xC9], [0, 2, 0], Fault),
    Try("VMMCALL that does nothing", &[0x0F, 0x01, 0xD9], [NOP as u64, 0, 0], Nothing),
    Try("VMCALL", &[0x0F, 0x01, 0xC1], [0, 0, 0], Exception(UD)),
    Try("VMLAUNCH", &[0x0F, 0x01, 0xC2], [0, 0, 0], Exception(UD)),
    Try("VMRESUME", &[0x0F, 0x01, 0xC3], [0, 0, 0], Exception(UD)),
    Try("VMXOFF", &[0x0F, 0x01, 0xC4], [0, 0, 0], Exception(UD)),
    // QEMU takes the next three for CMPXCHG8B.
    Try("VMXON", &[0xF3, 0x0F, 0xC7, 0x32], [0, 0, POINTER], Any),
    Try("VMPTRLD", &[0x0F, 0xC7, 0x32], [0, 0, POINTER], Any),
    Try("VMCLEAR", &[0x66, 0x0F, 0xC7, 0x32], [0, 0, POINTER], Any),
    Try("VMREAD", &[0x0F, 0x78, 0xC0], [0, 0, 0], Exception(UD)),
    Try("VMWRITE", &[0x0F, 0x79, 0xC0], [0, 0, 0], Exception(UD)),
    Try("GETSEC", &[0x0F, 0x37], [0, 0, 0], Exception(UD)),
    Try("RSM", &[0x0F, 0xAA], [0, 0, 0], Exception(UD)),
    Try("RDPMC", &[0x0F, 0x33], [0, 0, 0], Refused),
    Try("RDPMC of no counter", &[0x0F, 0x33], [0, 0xFFFF_FFFF, 0], Refused),
    Try("WBINVD", &[0x0F, 0x09], [0, 0, 0], Nothing),
    Try("INVD", &[0x0F, 0x08], [0, 0, 0], Nothing),
    Try("WBNOINVD", &[0xF3, 0x0F, 0x09], [0, 0, POINTER], Any),
    Try("CPUID with prefixes", &[0x66, 0x66, 0x0F, 0xA2], [0, 0, POINTER], Any),
    Try("RDMSR with prefixes", &[0x2E, 0x48, 0x0F, 0x32], [0, 0x179, POINTER], Any),
    Try("MONITORX", &[0x0F, 0x01, 0xFA], [0x1000, 0, 0], Any),
    Try("MWAITX", &[0x0F, 0x01, 0xFB], [0, 0, 0], Any),
    Try("RDPRU", &[0x0F, 0x01, 0xFD], [0, 0, 0], Any),
    Try("INVLPGB", &[0x0F, 0x01, 0xFE], [0, 0, 0], Any),
    Try("TLBSYNC", &[0x0F, 0x01, 0xFF], [0, 0, 0], Any),
    Try("MCOMMIT", &[0xF3, 0x0F, 0x01, 0xFA], [0, 0, 0], Any),
    Try("PCONFIG", &[0x0F, 0x01, 0xC5], [0, 0, 0], Exception(UD)),
    Try("ENCLS", &[0x0F, 0x01, 0xCF], [0, 0, 0], Exception(UD)),
    Try("RDPKRU without CR4.PKE", &[0x0F, 0x01, 0xEE], [0, 0, 0], Exception(UD)),
    Try("XGETBV of no register", &[0x0F, 0x01, 0xD0], [0, 5, 0], Fault),
    Try("XSETBV of no register", &[0x0F, 0x01, 0xD1], [1, 1, 0], Exception(GP)),
    Try("XSETBV without x87", &[0x0F, 0x01, 0xD1], [0, 0, 0], Exception(GP)),
    Try("XSETBV of AVX without SSE", &[0x0F, 0x01, 0xD1], [5, 0, 0], Exception(GP)),
    Try("XSETBV of reserved bits", &[0x0F, 0x01, 0xD1], [1, 0, 0x8000_0000], Exception(GP)),
    Try("XSETBV of everything", &[0x0F, 0x01, 0xD1], [u64::MAX, 0, u64::MAX], Exception(GP)),
    Try("XSETBV of x87", &[0x0F, 0x01, 0xD1], [1, 0, 0], Nothing),
    Try("INT1", &[0xF1], [0, 0, 0], Exception(DB)),
    Try("INT3", &[0xCC], [0, 0, 0], Exception(3)),
    // #UD in 64-bit mode; QEMU executes it.
    Try("INTO", &[0xCE], [0, 0, 0], Any),
    Try("UD0", &[0x0F, 0xFF, 0xC0], [0, 0, 0], Exception(UD)),
    Try("UD1", &[0x0F, 0xB9, 0xC0], [0, 0, 0], Exception(UD)),
    Try("UD2", &[0x0F, 0x0B], [0, 0, 0], Exception(UD)),
    Try("LOCK without memory", &[0xF0, 0x90], [0, 0, 0], Exception(UD)),
    Try("MOV to CR1", &[0x0F, 0x22, 0xC8], [0, 0, 0], Exception(UD)),
    Try("MOV from CR5", &[0x0F, 0x20, 0xE8], [0, 0, 0], Exception(UD)),
    Try("MOV to CR15", &[0x44, 0x0F, 0x22, 0xF8], [0, 0, 0], Exception(UD)),
    Try("MOV to CR0, upper half", &[0x0F, 0x22, 0xC0], [1 << 40 | 0x8001_0011, 0, 0], Any),
    Try("MOV to DR6, upper half", &[0x0F, 0x23, 0xF0], [u64::MAX, 0, 0], Exception(GP)),
    Try("LMSW", &[0x0F, 0x01, 0xF0], [0x3F, 0, 0], Nothing),
    Try("CLTS", &[0x0F, 0x06], [0, 0, 0], Nothing),
    Try("MOV to CR8, too much", &[0x44, 0x0F, 0x22, 0xC0], [0x10, 0, 0], Any),
    Try("MOV to DR4", &[0x0F, 0x23, 0xE0], [0, 0, 0], Any),
    Try("MOV to DR8", &[0x44, 0x0F, 0x23, 0xC0], [0, 0, 0], Exception(UD)),
    // #GP by the manual; QEMU takes both.
    Try("LTR of nothing", &[0x0F, 0x00, 0xD8], [0, 0, 0], Any),
    Try("LTR of code", &[0x0F, 0x00, 0xD8], [KERNEL_CODE as u64, 0, 0], Exception(GP)),
    Try("LTR of the busy task", &[0x0F, 0x00, 0xD8], [TASK as u64, 0, 0], Exception(GP)),
    Try("LTR past the table", &[0x0F, 0x00, 0xD8], [0xFFF8, 0, 0], Exception(GP)),
    Try("LLDT of code", &[0x0F, 0x00, 0xD0], [KERNEL_CODE as u64, 0, 0], Exception(GP)),
    Try("LLDT past the table", &[0x0F, 0x00, 0xD0], [0xFFF8, 0, 0], Exception(GP)),
    Try("LLDT of nothing", &[0x0F, 0x00, 0xD0], [0, 0, 0], Nothing),
    Try("MOV to SS of code", &[0x8E, 0xD0], [KERNEL_CODE as u64, 0, 0], Exception(GP)),
    Try("MOV to DS past the table", &[0x8E, 0xD8], [0xFFF8, 0, 0], Exception(GP)),
    Try("SYSCALL without EFER.SCE", &[0x0F, 0x05], [0, 0, 0], Exception(UD)),
    Try("SYSRET without EFER.SCE", &[0x48, 0x0F, 0x07], [0, 0, 0], Exception(UD)),
    Try("SYSENTER", &[0x0F, 0x34], [0, 0, 0], Fault),
    Try("SYSEXIT", &[0x0F, 0x35], [0, 0, 0], Fault),
    Try("INVPCID of a bad type", &[0x66, 0x0F, 0x38, 0x82, 0x02], [7, 0, POINTER], Fault),
    Try("LDMXCSR of reserved bits", &[0x0F, 0xAE, 0x12], [0, 0, POINTER], Any),
    Try("XRSTOR of garbage", &[0x0F, 0xAE, 0x2A], [u64::MAX, 0, POINTER], Any),
    Try("FXRSTOR of garbage", &[0x0F, 0xAE, 0x0A], [0, 0, POINTER], Any),
    Try("XRSTORS", &[0x0F, 0xC7, 0x1A], [u64::MAX, 0, POINTER], Any),
    Try("SWAPGS twice", &[0x0F, 0x01, 0xF8, 0x0F, 0x01, 0xF8], [0, 0, 0], Nothing),
    Try("INVLPG", &[0x0F, 0x01, 0x3A], [0, 0, POINTER], Nothing),
    Try("CLAC", &[0x0F, 0x01, 0xCA], [0, 0, 0], Any),
    Try("STI and CLI", &[0xFB, 0xFA], [0, 0, 0], Nothing),
    Try("POPF of everything", &[0x68, 0xD5, 0x4C, 0x3F, 0x00, 0x9D, 0xFA], [0, 0, 0], Any),
    Try("IRET to nowhere", &[0x48, 0xCF], [0, 0, 0], Any),
    Try("far return to nothing", &[0x6A, 0x00, 0x6A, 0x00, 0x48, 0xCB], [0, 0, 0], Exception(GP)),
    Try("far return past the table", &[0x68, 0xF8, 0xFF, 0x00, 0x00, 0x6A, 0x00, 0x48, 0xCB], [0, 0, 0], Exception(GP)),
    Try("PAUSE", &[0xF3, 0x90], [0, 0, 0], Nothing),
    Try("RDTSCP", &[0x0F, 0x01, 0xF9], [0, 0, 0], Any),
    Try("FWAIT", &[0x9B], [0, 0, 0], Any),
];

fn data() -> u64 {
    DATA.0.get() as u64
}

/// Executes bytes, and what follows them is RET.
fn execute(bytes: &[u8], [rax, rcx, rdx]: [u64; 3]) -> u64 {
    let code = CODE.0.get();
    // SAFETY: only this vCPU writes and executes it.
    unsafe {
        *code = [RET; CODE_LEN];
        // Where an instruction ends early, by the prefixes that it was not known with, its rest is harmless.
        for (place, byte) in (*code).iter_mut().zip(bytes.iter().chain(&NOPS)) {
            *place = *byte;
        }
    }
    let rdx = if rdx == POINTER { data() } else { rdx };
    attempt!(["push rbx", "push rbp", "call r13", "pop rbp", "pop rbx"],
        inout("r13") code => _, inout("rax") rax => _, inout("rcx") rcx => _, inout("rdx") rdx => _,
        out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _)
}

/// Puts everything back that an instruction may have changed.
fn restore(cr0: u64, cr4: u64) {
    // SAFETY: what these registers had before; breakpoints off.
    unsafe {
        asm!("mov cr0, {}", "mov cr4, {}", "mov dr7, {}", "mov cr8, {}", "cld",
            in(reg) cr0, in(reg) cr4, in(reg) 0x400u64, in(reg) 0u64, options(nostack));
        asm!("mov ss, {0:e}", "mov ds, {0:e}", "mov es, {0:e}", in(reg) 0x10u32, options(nostack, preserves_flags));
    }
    tables::load(0);
}

fn note(tally: &mut Tally, name: &str, gives: Gives, caught: u64) {
    tally.tries += 1;
    tally.faults += u64::from(caught != NOTHING);
    tally.accesses += u64::from(matches!(gives, Hidden | Refused));
    let is_right = match gives {
        Hidden => caught == UD,
        Refused => caught == GP,
        Exception(vector) => caught == vector,
        Fault => caught != NOTHING,
        Nothing => caught == NOTHING,
        Any => true,
    };
    tally.check(is_right, format_args!("{name}: exception {caught}, it should give {gives:?}"));
}

fn read_cr4() -> u64 {
    let cr4: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags)) };
    cr4
}

/// Far jumps and calls by memory, to task state segments and others: long mode has no task switch.
fn far(tally: &mut Tally, cr0: u64, cr4: u64) {
    let task = 0x1000;
    for (name, descriptor) in [
        ("an available task", tables::task_descriptor(task, 103)),
        ("a busy task", tables::task_descriptor(task, 103) | 2 << 40),
        ("a task that is not present", tables::task_descriptor(task, 103) & !(1 << 47)),
        ("a task that is too short", tables::task_descriptor(task, 10)),
        ("a task gate", (TASK as u64) << 16 | 0x85 << 40),
        ("a 16-bit call gate", 0x84 << 40),
        ("a reserved type", 0x88 << 40),
        ("junk", 0xDEAD_BEEF_F00D_4321),
    ] {
        tables::set_descriptor(0, OTHER_TASK, descriptor);
        for bytes in [&[0x48, 0xFF, 0x2A][..], &[0x48, 0xFF, 0x1A]] {
            // SAFETY: the data are this vCPU's own.
            unsafe {
                let pointer = DATA.0.get().cast::<u64>().add(FAR_POINTER_WORD);
                pointer.write_volatile(0);
                pointer.add(1).write_volatile(OTHER_TASK.into());
            }
            let caught = execute(bytes, [0, 0, POINTER]);
            note(tally, name, Fault, caught);
            restore(cr0, cr4);
        }
    }
}

/// The list, all software interrupts, all groups around VMRUN, every bit of CR4, far jumps.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let cr0 = 0x8001_0011;
    // OSFXSR, OSXMMEXCPT, OSXSAVE.
    let cr4 = read_cr4() | 0b11 << 9 | 1 << 18;
    restore(cr0, cr4);
    // SAFETY: the data are this vCPU's own.
    unsafe { *DATA.0.get() = [JUNK; DATA_WORDS] };
    for _ in 0..orders.steps_or(10) {
        for Try(name, bytes, registers, gives) in TRIES {
            let caught = execute(bytes, *registers);
            note(tally, name, *gives, caught);
            restore(cr0, cr4);
        }
        for vector in (0..=0xFF).filter(|vector| u64::from(*vector) != NMI) {
            let caught = execute_int(vector);
            note(tally, "INT", Exception(vector.into()), caught);
        }
        for bit in CR4_BITS {
            let caught = attempt!(["mov cr4, rax"], in("rax") cr4 ^ 1u64 << bit);
            note(tally, "a bit of CR4", Any, caught);
            restore(cr0, cr4);
        }
        far(tally, cr0, cr4);
        // The general detection of debug registers, which is the guest's own.
        let caught = attempt!(["mov dr7, rax", "mov rax, dr0"], inout("rax") 1u64 << 13 | 0x400 => _);
        note(tally, "general detection", Exception(DB), caught);
        restore(cr0, cr4);
        // A far return to 32-bit code, VMRUN there.
        let code = (CODE.0.get() as u32 + 9).to_le_bytes();
        let bytes = [0x6A, CODE_32 as u8, 0x68, code[0], code[1], code[2], code[3], 0x48, 0xCB, 0x0F, 0x01, 0xD8];
        let caught = execute(&bytes, [0, 0, 0]);
        note(tally, "VMRUN in 32-bit code", Hidden, caught);
        restore(cr0, cr4);
    }
}

fn execute_int(vector: u8) -> u64 {
    let bytes = [0xCD, vector];
    execute(&bytes, [0, 0, 0])
}
