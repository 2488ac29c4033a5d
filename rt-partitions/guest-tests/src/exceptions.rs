//! Exceptions of all kinds, which the guest's own table delivers: but for #AC and #DB none leaves the guest.

use core::arch::asm;

use partita_rt::{Error, Machine};

use crate::claims::Claims;
use crate::edges;
use crate::peer::Pair;
use crate::tables;
use crate::trap::{
    self, ALIGNMENT, BOUND, BREAKPOINT, DEVICE_NOT_AVAILABLE, DIVIDE, DOUBLE_FAULT, GENERAL_PROTECTION, INVALID_OPCODE,
    INVALID_TSS, NOT_PRESENT, NOTHING, OVERFLOW, PAGE, SIMD, STACK, Trap, X87, trial, user_trial,
};
use crate::user;

const CODE_32: u16 = 0x18;
const ABSENT: u16 = 0x20;
const SMALL_TASK: u16 = 0x28;
/// The boot page tables map nothing there.
const UNMAPPED: u64 = 0x80_1234_5678;
const NOT_CANONICAL: u64 = 1 << 63;
const CR0_NUMERIC_ERROR: u64 = 1 << 5;
const CR0_ALIGNMENT_MASK: u64 = 1 << 18;
const CR0_TASK_SWITCHED: u64 = 1 << 3;
/// CR4.OSFXSR and CR4.OSXMMEXCPT.
const CR4_SSE: u64 = 0b11 << 9;
/// MXCSR after a reset; it masks all exceptions.
static MXCSR_RESET: u32 = 0x1F80;
/// All masked but the division by 0.
const MXCSR_UNMASKED: u32 = 0x1D80;
/// A division by 0 has happened.
const MXCSR_ZERO_DIVIDE: u32 = 1 << 2;
/// RFLAGS.AC.
const USER_RFLAGS_ALIGNMENT: u64 = 1 << 18 | 2;
const RFLAGS_CLEAR: u64 = 2;
/// Of an exception amid another one, Intel says that it came from outside of the program (SDM vol. 3 section 6.13), AMD not.
const ERROR_EXTERNAL: u64 = 1;
/// A gate's present bit, and its first interrupt stack.
const GATE_PRESENT: u64 = 1 << 47;
const GATE_STACK_1: u64 = 1 << 32;

/// A descriptor table with what the tests need besides kernel code and data.
#[repr(C, align(16))]
struct Descriptors([u64; 7]);

static DESCRIPTORS: Descriptors = Descriptors([
    0,
    0x00AF_9B00_0000_FFFF,
    0x00CF_9300_0000_FFFF,
    0x00CF_9B00_0000_FFFF,
    0x00CF_1300_0000_FFFF,
    // A task state segment that ends before its interrupt stacks, at address 0, which nobody reads.
    0x0000_8B00_0000_001F,
    0,
]);

fn load_descriptors() {
    let pointer = [(size_of::<Descriptors>() as u64 - 1) << 48, (&raw const DESCRIPTORS) as u64];
    // SAFETY: the kernel's selectors mean what they meant before; `tables::load` undoes it.
    unsafe { asm!("lgdt [{}]", in(reg) (&raw const pointer).cast::<u8>().add(6), options(nostack)) };
}

fn set_cr0(bits: u64, on: bool) {
    // SAFETY: bits that only say what faults.
    unsafe {
        asm!("mov {0}, cr0", "or {0}, {1}", "xor {0}, {2}", "mov cr0, {0}", out(reg) _,
            in(reg) bits, in(reg) if on { 0 } else { bits }, options(nostack));
    }
}

fn set_cr4(bits: u64, on: bool) {
    // SAFETY: bits that only say what faults.
    unsafe {
        asm!("mov {0}, cr4", "or {0}, {1}", "xor {0}, {2}", "mov cr4, {0}", out(reg) _,
            in(reg) bits, in(reg) if on { 0 } else { bits }, options(nostack));
    }
}

fn claim(claims: &mut Claims, text: &str, trap: Trap, vector: u64, error: u64) {
    claims.equal(text, trap.vector, vector);
    claims.equal("  with its error code", trap.error, error);
}

