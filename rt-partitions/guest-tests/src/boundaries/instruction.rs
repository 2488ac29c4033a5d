//! The instructions: at most of them the hypervisor takes over.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

use partita_abi::cpuid::{LEAF_PARTITION, LEAF_SIGNATURE, LEAF_TIMING};
use partita_abi::guest::SLEEP_STATUS_PORT;
use partita_abi::hypercall::{NOP, SUCCESS};
use partita_rt::place::uses_vmmcall;
use partita_x86_bare::read_msr;

use super::enter::{RAX, RBX, RCX, RDX, Registers, State};
use super::noted::SENT;
use crate::counters::FIRST_VECTOR;

/// Has the x2APIC ID (APM vol. 3 section E.4.15).
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001E;
const APIC_BASE: u32 = 0x1B;
const EFER: u32 = 0xC000_0080;
const ICR: u32 = 0x830;
const ASSERT: u32 = 1 << 14;
/// Delivery mode NMI.
const NMI: u32 = 4 << 8;
const TO_SELF: u32 = 1 << 18;
const TO_ALL: u32 = 2 << 18;
const TO_OTHERS: u32 = 3 << 18;
/// An INIT level de-assert, which no CPU has had for twenty years: it does nothing.
const DEASSERT: u32 = 5 << 8 | 1 << 15;
const LVT_MASKED: u32 = 1 << 16;
const LOW: u64 = 0xFFFF_FFFF;

/// To whom an IPI goes by its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// The CPU that sends it.
    Own,
    /// The other one.
    Peer,
    /// The shorthand says it.
    Shorthand,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Nothing,
    Cpuid {
        leaf: u32,
        subleaf: u32,
    },
    MsrRead(u32),
    /// Writes what the register has.
    MsrWriteBack(u32),
    MsrWrite(u32, u32),
    Icr(To, u32),
    Hypercall,
    /// So many bytes from a port, which DX has, too.
    In(u8, u16),
    Out(u16),
    /// Writes what XCR0 has.
    Xsetbv,
}

/// Where it can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Anywhere,
    Partition,
    Amd,
    Intel,
    /// Where CPUID tells of XSAVE.
    Xsave,
}

/// What becomes of it at privilege level 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtUser {
    /// It is executed.
    Works,
    /// #GP.
    Protected,
    /// #UD.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Row(&'static str, &'static [u8], What, Where);

const CPUID: &[u8] = &[0x0F, 0xA2];
const RDMSR: &[u8] = &[0x0F, 0x32];
const WRMSR: &[u8] = &[0x0F, 0x30];
const VMMCALL: &[u8] = &[0x0F, 0x01, 0xD9];
const VMCALL: &[u8] = &[0x0F, 0x01, 0xC1];

const fn cpuid(text: &'static str, leaf: u32, subleaf: u32) -> Row {
    Row(text, CPUID, What::Cpuid { leaf, subleaf }, Where::Anywhere)
}

const fn rdmsr(text: &'static str, msr: u32, place: Where) -> Row {
    Row(text, RDMSR, What::MsrRead(msr), place)
}

const fn wrmsr(text: &'static str, what: What, place: Where) -> Row {
    Row(text, WRMSR, what, place)
}

const fn icr(text: &'static str, to: To, command: u32) -> Row {
    Row(text, WRMSR, What::Icr(to, command | ASSERT), Where::Anywhere)
}

