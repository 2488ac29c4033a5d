//! Instructions with what they give in each mode but 64-bit code of privilege level 0.

use partita_abi::cpuid::LEAF_LIFE;
use partita_abi::hypercall::{FINISH, NOP};
use partita_x86_policy::icr::ICR_MSR;
use partita_x86_policy::msr::{APIC_BASE_MSR, EFER_MSR};

use super::gives::Gives::{
    self, Any, Eax, Exception, Fault, Hidden, HiddenButCompatible, Ignored, LeftOut, NoIpi, Nothing, Refused,
};
use crate::excursion::Mode;
use crate::gates::{DB, GP as GP_VECTOR, UD as UD_VECTOR};
use crate::vendor::here;

/// What an instruction gives: at privilege level 3, in virtual-8086 mode, at privilege level 0 in 32-bit code, in real mode.
type InModes = [Gives; 4];

/// Bytes of an instruction, with RAX, RCX and RDX, and what it gives with SVM, and with VMX. IOPL is 0.
pub(super) struct Row(pub(super) &'static str, pub(super) &'static [u8], pub(super) [u64; 3], [InModes; 2]);

impl Row {
    /// What it gives in a mode.
    pub(super) fn gives(&self, mode: Mode) -> Gives {
        let [user, virtual_8086, kernel, real] = here(self.3);
        let gives = match mode {
            Mode::User32 | Mode::User64 => user,
            Mode::Virtual8086 => virtual_8086,
            Mode::Kernel32 | Mode::Protected => kernel,
            Mode::Real => real,
        };
        match (gives, mode) {
            (HiddenButCompatible, Mode::User32 | Mode::Kernel32) => UD,
            (HiddenButCompatible, _) => Hidden,
            _ => gives,
        }
    }
}

