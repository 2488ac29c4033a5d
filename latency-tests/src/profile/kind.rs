//! The paths that are profiled.

use partita_rows::{Group, Row};
use partita_trace::names::ExitReason;

/// ICR bits 19:18, the destination shorthand (SDM vol. 3 section 11.6.1).
const SHORTHAND: u64 = 0b11 << 18;
/// The shorthand "self".
const SHORTHAND_SELF: u64 = 0b01 << 18;
/// MTRRcap, which the payload reads for [`Row::ExitRdmsrValue`].
const MTRRCAP: u64 = 0xFE;

/// A path through the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    /// An exit by CPUID.
    Cpuid,
    /// An exit by the hypercall that does nothing.
    Hypercall,
    /// An exit by RDMSR.
    Rdmsr,
    /// An exit by OUT.
    Out,
    /// An exit by CPUID, leaf 1.
    CpuidLeaf1,
    /// An exit by RDMSR of a register that the policy has a value for.
    RdmsrValue,
    /// An exit by WRMSR.
    Wrmsr,
    /// An exit by IN.
    In,
    /// An exit by a write of the ICR, with the shorthand "self".
    IcrSelf,
    /// An exit by a write of the ICR, to another vCPU.
    Icr,
    /// An exit by a kick, for an SMP call.
    Kick,
    /// A round on pCPU 0, from its timer's interrupt to its next halt, with a call to one pCPU and one to another.
    Call,
    /// The same with one call to three pCPUs.
    Broadcast,
}

impl PathKind {
    /// All paths.
    pub const ALL: [Self; 13] = [
        Self::Cpuid,
        Self::Hypercall,
        Self::Rdmsr,
        Self::Out,
        Self::CpuidLeaf1,
        Self::RdmsrValue,
        Self::Wrmsr,
        Self::In,
        Self::IcrSelf,
        Self::Icr,
        Self::Kick,
        Self::Call,
        Self::Broadcast,
    ];

    /// Its name in profiles.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpuid => "exit.cpuid",
            Self::Hypercall => "exit.hypercall",
            Self::Rdmsr => "exit.rdmsr",
            Self::Out => "exit.out",
            Self::CpuidLeaf1 => "exit.cpuid_leaf_1",
            Self::RdmsrValue => "exit.rdmsr_value",
            Self::Wrmsr => "exit.wrmsr",
            Self::In => "exit.in",
            Self::IcrSelf => "exit.icr_self",
            Self::Icr => "exit.icr",
            Self::Kick => "exit.kick",
            Self::Call => "round.call",
            Self::Broadcast => "round.broadcast",
        }
    }

    /// The boot that has it.
    pub const fn group(self) -> Group {
        match self {
            Self::Cpuid
            | Self::Hypercall
            | Self::Rdmsr
            | Self::Out
            | Self::CpuidLeaf1
            | Self::RdmsrValue
            | Self::Wrmsr
            | Self::In => Group::Exit,
            Self::IcrSelf | Self::Icr => Group::Ipi,
            Self::Kick | Self::Call => Group::Kick,
            Self::Broadcast => Group::Broadcast,
        }
    }

    /// The paths behind a row.
    pub const fn of_row(row: Row) -> &'static [Self] {
        match row {
            Row::ExitCpuid => &[Self::Cpuid],
            Row::ExitHypercall => &[Self::Hypercall],
            Row::ExitRdmsr => &[Self::Rdmsr],
            Row::ExitIo => &[Self::Out],
            Row::ExitCpuidLeaf1 => &[Self::CpuidLeaf1],
            Row::ExitRdmsrValue => &[Self::RdmsrValue],
            Row::ExitWrmsrLvt => &[Self::Wrmsr],
            Row::ExitIn => &[Self::In],
            Row::IpiSelf => &[Self::IcrSelf],
            Row::IpiOnewaySpin | Row::IpiOnewayHlt | Row::IpiRoundtripHlt => &[Self::Icr],
            Row::KickNmiToExit
            | Row::SmpCallRoundtrip
            | Row::SmpCallPostKick
            | Row::SmpCallKickExit
            | Row::SmpCallExitRun
            | Row::SmpCallRunAck
            | Row::SmpCallGapSeen => &[Self::Call, Self::Kick],
            Row::SmpCallStolen => &[Self::Kick],
            Row::SmpCallBroadcast3 => &[Self::Broadcast, Self::Kick],
            _ => &[],
        }
    }

    /// The paths behind the row of this name; none if there is no such row.
    pub fn of_row_named(name: &str) -> &'static [Self] {
        Row::from_name(name).map_or(&[], Self::of_row)
    }

    /// The path of an exit, if it is profiled; `detail` is that of the trace's event.
    pub const fn of_exit(reason: ExitReason, detail: u64) -> Option<Self> {
        match reason {
            ExitReason::Cpuid if detail == 1 => Some(Self::CpuidLeaf1),
            ExitReason::Cpuid => Some(Self::Cpuid),
            ExitReason::Hypercall => Some(Self::Hypercall),
            ExitReason::MsrRead if detail == MTRRCAP => Some(Self::RdmsrValue),
            ExitReason::MsrRead => Some(Self::Rdmsr),
            ExitReason::MsrWrite => Some(Self::Wrmsr),
            ExitReason::IoIn => Some(Self::In),
            ExitReason::IoOut => Some(Self::Out),
            ExitReason::IcrWrite if detail & SHORTHAND == SHORTHAND_SELF => Some(Self::IcrSelf),
            ExitReason::IcrWrite => Some(Self::Icr),
            ExitReason::Kick => Some(Self::Kick),
            _ => None,
        }
    }

    /// What rounds of pCPU 0 in a boot are, if they are profiled.
    pub const fn of_rounds(group: Group) -> Option<Self> {
        match group {
            Group::Kick => Some(Self::Call),
            Group::Broadcast => Some(Self::Broadcast),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_behind_a_row_and_in_a_boot_of_its_own_group() {
        for kind in PathKind::ALL {
            assert!(Row::ALL.iter().any(|&row| PathKind::of_row(row).contains(&kind)), "{kind:?}");
            assert_eq!(PathKind::ALL.iter().filter(|other| other.name() == kind.name()).count(), 1);
        }
        assert_eq!(PathKind::of_exit(ExitReason::IcrWrite, 0x4_0040), Some(PathKind::IcrSelf));
        assert_eq!(PathKind::of_exit(ExitReason::IcrWrite, 0x2_0000_0040), Some(PathKind::Icr));
        assert_eq!(PathKind::of_exit(ExitReason::Xsetbv, 0), None);
        assert_eq!(PathKind::of_rounds(Group::Exit), None);
    }
}