const ROWS: [Row; 57] = [
    Row("NOP", &[0x90], What::Nothing, Where::Anywhere),
    cpuid("CPUID 0", 0, 0),
    cpuid("CPUID 1", 1, 0),
    cpuid("CPUID 7", 7, 0),
    cpuid("CPUID 7.1", 7, 1),
    cpuid("CPUID 0xB", 0xB, 0),
    cpuid("CPUID 0xB.1", 0xB, 1),
    cpuid("CPUID 0xD", 0xD, 0),
    cpuid("CPUID of Partita's signature", LEAF_SIGNATURE, 0),
    cpuid("CPUID of Partita's frequencies", LEAF_TIMING, 0),
    cpuid("CPUID of the partition", LEAF_PARTITION, 0),
    cpuid("CPUID 0x80000000", 0x8000_0000, 0),
    cpuid("CPUID 0x80000001", 0x8000_0001, 0),
    cpuid("CPUID 0x80000008", 0x8000_0008, 0),
    cpuid("CPUID 0x8000001E", LEAF_AMD_TOPOLOGY, 0),
    cpuid("CPUID of no leaf", 0x7FFF_FFFF, 0),
    rdmsr("RDMSR of APIC_BASE", APIC_BASE, Where::Anywhere),
    rdmsr("RDMSR of EFER", EFER, Where::Anywhere),
    rdmsr("RDMSR of PAT, with no exit", 0x277, Where::Anywhere),
    rdmsr("RDMSR of MTRRcap", 0xFE, Where::Partition),
    rdmsr("RDMSR of MCG_CAP", 0x179, Where::Partition),
    rdmsr("RDMSR of the microcode's revision", 0x8B, Where::Partition),
    rdmsr("RDMSR of MTRRdefType", 0x2FF, Where::Partition),
    rdmsr("RDMSR of a machine-check bank", 0x400, Where::Partition),
    rdmsr("RDMSR of DEBUGCTL", 0x1D9, Where::Partition),
    rdmsr("RDMSR of HWCR", 0xC001_0015, Where::Amd),
    rdmsr("RDMSR of MISC_ENABLE", 0x1A0, Where::Intel),
    wrmsr("WRMSR of EFER", What::MsrWriteBack(EFER), Where::Anywhere),
    wrmsr("WRMSR of APIC_BASE", What::MsrWriteBack(APIC_BASE), Where::Partition),
    wrmsr("WRMSR of LINT0", What::MsrWrite(0x835, LVT_MASKED), Where::Anywhere),
    wrmsr("WRMSR of the timer's entry", What::MsrWrite(0x832, LVT_MASKED), Where::Anywhere),
    wrmsr("WRMSR of PAT, with no exit", What::MsrWriteBack(0x277), Where::Anywhere),
    icr("an IPI to itself by its ID", To::Own, SENT as u32),
    icr("an NMI to itself by its ID", To::Own, NMI),
    icr("an IPI to itself by the shorthand", To::Shorthand, TO_SELF | SENT as u32),
    icr("an IPI to all", To::Shorthand, TO_ALL | SENT as u32),
    icr("an IPI to the other CPU", To::Peer, FIRST_VECTOR as u32),
    icr("an IPI to the others", To::Shorthand, TO_OTHERS | FIRST_VECTOR as u32),
    wrmsr("an INIT level de-assert", What::Icr(To::Peer, DEASSERT), Where::Partition),
    wrmsr("WRMSR of SELF_IPI, with no exit", What::MsrWrite(0x83F, SENT as u32), Where::Anywhere),
    Row("a hypercall", &[], What::Hypercall, Where::Partition),
    Row("IN AL from 0x80", &[0xE4, 0x80], What::In(1, 0x80), Where::Anywhere),
    Row("IN AL from DX", &[0xEC], What::In(1, 0x80), Where::Anywhere),
    Row("IN AX", &[0x66, 0xED], What::In(2, 0x80), Where::Anywhere),
    Row("IN EAX", &[0xED], What::In(4, 0xCFC), Where::Partition),
    Row("IN AX from PCI", &[0x66, 0xED], What::In(2, 0xCF8), Where::Partition),
    Row("IN AL from the sleep status", &[0xEC], What::In(1, SLEEP_STATUS_PORT), Where::Partition),
    Row("IN AL from the clock", &[0xEC], What::In(1, 0x71), Where::Partition),
    Row("OUT of AL to 0x80", &[0xE6, 0x80], What::Out(0x80), Where::Anywhere),
    Row("OUT of AL to DX", &[0xEE], What::Out(0x80), Where::Anywhere),
    Row("OUT of AX", &[0x66, 0xEF], What::Out(0x80), Where::Anywhere),
    Row("OUT of EAX", &[0xEF], What::Out(0x80), Where::Anywhere),
    Row("OUT of EAX to PCI", &[0xEF], What::Out(0xCF8), Where::Partition),
    Row("OUT of AL to the clock", &[0xEE], What::Out(0x70), Where::Partition),
    Row("WBINVD", &[0x0F, 0x09], What::Nothing, Where::Partition),
    Row("INVD", &[0x0F, 0x08], What::Nothing, Where::Partition),
    Row("XSETBV", &[0x0F, 0x01, 0xD1], What::Xsetbv, Where::Xsave),
];