/// In RDX: the address of some data.
pub(super) const POINTER: u64 = crate::excursion::DATA_AT;
const GP: Gives = Exception(GP_VECTOR);
const UD: Gives = Exception(UD_VECTOR);
/// VMX's own instructions, whatever the privilege level.
const OWN: Gives = HiddenButCompatible;
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
    Row("VMRUN of this memory", &[0x0F, 0x01, 0xD8], [MINE, 0, 0], [[GP, Fault, Hidden, UD], [UD; 4]]),
    Row("VMRUN of foreign memory", &[0x0F, 0x01, 0xD8], [FOREIGN, 0, 0], [[GP, Fault, Hidden, UD], [UD; 4]]),
    Row("VMLOAD", &[0x0F, 0x01, 0xDA], [MINE, 0, 0], [[GP, Fault, Hidden, UD], [UD; 4]]),
    Row("VMSAVE to foreign memory", &[0x0F, 0x01, 0xDB], [FOREIGN, 0, 0], [[GP, Fault, Hidden, UD], [UD; 4]]),
    Row("STGI", &[0x0F, 0x01, 0xDC], [0, 0, 0], [[GP, Fault, Hidden, UD], [UD; 4]]),
    Row("CLGI", &[0x0F, 0x01, 0xDD], [0, 0, 0], [[GP, Fault, Hidden, UD], [UD; 4]]),
    // QEMU looks at the intercept before the privilege level.
    Row("SKINIT", &[0x0F, 0x01, 0xDE], [0, 0, 0], [[Hidden, Hidden, Hidden, UD], [UD; 4]]),
    Row("INVLPGA of the host's ASID", &[0x0F, 0x01, 0xDF], [0, 0, 0], [[GP, Fault, Hidden, UD], [UD; 4]]),
    Row("VMMCALL that does nothing", &[0x0F, 0x01, 0xD9], [NOP as u64, 0, 0], [[Hidden, Hidden, Eax(0), Eax(0)], [UD; 4]]),
    Row("VMMCALL that finishes", &[0x0F, 0x01, 0xD9], [FINISH as u64, 0, 0], [[Hidden, Hidden, LeftOut, LeftOut], [UD; 4]]),
    Row("VMMCALL of junk", &[0x0F, 0x01, 0xD9], [NO_MORE, 0, 0], [[Hidden, Hidden, LeftOut, LeftOut], [UD; 4]]),
    // VMX's and SMX's.
    Row("VMCALL that does nothing", &[0x0F, 0x01, 0xC1], [NOP as u64, 0, 0], [[UD; 4], [Hidden, Hidden, Eax(0), Eax(0)]]),
    Row("VMCALL that finishes", &[0x0F, 0x01, 0xC1], [FINISH as u64, 0, 0], [[UD; 4], [Hidden, Hidden, LeftOut, LeftOut]]),
    Row("VMCALL of junk", &[0x0F, 0x01, 0xC1], [NO_MORE, 0, 0], [[UD; 4], [Hidden, Hidden, LeftOut, LeftOut]]),
    Row("VMLAUNCH", &[0x0F, 0x01, 0xC2], [0, 0, 0], [[UD; 4], [OWN, UD, OWN, UD]]),
    Row("VMRESUME", &[0x0F, 0x01, 0xC3], [0, 0, 0], [[UD; 4], [OWN, UD, OWN, UD]]),
    Row("VMXOFF", &[0x0F, 0x01, 0xC4], [0, 0, 0], [[UD; 4], [OWN, UD, OWN, UD]]),
    Row("VMREAD", &[0x0F, 0x78, 0xC0], [0, 0, 0], [[UD; 4], [OWN, UD, OWN, UD]]),
    Row("VMWRITE", &[0x0F, 0x79, 0xC0], [0, 0, 0], [[UD; 4], [OWN, UD, OWN, UD]]),
    Row("GETSEC", &[0x0F, 0x37], [0, 0, 0], [[UD; 4]; 2]),
    Row("RSM", &[0x0F, 0xAA], [0, 0, 0], [[UD; 4]; 2]),
    Row("ENCLU", &[0x0F, 0x01, 0xD7], [0, 0, 0], [[UD; 4]; 2]),
    Row("ENCLS", &[0x0F, 0x01, 0xCF], [0, 0, 0], [[UD; 4]; 2]),
    // Intercepted, or the CPU's own refusal first; QEMU has it last for WBINVD and INVD.
    Row("MONITOR", &[0x0F, 0x01, 0xC8], [MINE, 0, 0], [[UD, UD, Hidden, Hidden]; 2]),
    Row("MWAIT", &[0x0F, 0x01, 0xC9], [0, 0, 0], [[UD, UD, Hidden, Hidden]; 2]),
    Row("RDPMC", &[0x0F, 0x33], [0, 0, 0], [[GP, GP, Refused, Refused]; 2]),
    Row("CPUID", &[0x0F, 0xA2], [LIFE, 0, 0], [[Eax(1); 4]; 2]),
    Row("XGETBV", &[0x0F, 0x01, 0xD0], [0, 0, 0], [[Eax(1); 4]; 2]),
    // With VMX it always exits; Bochs looks at that before the privilege level.
    Row("XSETBV of no register", &[0x0F, 0x01, 0xD1], [1, 5, 0], [[GP; 4], [Refused; 4]]),
    Row("XSETBV of x87", &[0x0F, 0x01, 0xD1], [1, 0, 0], [[GP, GP, Nothing, Nothing], [Refused, Refused, Nothing, Nothing]]),
    Row("WBINVD", &[0x0F, 0x09], [0, 0, 0], [[Refused, Refused, Nothing, Nothing], [GP, GP, Nothing, Nothing]]),
    Row("INVD", &[0x0F, 0x08], [0, 0, 0], [[Refused, Refused, Nothing, Nothing], [GP, GP, Nothing, Nothing]]),
    Row("INT1", &[0xF1], [0, 0, 0], [[Exception(DB); 4]; 2]),
    // Registers.
    Row("RDMSR of what is 0", &[0x0F, 0x32], [NO_MORE, MCG_STATUS, NO_MORE], [[GP, GP, Eax(0), Eax(0)]; 2]),
    Row("RDMSR of none", &[0x0F, 0x32], [0, ABSENT, 0], [[GP, GP, Refused, Refused]; 2]),
    Row("RDMSR outside of the map", &[0x0F, 0x32], [0, OUTSIDE, 0], [[GP, GP, Refused, Refused]; 2]),
    Row("RDMSR of APIC_BASE", &[0x0F, 0x32], [0, APIC_BASE, 0], [[GP, GP, Eax(BASE as u32), Eax(BASE as u32)]; 2]),
    Row("RDMSR of EFER", &[0x0F, 0x32], [0, EFER, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("RDMSR of the ICR", &[0x0F, 0x32], [0, ICR, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("WRMSR of what is 0", &[0x0F, 0x30], [1, MCG_STATUS, 0], [[GP, GP, Ignored, Ignored]; 2]),
    Row("WRMSR of none", &[0x0F, 0x30], [1, ABSENT, 0], [[GP, GP, Refused, Refused]; 2]),
    Row("WRMSR outside of the map", &[0x0F, 0x30], [1, OUTSIDE, 0], [[GP, GP, Refused, Refused]; 2]),
    Row("WRMSR of APIC_BASE as it is", &[0x0F, 0x30], [BASE, APIC_BASE, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("WRMSR of APIC_BASE, reserved", &[0x0F, 0x30], [BASE | 1, APIC_BASE, 0], [[GP, GP, Refused, Refused]; 2]),
    Row("WRMSR of EFER.SVME", &[0x0F, 0x30], [0x900 | SVME, EFER, 0], [[GP, GP, Refused, Refused]; 2]),
    Row("WRMSR of all of EFER", &[0x0F, 0x30], [u64::MAX, EFER, u64::MAX], [[GP, GP, Refused, Refused]; 2]),
    Row("WRMSR of the ICR, SMI", &[0x0F, 0x30], [SMI, ICR, 0], [[GP, GP, NoIpi, NoIpi]; 2]),
    Row("WRMSR of the ICR, a neighbour", &[0x0F, 0x30], [FIXED, ICR, NEIGHBOUR], [[GP, GP, NoIpi, NoIpi]; 2]),
    Row("WRMSR of the ICR, NMI to it", &[0x0F, 0x30], [NMI, ICR, NEIGHBOUR], [[GP, GP, NoIpi, NoIpi]; 2]),
    Row("WRMSR of the ICR, INIT to it", &[0x0F, 0x30], [INIT, ICR, NEIGHBOUR], [[GP, GP, NoIpi, NoIpi]; 2]),
    Row("CLTS", &[0x0F, 0x06], [0, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("LMSW", &[0x0F, 0x01, 0xF0], [0x10, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("SMSW", &[0x0F, 0x01, 0xE0], [0, 0, 0], [[Nothing; 4]; 2]),
    Row("MOV from CR0", &[0x0F, 0x20, 0xC0], [0, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("MOV from CR2", &[0x0F, 0x20, 0xD0], [0, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("MOV from CR3", &[0x0F, 0x20, 0xD8], [0, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("MOV from CR4", &[0x0F, 0x20, 0xE0], [0, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("MOV to CR0", &[0x0F, 0x22, 0xC0], [0, 0, 0], [[GP, GP, LeftOut, LeftOut]; 2]),
    Row("MOV to CR2", &[0x0F, 0x22, 0xD0], [NO_MORE, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("MOV to CR3", &[0x0F, 0x22, 0xD8], [0, 0, 0], [[GP, GP, LeftOut, LeftOut]; 2]),
    Row("MOV to CR4", &[0x0F, 0x22, 0xE0], [0, 0, 0], [[GP, GP, LeftOut, LeftOut]; 2]),
    Row("MOV to CR1", &[0x0F, 0x22, 0xC8], [0, 0, 0], [[Fault, Fault, UD, UD]; 2]),
    Row("MOV from DR0", &[0x0F, 0x21, 0xC0], [0, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("MOV to DR3", &[0x0F, 0x23, 0xD8], [0, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("MOV to DR7", &[0x0F, 0x23, 0xF8], [0x400, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("LGDT", &[0x0F, 0x01, 0x12], [0, 0, POINTER], [[GP, GP, LeftOut, LeftOut]; 2]),
    Row("LIDT", &[0x0F, 0x01, 0x1A], [0, 0, POINTER], [[GP, GP, LeftOut, LeftOut]; 2]),
    Row("SGDT", &[0x0F, 0x01, 0x02], [0, 0, POINTER], [[Nothing; 4]; 2]),
    Row("SIDT", &[0x0F, 0x01, 0x0A], [0, 0, POINTER], [[Nothing; 4]; 2]),
    Row("INVLPG", &[0x0F, 0x01, 0x3A], [0, 0, POINTER], [[GP, GP, Nothing, Nothing]; 2]),
    Row("LLDT of nothing", &[0x0F, 0x00, 0xD0], [0, 0, 0], [[GP, UD, Nothing, UD]; 2]),
    Row("LTR of nothing", &[0x0F, 0x00, 0xD8], [0, 0, 0], [[GP, UD, LeftOut, UD]; 2]),
    Row("SLDT", &[0x0F, 0x00, 0xC0], [0, 0, 0], [[Nothing, UD, Nothing, UD]; 2]),
    Row("STR", &[0x0F, 0x00, 0xC8], [0, 0, 0], [[Nothing, UD, Nothing, UD]; 2]),
    Row("LAR", &[0x0F, 0x02, 0xC1], [0, 8, 0], [[Nothing, UD, Nothing, UD]; 2]),
    Row("LSL", &[0x0F, 0x03, 0xC1], [0, 8, 0], [[Nothing, UD, Nothing, UD]; 2]),
    Row("VERR", &[0x0F, 0x00, 0xE1], [0, 8, 0], [[Nothing, UD, Nothing, UD]; 2]),
    Row("VERW", &[0x0F, 0x00, 0xE9], [0, 8, 0], [[Nothing, UD, Nothing, UD]; 2]),
    // Ways in and out.
    Row("HLT", &[0xF4], [0, 0, 0], [[GP, GP, LeftOut, LeftOut]; 2]),
    Row("CLI", &[0xFA], [0, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("STI", &[0xFB, 0xFA], [0, 0, 0], [[GP, GP, Nothing, Nothing]; 2]),
    Row("PUSHF and POPF", &[0x9C, 0x9D], [0, 0, 0], [[Nothing, GP, Nothing, Nothing]; 2]),
    Row("IRET", &[0xCF], [0, 0, 0], [[LeftOut, GP, LeftOut, LeftOut]; 2]),
    Row("INT 0x80", &[0xCD, 0x80], [0, 0, 0], [[GP, GP, Exception(0x80), Exception(0x80)]; 2]),
    Row("INT 2", &[0xCD, 2], [0, 0, 0], [[GP, GP, LeftOut, Exception(2)]; 2]),
    Row("INT 13", &[0xCD, 13], [0, 0, 0], [[GP, GP, LeftOut, GP]; 2]),
    Row("UD2", &[0x0F, 0x0B], [0, 0, 0], [[UD; 4]; 2]),
    Row("SYSCALL without EFER.SCE", &[0x0F, 0x05], [0, 0, 0], [[UD; 4]; 2]),
    Row("SYSRET without EFER.SCE", &[0x0F, 0x07], [0, 0, 0], [[Fault; 4]; 2]),
    Row("SYSENTER", &[0x0F, 0x34], [0, 0, 0], [[Fault; 4]; 2]),
    Row("SYSEXIT", &[0x0F, 0x35], [0, 0, 0], [[Fault; 4]; 2]),
    Row("RDTSC", &[0x0F, 0x31], [0, 0, 0], [[Nothing; 4]; 2]),
    Row("RDTSCP", &[0x0F, 0x01, 0xF9], [0, 0, 0], [[Nothing; 4]; 2]),
    Row("PAUSE", &[0xF3, 0x90], [0, 0, 0], [[Nothing; 4]; 2]),
    // Which the CPU lacks.
    Row("RDPRU", &[0x0F, 0x01, 0xFD], [0, 0, 0], [[UD; 4]; 2]),
    Row("INVLPGB", &[0x0F, 0x01, 0xFE], [0, 0, 0], [[UD; 4]; 2]),
    Row("TLBSYNC", &[0x0F, 0x01, 0xFF], [0, 0, 0], [[UD; 4]; 2]),
    Row("CLZERO", &[0x0F, 0x01, 0xFC], [POINTER, 0, 0], [[Any; 4]; 2]),
    Row("MWAITX", &[0x0F, 0x01, 0xFB], [0, 0, 0], [[UD; 4]; 2]),
    Row("MONITORX", &[0x0F, 0x01, 0xFA], [POINTER, 0, 0], [[UD; 4]; 2]),
];