fn faults(claims: &mut Claims) {
    let zero = trial!(["div ecx"], inout("eax") 1 => _, inout("edx") 0 => _, in("ecx") 0);
    claim(claims, "#DE by a division by 0", zero, DIVIDE, 0);
    claim(claims, "#UD by UD2", trial!(["ud2"]), INVALID_OPCODE, 0);
    let behind: u64;
    trap::go_on_after(BREAKPOINT);
    // SAFETY: the trap goes on.
    unsafe { asm!("lea {}, [rip + 2f]", "int3", "2:", out(reg) behind) };
    claims.equal("#BP by INT3", trap::get(0).vector, BREAKPOINT);
    claims.equal("  comes behind it", trap::get(0).rip, behind);
    trap::forget();

    let high = trial!(["mov rax, [rax]"], inout("rax") NOT_CANONICAL => _);
    claim(claims, "#GP by an address that is not canonical", high, GENERAL_PROTECTION, 0);
    claim(
        claims,
        "#GP by a selector past the table",
        trial!(["mov ds, ax"], in("ax") 0x100),
        GENERAL_PROTECTION,
        0x100,
    );
    let absent = trial!(["mov ds, ax"], in("ax") ABSENT);
    claim(claims, "#NP by a segment that is not present", absent, NOT_PRESENT, ABSENT.into());
    let absent = trial!(["mov ss, ax"], in("ax") ABSENT);
    claim(claims, "#SS by a stack segment that is not present", absent, STACK, ABSENT.into());

    for (text, trap, error) in [
        ("#PF by a read", trial!(["mov rax, [rax]"], inout("rax") UNMAPPED => _), 0),
        ("#PF by a write", trial!(["mov [rax], rax"], in("rax") UNMAPPED), 2),
        ("#PF by a fetch", trial!(["jmp rax"], in("rax") UNMAPPED), 0x10),
    ] {
        claim(claims, text, trap, PAGE, error);
        claims.equal("  CR2 has the address", trap.cr2, UNMAPPED);
    }
}

fn floating(claims: &mut Claims) {
    set_cr0(CR0_NUMERIC_ERROR, true);
    let x87 = trial!(["fninit", "push 0x37B", "fldcw [rsp]", "fld1", "fldz", "fdivp", "fwait"]);
    claim(claims, "#MF by an x87 division by 0", x87, X87, 0);
    // SAFETY: switches the x87 exceptions off again.
    unsafe { asm!("fninit") };
    set_cr0(CR0_TASK_SWITCHED, true);
    claim(claims, "#NM by FLD1 with CR0.TS", trial!(["fld1"]), DEVICE_NOT_AVAILABLE, 0);
    claim(claims, "none after CLTS", trial!(["clts", "fninit"]), NOTHING, 0);
    set_cr4(CR4_SSE, true);
    let (sse, noted) = divide();
    // TCG notes SSE's exceptions in MXCSR, but raises none, on the bare machine either.
    let expected = if sse.vector == NOTHING { NOTHING } else { SIMD };
    claim(claims, "#XM by an SSE division by 0, if the CPU has it", sse, expected, 0);
    claims.equal("  MXCSR has it", u64::from(noted & MXCSR_ZERO_DIVIDE), MXCSR_ZERO_DIVIDE.into());
    set_cr4(CR4_SSE, false);
    claim(claims, "#UD by SSE without CR4.OSFXSR", trial!(["xorps xmm0, xmm0"]), INVALID_OPCODE, 0);
}

/// Divides by 0 with that exception unmasked, and gives MXCSR behind it.
fn divide() -> (Trap, u32) {
    let mut mxcsr = MXCSR_UNMASKED;
    let one = 1_f32.to_bits();
    let trap = trial!(
        ["ldmxcsr [rax]", "xorps xmm0, xmm0", "movss xmm1, [rdx]", "divss xmm1, xmm0"],
        in("rax") &raw const mxcsr, in("rdx") &raw const one,
    );
    // SAFETY: stores the register, and masks its exceptions again.
    unsafe { asm!("stmxcsr [{0}]", "ldmxcsr [{1}]", in(reg) &raw mut mxcsr, in(reg) &raw const MXCSR_RESET) };
    (trap, mxcsr)
}

/// In compatibility mode, as 64-bit mode has neither INTO nor BOUND.
fn compatible(claims: &mut Claims) {
    let overflow = trial!(
        ["push rdx", "lea rax, [rip + 2f]", "push rax", "retfq", ".code32", "2:", "mov eax, 0x7FFFFFFF", "inc eax",
         ".byte 0xCE", "ud2", ".code64"],
        out("rax") _, in("rdx") u64::from(CODE_32),
    );
    claim(claims, "#OF by INTO", overflow, OVERFLOW, 0);
    let limits: [i32; 2] = [1, 5];
    let bound = trial!(
        ["push rdx", "lea rax, [rip + 2f]", "push rax", "retfq", ".code32", "2:", "mov eax, 6",
         ".byte 0x62, 0x01", "ud2", ".code64"],
        out("rax") _, in("rdx") u64::from(CODE_32), in("rcx") limits.as_ptr(),
    );
    claim(claims, "#BR by BOUND", bound, BOUND, 0);
}

