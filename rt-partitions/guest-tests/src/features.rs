//! What CPUID shows is there: every feature with a simple instruction is executed. What the hypervisor hides and intercepts is
//! not there: #UD.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;

use partita_rt::place::uses_vmmcall;
use partita_rt::{Error, Machine};
use partita_x86_bare::{read_msr, write_msr};

use crate::claims::Claims;
use crate::edges;
use crate::peer::Pair;
use crate::tables::{USER_CODE, USER_DATA};
use crate::trap::{self, BREAKPOINT, GENERAL_PROTECTION, INVALID_OPCODE, NOTHING, Trap, trial};
use crate::user;

const TSC_AUX: u32 = 0xC000_0103;
const AUX: u64 = 0x5A5A_1234;
const EFER: u32 = 0xC000_0080;
const EFER_SYSTEM_CALL: u64 = 1;
const STAR: u32 = 0xC000_0081;
const LSTAR: u32 = 0xC000_0082;
const SFMASK: u32 = 0xC000_0084;
const GS_BASE: u32 = 0xC000_0101;
const KERNEL_GS_BASE: u32 = 0xC000_0102;
const SYSENTER_CS: u32 = 0x174;
const CR4_SSE: u64 = 0b11 << 9;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_UMIP: u64 = 1 << 11;
const CR4_TSD: u64 = 1 << 2;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

