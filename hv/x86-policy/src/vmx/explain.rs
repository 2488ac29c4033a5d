//! In words: why an entry failed, and what an exit was that stops the partition.

use core::fmt::{self, Display, Formatter};

use super::capability::VmxCapabilities;
use super::control_state::ControlState;
use super::ept::Misconfiguration;
use super::exit::{ExitReason, InstructionError, reason};
use super::field::AnyField;
use super::guest_state::{Broken, Cpu, GuestState};
use super::host_state::HostState;
use super::qualification::{TaskSwitch, invalid_guest_state};

/// Why a guest is entered no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explained {
    /// The CPU left the guest at once, as its state is not legal (exit reason 33).
    State {
        /// The rule, if one of those that the SDM lists is found broken.
        broken: Option<Broken>,
        /// The exit qualification.
        qualification: u64,
    },
    /// The CPU did not try: VMLAUNCH or VMRESUME failed.
    Entry {
        /// Why, in the CPU's terms.
        error: InstructionError,
        /// The rule, if one of those that the SDM lists is found broken.
        broken: Option<Broken>,
    },
    /// An exit for which there is no handler.
    Exit {
        /// The exit-reason field.
        reason: ExitReason,
        /// The exit qualification.
        qualification: u64,
    },
    /// An EPT misconfiguration.
    Ept {
        /// The entry that is not legal, if it is found.
        entry: Option<Misconfiguration>,
        /// The guest-physical address that was used.
        gpa: u64,
    },
}

impl Explained {
    /// A failed entry (exit reason 33), by the state and the qualification.
    pub fn state(state: &GuestState, cpu: &Cpu, qualification: u64) -> Self {
        Self::State { broken: state.check(cpu).err(), qualification }
    }

    /// A VMLAUNCH or VMRESUME that failed, by the VM-instruction error; `read` reads a field of the current VMCS, 0 if the CPU
    /// does not have it.
    pub fn entry(
        error: InstructionError,
        capabilities: &VmxCapabilities,
        cpu: &Cpu,
        mut read: impl FnMut(AnyField) -> u64,
    ) -> Self {
        let checked = match error {
            InstructionError::INVALID_CONTROLS => ControlState::collect(&mut read)
                .check(capabilities, cpu)
                .and_then(|()| GuestState::collect(&mut read).check_event(cpu)),
            InstructionError::INVALID_HOST_STATE => HostState::collect(read).check(capabilities, cpu),
            _ => Ok(()),
        };
        Self::Entry { error, broken: checked.err() }
    }
}

impl Display for Explained {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { broken: Some(broken), .. } => write!(f, "{broken}"),
            Self::State { broken: None, qualification } => match invalid_guest_state(*qualification) {
                Some(text) => write!(f, "{text} (SDM vol. 3 section 27.8)"),
                None => f.write_str("the CPU does not say why, and no rule of SDM vol. 3 section 27.3.1 is broken"),
            },
            Self::Entry { error, broken: None } => write!(f, "{error}"),
            Self::Entry { error, broken: Some(broken) } => {
                write!(f, "VM-instruction error {}: {}: {broken}", error.0, error.text())
            }
            Self::Exit { reason, qualification } if reason.basic() == reason::TASK_SWITCH => {
                let task = TaskSwitch::decode(*qualification);
                write!(f, "task switch to selector {:#x} ({:?}), which VMX leaves undone", task.selector, task.source)
            }
            Self::Exit { reason, qualification } => {
                write!(f, "exit reason {}, {}, qualification {qualification:#x}", reason.basic(), reason.name())
            }
            Self::Ept { entry: Some(entry), gpa } => write!(f, "guest-physical address {gpa:#x}: {entry}"),
            Self::Ept { entry: None, gpa } => {
                write!(
                    f,
                    "EPT misconfiguration at guest-physical address {gpa:#x}; every entry on the way is legal now"
                )
            }
        }
    }
}