/// What goes by an interrupt stack.
fn nested(claims: &mut Claims, index: usize) {
    trap::change_gate(PAGE, |gate| gate & !GATE_PRESENT);
    trap::change_gate(DOUBLE_FAULT, |gate| gate | GATE_STACK_1);
    let double = trial!(["mov rax, [rax]"], inout("rax") UNMAPPED => _);
    claim(claims, "#DF by a #PF whose gate is not present", double, DOUBLE_FAULT, 0);
    claims.holds("  on its own stack", tables::in_nmi_stack(index, double.stack));
    trap::change_gate(PAGE, |gate| gate | GATE_PRESENT);
    let absent = {
        trap::change_gate(BREAKPOINT, |gate| gate & !GATE_PRESENT);
        let trap = trial!(["int3"]);
        trap::change_gate(BREAKPOINT, |gate| gate | GATE_PRESENT);
        trap
    };
    claim(claims, "#NP by INT3 whose gate is not present", absent, NOT_PRESENT, BREAKPOINT * 8 + 2);
    trap::change_gate(INVALID_OPCODE, |gate| gate | GATE_STACK_1);
    load_descriptors();
    let mut descriptors = DESCRIPTORS.0;
    descriptors[usize::from(SMALL_TASK) / 8] = 0x0000_8900_0000_001F;
    let pointer = [(size_of_val(&descriptors) as u64 - 1) << 48, descriptors.as_ptr() as u64];
    // SAFETY: the kernel's selectors mean what they meant before; no exception on an interrupt stack is expected before
    // `tables::load` undoes it.
    unsafe {
        asm!("lgdt [{}]", "ltr {:x}", in(reg) (&raw const pointer).cast::<u8>().add(6), in(reg) SMALL_TASK,
            options(nostack));
    }
    let task = trial!(["ud2"]);
    claims.equal("#TS by a task state that ends before the stack", task.vector, INVALID_TSS);
    claims.equal("  with its error code", task.error & !ERROR_EXTERNAL, SMALL_TASK.into());
    tables::load(index);
    trap::change_gate(INVALID_OPCODE, |gate| gate & !GATE_STACK_1);
}

fn of_user_code(claims: &mut Claims) {
    user::open_page(of_user_code as *const u8 as u64);
    let stack: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    user::open_page(stack);
    set_cr0(CR0_ALIGNMENT_MASK, true);
    let alignment = user_trial!(["mov eax, [rsp - 63]"], USER_RFLAGS_ALIGNMENT, out("rax") _);
    // TCG checks no alignment, on the bare machine either.
    let expected = if alignment.vector == INVALID_OPCODE { INVALID_OPCODE } else { ALIGNMENT };
    claim(claims, "#AC by user code, if the CPU has it", alignment, expected, 0);
    claims.equal("  at privilege level 3", alignment.cs & 3, 3);
    let aligned = user_trial!(["mov eax, [rsp - 64]"], USER_RFLAGS_ALIGNMENT, out("rax") _);
    claim(claims, "  not by what is aligned", aligned, INVALID_OPCODE, 0);
    set_cr0(CR0_ALIGNMENT_MASK, false);
    let alignment = user_trial!(["mov eax, [rsp - 63]"], USER_RFLAGS_ALIGNMENT, out("rax") _);
    claim(claims, "  not without CR0.AM", alignment, INVALID_OPCODE, 0);
    let gate = user_trial!(["int 14"], RFLAGS_CLEAR);
    claim(claims, "#GP by INT of a gate that is the kernel's", gate, GENERAL_PROTECTION, PAGE * 8 + 2);
    claim(claims, "#GP by CLI of user code", user_trial!(["cli"], RFLAGS_CLEAR), GENERAL_PROTECTION, 0);
    let out = user_trial!(["out 0x80, al"], RFLAGS_CLEAR);
    claim(claims, "#GP by OUT of user code, with no exit", out, GENERAL_PROTECTION, 0);
    let msr = user_trial!(["rdmsr"], RFLAGS_CLEAR, in("ecx") 0x1B, out("eax") _, out("edx") _);
    claim(claims, "#GP by RDMSR of user code, with no exit", msr, GENERAL_PROTECTION, 0);
    let kernel = user_trial!(["mov rax, [rax]"], RFLAGS_CLEAR, inout("rax") 0x1000_0000_u64 => _);
    claim(claims, "#PF by user code at the kernel's page", kernel, PAGE, 5);
    let cpuid = user_trial!(["mov r13, rbx", "cpuid", "mov rbx, r13"], RFLAGS_CLEAR,
        inout("eax") 0 => _, inout("ecx") 0 => _, out("edx") _, out("r13") _);
    claim(claims, "CPUID of user code goes on behind it", cpuid, INVALID_OPCODE, 0);
}

fn all(claims: &mut Claims, index: usize) {
    trap::begin();
    load_descriptors();
    faults(claims);
    floating(claims);
    compatible(claims);
    edges::wrap(claims, CODE_32);
    tables::load(index);
    nested(claims, index);
    of_user_code(claims);
    trap::end();
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let pair = Pair::start(machine)?;
    all(&mut Claims::from(2400), 0);
    pair.call(|| all(&mut Claims::from(2600), 1))
}