/// Registers of CPUID.
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// A feature: leaf, register, bit, name, and what its instruction does: the exception, and whether the result is right.
type Feature = (u32, usize, u32, &'static str, fn() -> (Trap, bool));

fn is_shown(leaf: u32, register: usize, bit: u32) -> bool {
    let found = __cpuid_count(leaf, 0);
    let registers = [found.eax, found.ebx, found.ecx, found.edx];
    registers.get(register).is_some_and(|value| value >> bit & 1 == 1)
}

/// Executes instructions on `RAX` (and `RDX`), and compares `RAX`.
macro_rules! gives {
    ($value:expr, $other:expr, $expected:expr, [$($instruction:expr),+ $(,)?]) => {{
        let result: u64;
        let other: u64 = $other;
        let value: u64 = $value;
        let trap = trial!([$($instruction),+], inout("rax") value => result, inout("rdx") other => _,
            out("rcx") _, out("r13") _, out("r14") _);
        let expected: u64 = $expected;
        (trap, result == expected)
    }};
}

/// Executes instructions that have no result, or one that nobody knows.
macro_rules! executes {
    ([$($instruction:expr),+ $(,)?]) => {
        (trial!([$($instruction),+], inout("rax") SCRATCH.0.get() as u64 => _, out("rdx") _,
            out("rcx") _, out("r13") _, out("r14") _), true)
    };
}

/// What instructions may write to.
#[repr(align(64))]
struct Scratch(core::cell::UnsafeCell<[u64; 16]>);

// SAFETY: one CPU at a time uses it, and nobody reads it.
unsafe impl Sync for Scratch {}

static SCRATCH: Scratch = Scratch(core::cell::UnsafeCell::new([0; 16]));

const FEATURES: &[Feature] = &[
    (1, EDX, 4, "TSC: RDTSC", || executes!(["rdtsc"])),
    (1, EDX, 8, "CMPXCHG8B", || {
        gives!(
            5,
            0,
            7,
            ["push 5", "mov r14, rbx", "mov ebx, 7", "xor ecx, ecx", "cmpxchg8b [rsp]", "mov rbx, r14", "pop rax"]
        )
    }),
    (1, EDX, 15, "CMOV", || gives!(1, 9, 9, ["cmp eax, 1", "cmove eax, edx"])),
    (1, EDX, 19, "CLFLUSH", || executes!(["clflush [rax]"])),
    (1, EDX, 23, "MMX", || {
        gives!(3, 4, 7, ["movq mm1, rax", "movq mm2, rdx", "paddq mm1, mm2", "movq rax, mm1", "emms"])
    }),
    (1, EDX, 24, "FXSR", || {
        executes!(["sub rsp, 1024", "mov rdx, rsp", "and rdx, -64", "fxsave [rdx]", "fxrstor [rdx]", "add rsp, 1024"])
    }),
    (1, EDX, 25, "SSE", || {
        gives!(0x4080_0000, 0, 0x4000_0000, ["movd xmm0, eax", "sqrtss xmm0, xmm0", "movd eax, xmm0"])
    }),
    (1, EDX, 26, "SSE2", || {
        gives!(2, 3, 6, ["movq xmm0, rax", "movq xmm1, rdx", "pmuludq xmm0, xmm1", "movq rax, xmm0"])
    }),
    (1, ECX, 0, "SSE3", || gives!(7, 0, 0x7_0000_0007, ["movq xmm0, rax", "movsldup xmm1, xmm0", "movq rax, xmm1"])),
    (1, ECX, 1, "PCLMULQDQ", || {
        gives!(3, 3, 5, ["movq xmm0, rax", "movq xmm1, rdx", "pclmulqdq xmm0, xmm1, 0", "movq rax, xmm0"])
    }),
    (1, ECX, 9, "SSSE3", || gives!(0xFF, 0, 1, ["movq xmm0, rax", "pabsb xmm0, xmm0", "movq rax, xmm0"])),
    (1, ECX, 12, "FMA", || {
        // 2 times 3 and 1, with XCR0 set for it.
        gives!(
            0x4000_0000,
            0x4040_0000,
            0x40E0_0000,
            [
                "mov r14, rax",
                "mov r13, rdx",
                "xor ecx, ecx",
                "xor edx, edx",
                "mov eax, 7",
                "xsetbv",
                "movd xmm0, r14d",
                "movd xmm1, r13d",
                "mov eax, 0x3F800000",
                "movd xmm2, eax",
                "vfmadd213ss xmm0, xmm1, xmm2",
                "movd eax, xmm0",
            ]
        )
    }),
    (1, ECX, 13, "CMPXCHG16B", || {
        executes!([
            "sub rsp, 64",
            "mov rcx, rsp",
            "and rcx, -16",
            "mov r14, rbx",
            "lock cmpxchg16b [rcx]",
            "mov rbx, r14",
            "add rsp, 64"
        ])
    }),
    (1, ECX, 19, "SSE4.1", || gives!(0x1234, 0, 0x1234, ["movq xmm0, rax", "xor eax, eax", "pextrq rax, xmm0, 0"])),
    (1, ECX, 20, "SSE4.2: CRC32", || gives!(0, 0x61, 0x93AD_1061, ["crc32 eax, dl"])),
    (1, ECX, 22, "MOVBE", || gives!(0x1122_3344, 0, 0x4433_2211, ["push rax", "movbe eax, [rsp]", "pop rdx"])),
    (1, ECX, 23, "POPCNT", || gives!(0xFF01, 0, 9, ["popcnt rax, rax"])),
    (1, ECX, 25, "AES", || {
        gives!(
            0,
            0,
            0x6363_6363_6363_6363,
            ["pxor xmm0, xmm0", "pxor xmm1, xmm1", "aesenclast xmm0, xmm1", "movq rax, xmm0"]
        )
    }),
    (1, ECX, 28, "AVX", || {
        gives!(5, 6, 11, ["vmovq xmm0, rax", "vmovq xmm1, rdx", "vpaddq xmm2, xmm0, xmm1", "vmovq rax, xmm2"])
    }),
    (1, ECX, 29, "F16C", || {
        gives!(0x3C00, 0, 0x3F80_0000, ["vmovd xmm0, eax", "vcvtph2ps xmm1, xmm0", "vmovd eax, xmm1"])
    }),
    (1, ECX, 30, "RDRAND", || executes!(["rdrand rax"])),
    (7, EBX, 3, "BMI1", || gives!(0b1100, 0, 0b100, ["blsi rax, rax"])),
    (7, EBX, 5, "AVX2", || {
        gives!(5, 6, 11, ["vmovq xmm0, rax", "vmovq xmm1, rdx", "vpaddq ymm2, ymm0, ymm1", "vmovq rax, xmm2"])
    }),
    (7, EBX, 8, "BMI2", || gives!(0b1010, 0b11, 0b1010, ["pdep rax, rdx, rax"])),
    (7, EBX, 9, "ERMS: REP MOVSB", || {
        gives!(
            1,
            0,
            1,
            [
                "push rsi",
                "push rdi",
                "lea rsi, [rsp]",
                "lea rdi, [rsp]",
                "mov ecx, 8",
                "rep movsb",
                "pop rdi",
                "pop rsi"
            ]
        )
    }),
    (7, EBX, 18, "RDSEED", || executes!(["rdseed rax"])),
    (7, EBX, 19, "ADX", || gives!(1, 2, 3, ["clc", "xor ecx, ecx", "adcx rax, rdx"])),
    (7, EBX, 23, "CLFLUSHOPT", || executes!(["clflushopt [rax]"])),
    (7, EBX, 24, "CLWB", || executes!(["clwb [rax]"])),
    (7, EBX, 29, "SHA", || executes!(["sha1msg1 xmm0, xmm1"])),
    (7, ECX, 8, "GFNI", || executes!(["gf2p8mulb xmm0, xmm1"])),
    (7, ECX, 9, "VAES", || executes!(["vaesenc ymm0, ymm1, ymm2"])),
    (7, ECX, 10, "VPCLMULQDQ", || executes!(["vpclmulqdq ymm0, ymm1, ymm2, 0"])),
    (7, ECX, 22, "RDPID", || gives!(0, 0, AUX, ["rdpid rax"])),
    (7, ECX, 27, "MOVDIRI", || executes!(["movdiri [rax], rdx"])),
    (7, EDX, 14, "SERIALIZE", || executes!(["serialize"])),
    (0x8000_0001, EDX, 27, "RDTSCP", || gives!(0, 0, AUX, ["rdtscp", "mov eax, ecx"])),
    (0x8000_0001, ECX, 0, "LAHF and SAHF", || gives!(0, 0, 0x4600, ["cmp eax, eax", "lahf", "sahf"])),
    (0x8000_0001, ECX, 4, "MOV CR8", || gives!(0, 0, 0, ["mov rax, cr8", "mov cr8, rax"])),
    (0x8000_0001, ECX, 5, "LZCNT", || gives!(1, 0, 63, ["lzcnt rax, rax"])),
    (0x8000_0001, ECX, 6, "SSE4A", || {
        gives!(0xABCD, 0, 0xBC, ["movq xmm0, rax", ".byte 0x66, 0x0F, 0x78, 0xC0, 8, 4", "movq rax, xmm0"])
    }),
    (0x8000_0001, ECX, 8, "PREFETCHW", || executes!(["prefetchw [rax]"])),
    (0x8000_0001, EDX, 30, "3DNow extensions", || executes!([".byte 0x0F, 0x0F, 0xC0, 0xBB", "emms"])),
    (0x8000_0001, EDX, 31, "3DNow", || executes!([".byte 0x0F, 0x0E"])),
    (0x8000_0008, EBX, 0, "CLZERO", || executes!([".byte 0x0F, 0x01, 0xFC"])),
];

/// Instructions that CPUID hides, each by its bit, and what the hypervisor gives for them.
const HIDDEN: &[Feature] = &[
    (1, ECX, 3, "MONITOR", || {
        (trial!([".byte 0x0F, 0x01, 0xC8"], in("rax") 0_u64, in("rcx") 0_u64, in("rdx") 0_u64), true)
    }),
    (1, ECX, 3, "MWAIT", || (trial!([".byte 0x0F, 0x01, 0xC9"], in("rax") 0_u64, in("rcx") 0_u64), true)),
    (1, ECX, 5, "VMXOFF", || (trial!([".byte 0x0F, 0x01, 0xC4"]), true)),
    (1, ECX, 6, "GETSEC", || (trial!(["getsec"], in("rax") 0_u64), true)),
    (0x8000_0001, ECX, 2, "VMRUN", || (trial!([".byte 0x0F, 0x01, 0xD8"], in("rax") 0_u64), true)),
    (0x8000_0001, ECX, 12, "SKINIT", || (trial!([".byte 0x0F, 0x01, 0xDE"], in("rax") 0_u64), true)),
    (0x8000_0001, ECX, 29, "MONITORX", || {
        (trial!([".byte 0x0F, 0x01, 0xFA"], in("rax") 0_u64, in("rcx") 0_u64, in("rdx") 0_u64), true)
    }),
    (0x8000_0001, ECX, 29, "MWAITX", || (trial!([".byte 0x0F, 0x01, 0xFB"], in("rax") 0_u64, in("rcx") 0_u64), true)),
    (0x8000_0008, EBX, 4, "RDPRU", || {
        (trial!([".byte 0x0F, 0x01, 0xFD"], inout("rax") 0_u64 => _, in("rcx") 0_u64, out("rdx") _), true)
    }),
    (0x8000_0008, EBX, 8, "MCOMMIT", || (trial!([".byte 0xF3, 0x0F, 0x01, 0xFA"]), true)),
];

fn set_cr4(bits: u64, on: bool) {
    // SAFETY: bits that only say which instructions there are.
    unsafe {
        asm!("mov {0}, cr4", "or {0}, {1}", "xor {0}, {2}", "mov cr4, {0}", out(reg) _,
            in(reg) bits, in(reg) if on { 0 } else { bits }, options(nostack));
    }
}

fn bits(claims: &mut Claims) {
    // SAFETY: no other code uses it.
    unsafe { write_msr(TSC_AUX, AUX) };
    set_cr4(CR4_SSE, true);
    if is_shown(1, ECX, 26) {
        set_cr4(CR4_OSXSAVE, true);
        // SAFETY: x87, SSE and, where it is shown, AVX; nobody else uses them.
        unsafe { asm!("xsetbv", in("ecx") 0, in("eax") 3 | u32::from(is_shown(1, ECX, 28)) << 2, in("edx") 0) };
    }
    for &(leaf, register, bit, name, execute) in FEATURES {
        if is_shown(leaf, register, bit) {
            let (trap, right) = execute();
            claims.about(name, trap.vector == NOTHING && right, trap.vector, right.into());
        }
    }
    for &(leaf, register, bit, name, execute) in HIDDEN {
        if !is_shown(leaf, register, bit) {
            claims.equal(name, execute().0.vector, INVALID_OPCODE);
        }
    }
}

/// What CR4 switches.
fn switched(claims: &mut Claims) {
    let (own, kernel): (u64, u64);
    if is_shown(7, EBX, 0) {
        set_cr4(CR4_FSGSBASE, false);
        claims.equal(
            "RDFSBASE without CR4.FSGSBASE is #UD",
            trial!(["rdfsbase rax"], out("rax") _).vector,
            INVALID_OPCODE,
        );
        set_cr4(CR4_FSGSBASE, true);
        let read: u64;
        let trap = trial!(["wrfsbase rax", "rdfsbase rdx"], in("rax") 0x1234_5678_9ABC_u64, out("rdx") read);
        claims.about(
            "FSGSBASE writes and reads",
            trap.vector == NOTHING && read == 0x1234_5678_9ABC,
            trap.vector,
            read,
        );
        // SAFETY: every x86-64 CPU has it; nobody uses FS.
        claims.equal("  the MSR is the same", unsafe { read_msr(0xC000_0100) }, read);
        set_cr4(CR4_FSGSBASE, false);
    }
    // SAFETY: SWAPGS twice, and nothing that needs GS in between.
    unsafe {
        let before = read_msr(GS_BASE);
        write_msr(KERNEL_GS_BASE, 0x7777_0000);
        asm!("swapgs", "mov ecx, 0xC0000101", "rdmsr", "shl rdx, 32", "or rax, rdx", "mov r8, rax", "mov ecx, 0xC0000102",
            "rdmsr", "shl rdx, 32", "or rax, rdx", "swapgs", out("rax") kernel, out("r8") own, out("rcx") _, out("rdx") _);
        claims.about("SWAPGS swaps", own == 0x7777_0000 && kernel == before, own, kernel);
        write_msr(KERNEL_GS_BASE, 0);
    }
    if is_shown(7, ECX, 3) {
        set_cr4(CR4_PKE, true);
        claims.holds("CPUID shows CR4.PKE", is_shown(7, ECX, 4));
        let trap = trial!(["wrpkru", "rdpkru"], inout("eax") 4 => _, in("ecx") 0, inout("edx") 0 => _);
        claims.equal("WRPKRU and RDPKRU work", trap.vector, NOTHING);
        set_cr4(CR4_PKE, false);
    }
}

/// Privileges, and the ways into the kernel and out of it.
fn calls(claims: &mut Claims) {
    user::open_page(calls as *const u8 as u64);
    let stack: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    user::open_page(stack);
    // SAFETY: what SYSCALL and SYSRET go by; the tables have user data before user code, as STAR wants them.
    unsafe {
        write_msr(STAR, 0x10 << 48 | 0x08 << 32);
        write_msr(SFMASK, 1 << 10);
        write_msr(EFER, read_msr(EFER) | EFER_SYSTEM_CALL);
    }
    let (returned, flags): (u64, u64);
    // User code calls the kernel, which returns to it: INT3 there ends it.
    let trap = trial!(
        [
            "lea rax, [rip + 5f]", "mov rdx, rax", "shr rdx, 32", "mov ecx, {lstar}", "wrmsr",
            "mov r8, rsp", "push {data}", "push r8", "push 0x402", "push {code}", "lea rax, [rip + 4f]", "push rax", "iretq",
            "4: syscall", "6: int3",
            "5: pushfq", "pop r9", "mov r10, rcx", "lea rax, [rip + 6b]", "sub r10, rax", "sysretq",
        ],
        lstar = const LSTAR, data = const USER_DATA, code = const USER_CODE,
        out("rax") _, out("rcx") _, out("rdx") _, out("r8") _, out("r11") _, out("r9") flags, out("r10") returned,
    );
    claims.about(
        "SYSCALL and SYSRET go there and back",
        trap.vector == BREAKPOINT && trap.cs == USER_CODE,
        trap.vector,
        trap.cs,
    );
    claims.equal("  RCX was the way back", returned, 0);
    claims.equal("  SFMASK has cleared RFLAGS.DF", flags >> 10 & 1, 0);
    claims.equal("  and SYSRET has brought it back", trap.rflags >> 10 & 1, 1);
    // SAFETY: as it was.
    unsafe { write_msr(EFER, read_msr(EFER) & !EFER_SYSTEM_CALL) };
    claims.equal(
        "SYSCALL without EFER.SCE is #UD",
        trial!(["syscall"], out("rcx") _, out("r11") _).vector,
        INVALID_OPCODE,
    );
    // SAFETY: nobody else uses them.
    unsafe {
        write_msr(STAR, 0);
        write_msr(LSTAR, 0);
        write_msr(SFMASK, 0);
        write_msr(SYSENTER_CS, 0);
    }
    let trap = trial!(["sysenter"]);
    // AMD has none in long mode; elsewhere it needs its MSR.
    let is_fault = [INVALID_OPCODE, GENERAL_PROTECTION].contains(&trap.vector);
    claims.about("SYSENTER in long mode, or without its MSR, faults", is_fault, trap.vector, INVALID_OPCODE);

    set_cr4(CR4_TSD, true);
    let trap = trap::user_trial!(["rdtsc"], 2_u64, out("rax") _, out("rdx") _);
    claims.equal("RDTSC of user code with CR4.TSD is #GP", trap.vector, GENERAL_PROTECTION);
    set_cr4(CR4_TSD, false);
    let trap = trap::user_trial!(["rdtsc"], 2_u64, out("rax") _, out("rdx") _);
    claims.equal("  without it is not", trap.vector, INVALID_OPCODE);
    if is_shown(7, ECX, 2) {
        set_cr4(CR4_UMIP, true);
        let trap = trap::user_trial!(["sidt [rsp - 64]"], 2_u64);
        claims.equal("SIDT of user code with CR4.UMIP is #GP", trap.vector, GENERAL_PROTECTION);
        set_cr4(CR4_UMIP, false);
    }
    let trap = trap::user_trial!(["sidt [rsp - 64]"], 2_u64);
    claims.equal("SIDT of user code works otherwise", trap.vector, INVALID_OPCODE);
}

fn all(claims: &mut Claims) {
    trap::begin();
    bits(claims);
    switched(claims);
    calls(claims);
    // AMD's CPUs have no control for it: there these bits are the CPU's to refuse, which QEMU does not.
    if !uses_vmmcall() {
        edges::control(claims);
    }
    trap::end();
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let pair = Pair::start(machine)?;
    all(&mut Claims::from(4000));
    pair.call(|| all(&mut Claims::from(4200)))
}
