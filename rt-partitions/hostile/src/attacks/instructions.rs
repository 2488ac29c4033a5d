//! Every instruction that SVM or VMX can intercept or that is privileged, with values that it must not get through with. Those that
//! end a partition are in `shutdowns.rs`, ports and registers have attacks of their own.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::cell::UnsafeCell;

use partita_x86_bare::rdtsc;

use super::gives::Gives::{Any, Eax, Exception, Fault, Hidden, Nothing};
use super::instruction_rows::{CR0, JUNK, POINTER, TRIES, TSC_AUX, Try};
use crate::Orders;
use crate::cpus::cr4;
use crate::gates::{self, DB, NMI, UD, attempt};
use crate::tables::{self, CODE_32, OTHER_TASK, TASK};
use crate::tally::Tally;
use crate::vendor::here;

const CODE_LEN: usize = 32;
const DATA_WORDS: usize = 512;
/// Long enough for any access of the instructions below.
const FAR_POINTER_WORD: usize = 0;
const RET: u8 = 0xC3;
const TSC_AUX_MSR: u32 = 0xC000_0103;
/// Bits of CR4 but for PAE and those that QEMU's CPU lacks: see `shutdowns.rs`.
const CR4_BITS: [u32; 17] = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 16, 17, 18, 20, 21];
const CR4_FSGSBASE: u64 = 1 << 16;
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

fn data() -> u64 {
    DATA.0.get() as u64
}

/// Executes bytes, and what follows them is RET. Gives the exception, and RAX.
fn execute(bytes: &[u8], [rax, rcx, rdx]: [u64; 3]) -> (u64, u64) {
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
    let after: u64;
    let caught = attempt!(["push rbx", "push rbp", "call r13", "pop rbp", "pop rbx"],
        inout("r13") code => _, inout("rax") rax => after, inout("rcx") rcx => _, inout("rdx") rdx => _,
        out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _);
    (caught, after)
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
            let (caught, rax) = execute(bytes, [0, 0, POINTER]);
            Fault.note(tally, format_args!("{name}"), caught, rax);
            restore(cr0, cr4);
        }
    }
}

/// What CPUID says whether the CPU has it: it does, and else #UD.
fn features(tally: &mut Tally) {
    // Leaf, register and bit; then the instruction.
    type Feature = (&'static str, u32, usize, u32, &'static [u8], [u64; 3]);
    const FEATURES: [Feature; 9] = [
        ("RDRAND", 1, 2, 30, &[0x0F, 0xC7, 0xF0], [0, 0, 0]),
        ("RDSEED", 7, 1, 18, &[0x0F, 0xC7, 0xF8], [0, 0, 0]),
        ("STAC and CLAC", 7, 1, 20, &[0x0F, 0x01, 0xCB, 0x0F, 0x01, 0xCA], [0, 0, 0]),
        ("INVPCID of all", 7, 1, 10, &[0x66, 0x0F, 0x38, 0x82, 0x02], [2, 0, POINTER]),
        ("RDPID", 7, 2, 22, &[0xF3, 0x0F, 0xC7, 0xF8], [0, 0, 0]),
        ("CLZERO", 0x8000_0008, 1, 0, &[0x0F, 0x01, 0xFC], [0x1000, 0, 0]),
        ("RDPRU", 0x8000_0008, 1, 4, &[0x0F, 0x01, 0xFD], [0, 0, 0]),
        ("MCOMMIT", 0x8000_0008, 1, 8, &[0xF3, 0x0F, 0x01, 0xFA], [0, 0, 0]),
        ("INVLPGB", 0x8000_0008, 1, 3, &[0x0F, 0x01, 0xFE], [0, 0, 0]),
    ];
    for (name, leaf, register, bit, bytes, registers) in FEATURES {
        let found = __cpuid(leaf);
        let word = [found.eax, found.ebx, found.ecx, found.edx].get(register).copied().unwrap_or(0);
        let gives = if word >> bit & 1 != 0 { Nothing } else { Exception(UD) };
        let (caught, rax) = execute(bytes, registers);
        gives.note(tally, format_args!("{name}"), caught, rax);
    }
}

