//! Instructions with what they give in each mode but 64-bit code of privilege level 0.

use partita_abi::cpuid::LEAF_LIFE;
use partita_abi::hypercall::{FINISH, NOP};
use partita_x86_policy::icr::ICR_MSR;
use partita_x86_policy::msr::{APIC_BASE_MSR, EFER_MSR};

use super::gives::Gives::{self, Any, Eax, Exception, Fault, Hidden, Ignored, LeftOut, NoIpi, Nothing, Refused};
use crate::excursion::Mode;
use crate::gates::{DB, GP as GP_VECTOR, UD as UD_VECTOR};

/// Bytes of an instruction, with RAX, RCX and RDX, and what it gives: at privilege level 3, in virtual-8086 mode, at
/// privilege level 0 in 32-bit code, in real mode. IOPL is 0.
pub(super) struct Row(pub(super) &'static str, pub(super) &'static [u8], pub(super) [u64; 3], [Gives; 4]);

impl Row {
    /// What it gives in a mode.
    pub(super) const fn gives(&self, mode: Mode) -> Gives {
        let [user, virtual_8086, kernel, real] = self.3;
        match mode {
            Mode::User32 | Mode::User64 => user,
            Mode::Virtual8086 => virtual_8086,
            Mode::Kernel32 | Mode::Protected => kernel,
            Mode::Real => real,
        }
    }
}