/// An instruction, ready to be executed on this CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    pub(super) text: &'static str,
    pub(super) code: &'static [u8],
    what: What,
    /// EAX, ECX, EDX before.
    inputs: [u32; 3],
}

/// Each instruction that can be executed here, by the CPU with the x2APIC ID `own`, beside `peer`.
pub(super) fn all(in_partition: bool, own: u32, peer: u32) -> impl Iterator<Item = Instruction> {
    let has_xsave = __cpuid(1).ecx >> 26 & 1 == 1;
    let is_here = move |place| match place {
        Where::Anywhere => true,
        Where::Partition => in_partition,
        Where::Amd => in_partition && uses_vmmcall(),
        Where::Intel => in_partition && !uses_vmmcall(),
        Where::Xsave => has_xsave,
    };
    let here = ROWS.into_iter().filter(move |Row(.., place)| is_here(*place));
    here.map(move |Row(text, code, what, _)| {
        let hypercall = if uses_vmmcall() { VMMCALL } else { VMCALL };
        let code = if what == What::Hypercall { hypercall } else { code };
        Instruction { text, code, what, inputs: inputs(what, own, peer) }
    })
}

fn inputs(what: What, own: u32, peer: u32) -> [u32; 3] {
    match what {
        What::Nothing => [0; 3],
        What::Cpuid { leaf, subleaf } => [leaf, subleaf, 0],
        What::MsrRead(msr) => [0, msr, 0],
        What::MsrWriteBack(msr) => {
            // SAFETY: every x86-64 CPU has those that are written back.
            let value = unsafe { read_msr(msr) };
            [value as u32, msr, (value >> 32) as u32]
        }
        What::MsrWrite(msr, value) => [value, msr, 0],
        What::Icr(to, command) => [
            command,
            ICR,
            match to {
                To::Own => own,
                To::Peer => peer,
                To::Shorthand => 0,
            },
        ],
        What::Hypercall => [NOP, 0, 0],
        // A byte that the clock has: its battery is good.
        What::In(_, port) | What::Out(port) => [0x0D, 0, port.into()],
        What::Xsetbv => {
            let (low, high): (u32, u32);
            // SAFETY: XSAVE is switched on, as it is there.
            unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
            [low, 0, high]
        }
    }
}

impl Instruction {
    /// Its length.
    pub(super) const fn len(&self) -> u64 {
        self.code.len() as u64
    }

    /// Interrupts that it sends to the CPU that executes it.
    pub(super) fn sends_to_itself(&self) -> u64 {
        let sends = matches!(self.inputs, [value, ICR | 0x83F, _] if value as u8 == SENT);
        sends.into()
    }

    /// Whether it sends an interrupt to the other CPU, of [`FIRST_VECTOR`].
    pub(super) const fn sends_to_other(&self) -> bool {
        matches!(self.what, What::Icr(_, command) if command as u8 == FIRST_VECTOR)
    }

    /// Whether it sends an NMI to the CPU that executes it.
    pub(super) const fn sends_nmi(&self) -> bool {
        matches!(self.what, What::Icr(To::Own, command) if command & NMI != 0)
    }