/// The time-stamp counter goes on, by each way to read it.
fn counters(tally: &mut Tally) {
    const JOIN: [u8; 7] = [0x48, 0xC1, 0xE2, 0x20, 0x48, 0x09, 0xD0];
    for bytes in [&[0x0F, 0x31][..], &[0x0F, 0x01, 0xF9]] {
        let mut code = [0; 10];
        for (place, byte) in code.iter_mut().zip(bytes.iter().chain(&JOIN).chain(&NOPS)) {
            *place = *byte;
        }
        let before = rdtsc();
        let (caught, found) = execute(&code, [0, 0, 0]);
        Nothing.note(tally, format_args!("the counter"), caught, found);
        let is_between = (before..=rdtsc()).contains(&found);
        tally.check(is_between, format_args!("the counter was {before}, then {found}"));
    }
}

/// The list, all software interrupts, all groups around VMRUN, every bit of CR4, far jumps.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let cr0 = CR0;
    // OSFXSR, OSXMMEXCPT, OSXSAVE.
    let cr4 = cr4() | 0b11 << 9 | 1 << 18;
    restore(cr0, cr4);
    // SAFETY: the data are this vCPU's own.
    unsafe { *DATA.0.get() = [JUNK; DATA_WORDS] };
    gates::write_msr(TSC_AUX_MSR, TSC_AUX);
    for _ in 0..orders.steps_or(10) {
        for Try(name, bytes, registers, gives) in TRIES {
            let (caught, rax) = execute(bytes, *registers);
            here(*gives).note(tally, format_args!("{name}"), caught, rax);
            restore(cr0, cr4);
        }
        for vector in (0..=0xFF).filter(|vector| u64::from(*vector) != NMI) {
            let (caught, rax) = execute(&[0xCD, vector], [0, 0, 0]);
            Exception(vector.into()).note(tally, format_args!("INT {vector}"), caught, rax);
        }
        for bit in CR4_BITS {
            let caught = attempt!(["mov cr4, rax"], in("rax") cr4 ^ 1u64 << bit);
            Any.note(tally, format_args!("bit {bit} of CR4"), caught, 0);
            restore(cr0, cr4);
        }
        far(tally, cr0, cr4);
        features(tally);
        counters(tally);
        // MOV to CR4 from RCX, WRFSBASE and RDFSBASE.
        let bytes = [0x0F, 0x22, 0xE1, 0xF3, 0x0F, 0xAE, 0xD0, 0xF3, 0x0F, 0xAE, 0xC0];
        let (caught, rax) = execute(&bytes, [0x1234, cr4 | CR4_FSGSBASE, 0]);
        Eax(0x1234).note(tally, format_args!("WRFSBASE, RDFSBASE"), caught, rax);
        restore(cr0, cr4);
        // The general detection of debug registers, which is the guest's own.
        let caught = attempt!(["mov dr7, rax", "mov rax, dr0"], inout("rax") 1u64 << 13 | 0x400 => _);
        Exception(DB).note(tally, format_args!("general detection"), caught, 0);
        restore(cr0, cr4);
        // A far return to 32-bit code, VMRUN there.
        let code = (CODE.0.get() as u32 + 9).to_le_bytes();
        let bytes = [0x6A, CODE_32 as u8, 0x68, code[0], code[1], code[2], code[3], 0x48, 0xCB, 0x0F, 0x01, 0xD8];
        let (caught, rax) = execute(&bytes, [0, 0, 0]);
        here([Hidden, Exception(UD)]).note(tally, format_args!("VMRUN in 32-bit code"), caught, rax);
        restore(cr0, cr4);
    }
}