/// In RDX: the address of some data.
pub(super) const POINTER: u64 = crate::excursion::DATA_AT;
const GP: Gives = Exception(GP_VECTOR);
const UD: Gives = Exception(UD_VECTOR);
const MINE: u64 = 0x1000;
const FOREIGN: u64 = 0x4000_0000;
const MCG_STATUS: u64 = 0x17A;
/// A register that no CPU has, in the permission map, and one out of it.
const ABSENT: u64 = 0xC001_0114;
const OUTSIDE: u64 = 0x0123_4567;
const ICR: u64 = ICR_MSR as u64;
const EFER: u64 = EFER_MSR as u64;
const APIC_BASE: u64 = APIC_BASE_MSR as u64;
/// This vCPU's APIC_BASE, and with a reserved bit.
const BASE: u64 = 0xFEE0_0D00;
const SMI: u64 = 1 << 14 | 2 << 8;
/// To the real-time guest's first pCPU: a vector of which it counts each interrupt, and an NMI.
const FIXED: u64 = 1 << 14 | 0x51;
const NMI: u64 = 1 << 14 | 4 << 8;
const INIT: u64 = 1 << 14 | 5 << 8;
const NEIGHBOUR: u64 = 2;
const SVME: u64 = 1 << 12;
const LIFE: u64 = LEAF_LIFE as u64;
const NO_MORE: u64 = 0xDEAD_BEEF;

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // SVM's own; real mode has none of them.
    Row("VMRUN of this memory", &[0x0F, 0x01, 0xD8], [MINE, 0, 0], [GP, Fault, Hidden, UD]),
    Row("VMRUN of foreign memory", &[0x0F, 0x01, 0xD8], [FOREIGN, 0, 0], [GP, Fault, Hidden, UD]),
    Row("VMLOAD", &[0x0F, 0x01, 0xDA], [MINE, 0, 0], [GP, Fault, Hidden, UD]),
    Row("VMSAVE to foreign memory", &[0x0F, 0x01, 0xDB], [FOREIGN, 0, 0], [GP, Fault, Hidden, UD]),
    Row("STGI", &[0x0F, 0x01, 0xDC], [0, 0, 0], [GP, Fault, Hidden, UD]),
    Row("CLGI", &[0x0F, 0x01, 0xDD], [0, 0, 0], [GP, Fault, Hidden, UD]),
    // QEMU looks at the intercept before the privilege level.
    Row("SKINIT", &[0x0F, 0x01, 0xDE], [0, 0, 0], [Hidden, Hidden, Hidden, UD]),
    Row("INVLPGA of the host's ASID", &[0x0F, 0x01, 0xDF], [0, 0, 0], [GP, Fault, Hidden, UD]),
    Row("VMMCALL that does nothing", &[0x0F, 0x01, 0xD9], [NOP as u64, 0, 0], [Hidden, Hidden, Eax(0), Eax(0)]),
    Row("VMMCALL that finishes", &[0x0F, 0x01, 0xD9], [FINISH as u64, 0, 0], [Hidden, Hidden, LeftOut, LeftOut]),
    Row("VMMCALL of junk", &[0x0F, 0x01, 0xD9], [NO_MORE, 0, 0], [Hidden, Hidden, LeftOut, LeftOut]),
    // VMX's and SMX's.
    Row("VMCALL", &[0x0F, 0x01, 0xC1], [NOP as u64, 0, 0], [UD, UD, UD, UD]),
    Row("VMLAUNCH", &[0x0F, 0x01, 0xC2], [0, 0, 0], [UD, UD, UD, UD]),
    Row("VMRESUME", &[0x0F, 0x01, 0xC3], [0, 0, 0], [UD, UD, UD, UD]),
    Row("VMXOFF", &[0x0F, 0x01, 0xC4], [0, 0, 0], [UD, UD, UD, UD]),
    Row("VMREAD", &[0x0F, 0x78, 0xC0], [0, 0, 0], [UD, UD, UD, UD]),
    Row("VMWRITE", &[0x0F, 0x79, 0xC0], [0, 0, 0], [UD, UD, UD, UD]),
    Row("GETSEC", &[0x0F, 0x37], [0, 0, 0], [UD, UD, UD, UD]),
    Row("RSM", &[0x0F, 0xAA], [0, 0, 0], [UD, UD, UD, UD]),
    Row("ENCLU", &[0x0F, 0x01, 0xD7], [0, 0, 0], [UD, UD, UD, UD]),
    Row("ENCLS", &[0x0F, 0x01, 0xCF], [0, 0, 0], [UD, UD, UD, UD]),
    // Intercepted, or the CPU's own refusal first; QEMU has it last for WBINVD and INVD.
    Row("MONITOR", &[0x0F, 0x01, 0xC8], [MINE, 0, 0], [UD, UD, Hidden, Hidden]),
    Row("MWAIT", &[0x0F, 0x01, 0xC9], [0, 0, 0], [UD, UD, Hidden, Hidden]),
    Row("RDPMC", &[0x0F, 0x33], [0, 0, 0], [GP, GP, Refused, Refused]),
    Row("CPUID", &[0x0F, 0xA2], [LIFE, 0, 0], [Eax(1), Eax(1), Eax(1), Eax(1)]),
    Row("XGETBV", &[0x0F, 0x01, 0xD0], [0, 0, 0], [Eax(1), Eax(1), Eax(1), Eax(1)]),
    Row("XSETBV of no register", &[0x0F, 0x01, 0xD1], [1, 5, 0], [GP, GP, GP, GP]),
    Row("XSETBV of x87", &[0x0F, 0x01, 0xD1], [1, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("WBINVD", &[0x0F, 0x09], [0, 0, 0], [Refused, Refused, Nothing, Nothing]),
    Row("INVD", &[0x0F, 0x08], [0, 0, 0], [Refused, Refused, Nothing, Nothing]),
    Row("INT1", &[0xF1], [0, 0, 0], [Exception(DB), Exception(DB), Exception(DB), Exception(DB)]),
    // Registers.
    Row("RDMSR of what is 0", &[0x0F, 0x32], [NO_MORE, MCG_STATUS, NO_MORE], [GP, GP, Eax(0), Eax(0)]),
    Row("RDMSR of none", &[0x0F, 0x32], [0, ABSENT, 0], [GP, GP, Refused, Refused]),
    Row("RDMSR outside of the map", &[0x0F, 0x32], [0, OUTSIDE, 0], [GP, GP, Refused, Refused]),
    Row("RDMSR of APIC_BASE", &[0x0F, 0x32], [0, APIC_BASE, 0], [GP, GP, Eax(BASE as u32), Eax(BASE as u32)]),
    Row("RDMSR of EFER", &[0x0F, 0x32], [0, EFER, 0], [GP, GP, Nothing, Nothing]),
    Row("RDMSR of the ICR", &[0x0F, 0x32], [0, ICR, 0], [GP, GP, Nothing, Nothing]),
    Row("WRMSR of what is 0", &[0x0F, 0x30], [1, MCG_STATUS, 0], [GP, GP, Ignored, Ignored]),
    Row("WRMSR of none", &[0x0F, 0x30], [1, ABSENT, 0], [GP, GP, Refused, Refused]),
    Row("WRMSR outside of the map", &[0x0F, 0x30], [1, OUTSIDE, 0], [GP, GP, Refused, Refused]),
    Row("WRMSR of APIC_BASE as it is", &[0x0F, 0x30], [BASE, APIC_BASE, 0], [GP, GP, Nothing, Nothing]),
    Row("WRMSR of APIC_BASE, reserved", &[0x0F, 0x30], [BASE | 1, APIC_BASE, 0], [GP, GP, Refused, Refused]),
    Row("WRMSR of EFER.SVME", &[0x0F, 0x30], [0x900 | SVME, EFER, 0], [GP, GP, Refused, Refused]),
    Row("WRMSR of all of EFER", &[0x0F, 0x30], [u64::MAX, EFER, u64::MAX], [GP, GP, Refused, Refused]),
    Row("WRMSR of the ICR, SMI", &[0x0F, 0x30], [SMI, ICR, 0], [GP, GP, NoIpi, NoIpi]),
    Row("WRMSR of the ICR, a neighbour", &[0x0F, 0x30], [FIXED, ICR, NEIGHBOUR], [GP, GP, NoIpi, NoIpi]),
    Row("WRMSR of the ICR, NMI to it", &[0x0F, 0x30], [NMI, ICR, NEIGHBOUR], [GP, GP, NoIpi, NoIpi]),
    Row("WRMSR of the ICR, INIT to it", &[0x0F, 0x30], [INIT, ICR, NEIGHBOUR], [GP, GP, NoIpi, NoIpi]),
    Row("CLTS", &[0x0F, 0x06], [0, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("LMSW", &[0x0F, 0x01, 0xF0], [0x10, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("SMSW", &[0x0F, 0x01, 0xE0], [0, 0, 0], [Nothing, Nothing, Nothing, Nothing]),
    Row("MOV from CR0", &[0x0F, 0x20, 0xC0], [0, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("MOV from CR2", &[0x0F, 0x20, 0xD0], [0, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("MOV from CR3", &[0x0F, 0x20, 0xD8], [0, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("MOV from CR4", &[0x0F, 0x20, 0xE0], [0, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("MOV to CR0", &[0x0F, 0x22, 0xC0], [0, 0, 0], [GP, GP, LeftOut, LeftOut]),
    Row("MOV to CR2", &[0x0F, 0x22, 0xD0], [NO_MORE, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("MOV to CR3", &[0x0F, 0x22, 0xD8], [0, 0, 0], [GP, GP, LeftOut, LeftOut]),
    Row("MOV to CR4", &[0x0F, 0x22, 0xE0], [0, 0, 0], [GP, GP, LeftOut, LeftOut]),
    Row("MOV to CR1", &[0x0F, 0x22, 0xC8], [0, 0, 0], [Fault, Fault, UD, UD]),
    Row("MOV from DR0", &[0x0F, 0x21, 0xC0], [0, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("MOV to DR3", &[0x0F, 0x23, 0xD8], [0, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("MOV to DR7", &[0x0F, 0x23, 0xF8], [0x400, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("LGDT", &[0x0F, 0x01, 0x12], [0, 0, POINTER], [GP, GP, LeftOut, LeftOut]),
    Row("LIDT", &[0x0F, 0x01, 0x1A], [0, 0, POINTER], [GP, GP, LeftOut, LeftOut]),
    Row("SGDT", &[0x0F, 0x01, 0x02], [0, 0, POINTER], [Nothing, Nothing, Nothing, Nothing]),
    Row("SIDT", &[0x0F, 0x01, 0x0A], [0, 0, POINTER], [Nothing, Nothing, Nothing, Nothing]),
    Row("INVLPG", &[0x0F, 0x01, 0x3A], [0, 0, POINTER], [GP, GP, Nothing, Nothing]),
    Row("LLDT of nothing", &[0x0F, 0x00, 0xD0], [0, 0, 0], [GP, UD, Nothing, UD]),
    Row("LTR of nothing", &[0x0F, 0x00, 0xD8], [0, 0, 0], [GP, UD, LeftOut, UD]),
    Row("SLDT", &[0x0F, 0x00, 0xC0], [0, 0, 0], [Nothing, UD, Nothing, UD]),
    Row("STR", &[0x0F, 0x00, 0xC8], [0, 0, 0], [Nothing, UD, Nothing, UD]),
    Row("LAR", &[0x0F, 0x02, 0xC1], [0, 8, 0], [Nothing, UD, Nothing, UD]),
    Row("LSL", &[0x0F, 0x03, 0xC1], [0, 8, 0], [Nothing, UD, Nothing, UD]),
    Row("VERR", &[0x0F, 0x00, 0xE1], [0, 8, 0], [Nothing, UD, Nothing, UD]),
    Row("VERW", &[0x0F, 0x00, 0xE9], [0, 8, 0], [Nothing, UD, Nothing, UD]),
    // Ways in and out.
    Row("HLT", &[0xF4], [0, 0, 0], [GP, GP, LeftOut, LeftOut]),
    Row("CLI", &[0xFA], [0, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("STI", &[0xFB, 0xFA], [0, 0, 0], [GP, GP, Nothing, Nothing]),
    Row("PUSHF and POPF", &[0x9C, 0x9D], [0, 0, 0], [Nothing, GP, Nothing, Nothing]),
    Row("IRET", &[0xCF], [0, 0, 0], [LeftOut, GP, LeftOut, LeftOut]),
    Row("INT 0x80", &[0xCD, 0x80], [0, 0, 0], [GP, GP, Exception(0x80), Exception(0x80)]),
    Row("INT 2", &[0xCD, 2], [0, 0, 0], [GP, GP, LeftOut, Exception(2)]),
    Row("INT 13", &[0xCD, 13], [0, 0, 0], [GP, GP, LeftOut, GP]),
    Row("UD2", &[0x0F, 0x0B], [0, 0, 0], [UD, UD, UD, UD]),
    Row("SYSCALL without EFER.SCE", &[0x0F, 0x05], [0, 0, 0], [UD, UD, UD, UD]),
    Row("SYSRET without EFER.SCE", &[0x0F, 0x07], [0, 0, 0], [Fault, Fault, Fault, Fault]),
    Row("SYSENTER", &[0x0F, 0x34], [0, 0, 0], [Fault, Fault, Fault, Fault]),
    Row("SYSEXIT", &[0x0F, 0x35], [0, 0, 0], [Fault, Fault, Fault, Fault]),
    Row("RDTSC", &[0x0F, 0x31], [0, 0, 0], [Nothing, Nothing, Nothing, Nothing]),
    Row("RDTSCP", &[0x0F, 0x01, 0xF9], [0, 0, 0], [Nothing, Nothing, Nothing, Nothing]),
    Row("PAUSE", &[0xF3, 0x90], [0, 0, 0], [Nothing, Nothing, Nothing, Nothing]),
    // Which the CPU lacks.
    Row("RDPRU", &[0x0F, 0x01, 0xFD], [0, 0, 0], [UD, UD, UD, UD]),
    Row("INVLPGB", &[0x0F, 0x01, 0xFE], [0, 0, 0], [UD, UD, UD, UD]),
    Row("TLBSYNC", &[0x0F, 0x01, 0xFF], [0, 0, 0], [UD, UD, UD, UD]),
    Row("CLZERO", &[0x0F, 0x01, 0xFC], [POINTER, 0, 0], [Any, Any, Any, Any]),
    Row("MWAITX", &[0x0F, 0x01, 0xFB], [0, 0, 0], [UD, UD, UD, UD]),
    Row("MONITORX", &[0x0F, 0x01, 0xFA], [POINTER, 0, 0], [UD, UD, UD, UD]),
];