    /// Whether what it does depends on the CPU that executes it.
    pub(super) fn depends_on_cpu(&self) -> bool {
        match self.what {
            What::Icr(..) | What::MsrRead(APIC_BASE) => true,
            What::Cpuid { leaf, .. } => matches!(leaf, 1 | 0xB | LEAF_AMD_TOPOLOGY | LEAF_PARTITION),
            _ => false,
        }
    }

    /// Whether the hypervisor learns from the CPU where it ends. SVM tells this of IN and OUT only, so that others have the length that
    /// they have without prefixes (docs/architecture.md).
    pub(super) fn tells_its_end(&self) -> bool {
        !uses_vmmcall() || matches!(self.what, What::In(..) | What::Out(_)) || self.code == [0x90]
    }

    /// Whether user code may execute it at IOPL 3.
    pub(super) const fn is_io(&self) -> bool {
        matches!(self.what, What::In(..) | What::Out(_))
    }

    /// What becomes of it at privilege level 3, with IOPL 0.
    pub(super) const fn at_user(&self) -> AtUser {
        match self.what {
            What::Nothing if self.code.len() == 1 => AtUser::Works,
            What::Cpuid { .. } => AtUser::Works,
            What::Hypercall => AtUser::Unknown,
            _ => AtUser::Protected,
        }
    }

    /// Bits of EDX that may differ outside of 64-bit mode: CPUID tells of SYSCALL there on AMD's CPUs only (SDM vol. 2, "CPUID").
    pub(super) const fn varies_with_mode(&self) -> u64 {
        if matches!(self.what, What::Cpuid { leaf: 0x8000_0001, .. }) { 1 << 11 } else { 0 }
    }

    /// Whether it means the same in 16-bit code.
    pub(super) const fn has_no_operand_size(&self) -> bool {
        !matches!(self.code, [0x66, ..] | [0xED | 0xEF])
    }

    /// Gives it its inputs, in low halves of registers.
    pub(super) fn prepare(&self, state: &mut State) {
        for (register, value) in [RAX, RCX, RDX].into_iter().zip(self.inputs) {
            state.set_low(register, value);
        }
    }

    /// Registers behind it, by those before it.
    pub(super) fn result(&self, before: &Registers) -> Registers {
        let mut after = *before;
        let mut set = |register: usize, value: u64| {
            if let Some(place) = after.get_mut(register) {
                *place = value;
            }
        };
        match self.what {
            What::Cpuid { leaf, subleaf } => {
                let CpuidResult { eax, ebx, ecx, edx } = __cpuid_count(leaf, subleaf);
                for (register, value) in [(RAX, eax), (RBX, ebx), (RCX, ecx), (RDX, edx)] {
                    set(register, value.into());
                }
            }
            What::MsrRead(msr) => {
                // SAFETY: the CPU has it.
                let value = unsafe { read_msr(msr) };
                set(RAX, value & LOW);
                set(RDX, value >> 32);
            }
            What::Hypercall => set(RAX, SUCCESS),
            What::In(size, port) => {
                let kept = match size {
                    1 => !0xFF,
                    2 => !0xFFFF,
                    _ => 0,
                };
                set(RAX, before[RAX] & kept | u64::from(input(size, port)));
            }
            _ => {}
        }
        after
    }
}

fn input(size: u8, port: u16) -> u32 {
    let mut value = 0;
    // SAFETY: ports that the hypervisor answers for, or that have no effect.
    unsafe {
        match size {
            1 => asm!("in al, dx", in("dx") port, inout("eax") value, options(nomem, nostack)),
            2 => asm!("in ax, dx", in("dx") port, inout("eax") value, options(nomem, nostack)),
            _ => asm!("in eax, dx", in("dx") port, inout("eax") value, options(nomem, nostack)),
        }
    }
    value
}
