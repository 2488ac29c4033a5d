//! The machines that a user can choose from.

use super::{Bochs, Clock, Cpu, Emulator, Kvm, Qemu};
use std::fmt;
use std::str::FromStr;

/// A machine: an emulator, and the CPU in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MachineKind {
    /// QEMU's q35 under TCG, with AMD SVM.
    #[default]
    Qemu,
    /// Bochs, with this CPU.
    Bochs(Cpu),
    /// QEMU's q35 with KVM, nested: the host's processor, and its time.
    Kvm,
}

impl MachineKind {
    /// Bochs, with Intel VMX.
    pub const BOCHS_VMX: Self = Self::Bochs(Cpu::VMX);
    /// Bochs, with AMD SVM.
    pub const BOCHS_SVM: Self = Self::Bochs(Cpu::SVM);

    /// The machine that tests of whole systems run in: the one named by the environment variable `PARTITA_MACHINE`, or QEMU.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn of_environment() -> Result<Self, UnknownMachine> {
        std::env::var("PARTITA_MACHINE").map_or(Ok(Self::Qemu), |name| name.parse())
    }

    /// The emulator.
    pub fn emulator(self) -> Box<dyn Emulator> {
        match self {
            Self::Qemu => Box::new(Qemu),
            Self::Bochs(cpu) => Box::new(Bochs { cpu }),
            Self::Kvm => Box::new(Kvm),
        }
    }

    /// How time passes in it if `asked` is asked for: in Bochs always by instructions, with KVM always as on the host.
    pub const fn clock(self, asked: Clock) -> Clock {
        match self {
            Self::Qemu => asked,
            Self::Bochs(_) => Clock::Icount,
            Self::Kvm => Clock::Host,
        }
    }

    /// Its name in files of results: emulator and virtualisation.
    pub fn result_name(self) -> String {
        match self {
            Self::Qemu => "qemu-svm".to_owned(),
            Self::BOCHS_VMX => "bochs-vmx".to_owned(),
            Self::BOCHS_SVM => "bochs-svm".to_owned(),
            Self::Bochs(cpu) => format!("bochs-{}", cpu.name),
            Self::Kvm => "kvm".to_owned(),
        }
    }

    /// What a tick of its time-stamp counter is, in a line of at most 100 characters.
    pub const fn tick(self, clock: Clock) -> &'static str {
        match (self, clock) {
            (Self::Qemu, Clock::Icount) => {
                "1 tick = 1 executed instruction = 1 ns of QEMU's icount clock: path length, not hardware cycles"
            }
            (Self::Qemu, Clock::Host) => "1 tick = 1 tick of the host's time-stamp counter, while QEMU emulates",
            (Self::Bochs(_), _) => {
                "1 tick = 1 instruction, on all of Bochs' pCPUs side by side, by fives: no hardware cycles"
            }
            (Self::Kvm, _) => {
                "1 tick = 1 tick of the host's time-stamp counter; bare is a guest of KVM, Partita's are nested"
            }
        }
    }
}

impl fmt::Display for MachineKind {
    /// As on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Qemu => f.write_str("qemu"),
            Self::BOCHS_VMX => f.write_str("bochs"),
            Self::BOCHS_SVM => f.write_str("bochs-svm"),
            Self::Bochs(cpu) => write!(f, "bochs:{}", cpu.name),
            Self::Kvm => f.write_str("kvm"),
        }
    }
}

/// A name that is no machine's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no machine {name:?}; there are qemu (AMD SVM), bochs (Intel VMX), bochs-svm (AMD SVM), kvm (the host's, nested), and bochs:CPU, of which \
     CPU is one of {}", Cpu::ALL.map(|cpu| cpu.name).join(", ")
)]
pub struct UnknownMachine {
    name: String,
}

impl FromStr for MachineKind {
    type Err = UnknownMachine;

    fn from_str(name: &str) -> Result<Self, UnknownMachine> {
        let unknown = || UnknownMachine { name: name.to_owned() };
        match name {
            "qemu" => Ok(Self::Qemu),
            "bochs" => Ok(Self::BOCHS_VMX),
            "bochs-svm" => Ok(Self::BOCHS_SVM),
            "kvm" => Ok(Self::Kvm),
            _ => {
                let name = name.strip_prefix("bochs:").ok_or_else(unknown)?;
                Cpu::ALL.into_iter().find(|cpu| cpu.name == name).map(Self::Bochs).ok_or_else(unknown)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let all = [MachineKind::Qemu, MachineKind::Kvm].into_iter().chain(Cpu::ALL.map(MachineKind::Bochs));
        for kind in all {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            for clock in [Clock::Host, Clock::Icount] {
                assert!(kind.tick(clock).chars().count() <= 100);
            }
        }
        assert_eq!("bochs:svm".parse(), Ok(MachineKind::BOCHS_SVM));
        assert_eq!(MachineKind::BOCHS_VMX.result_name(), "bochs-vmx");
        for name in ["", "Bochs", "bochs:", "bochs:i486", "KVM"] {
            let error = name.parse::<MachineKind>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("{name:?}")) && error.contains("bochs-svm") && error.contains("haswell"),
                "{error}"
            );
        }
    }

    #[test]
    fn time_in_bochs_is_always_exact() {
        assert_eq!(MachineKind::BOCHS_VMX.clock(Clock::Host), Clock::Icount);
        assert_eq!(MachineKind::Qemu.clock(Clock::Host), Clock::Host);
        assert_eq!(MachineKind::Kvm.clock(Clock::Icount), Clock::Host);
    }
}
