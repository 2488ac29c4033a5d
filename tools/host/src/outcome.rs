//! What a run came to: told from how the emulator ended *and* from the last line on the console.

use crate::emulator::{Ended, Unspoken, Untaken};
use partita_abi::report::{END_SUCCESS, HypervisorExit};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// Process exit code of the tool: everything succeeded.
pub const EXIT_OK: u8 = 0;
/// Process exit code of the tool: the run took place and did not succeed.
pub const EXIT_RUN_FAILED: u8 = 1;
/// Process exit code of the tool: parts of a trace are damaged; the rest is shown.
pub const EXIT_DAMAGED_TRACE: u8 = 1;
/// Process exit code of the tool: bad input, or a machine that is not set up; nothing was run.
pub const EXIT_BAD_INPUT: u8 = 2;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunOutcome {
    /// Everything that was expected to finish reported success.
    Success,
    /// Nothing was expected to finish, and all ran until the time was up.
    RanUntilTimeout,
    /// A partition, or a bare payload, reported a failure or was stopped.
    PartitionFailed {
        /// What the console says about it.
        reason: String,
    },
    /// The hypervisor refused the machine or the bundle.
    Refused {
        /// What the console says about it.
        reason: String,
    },
    /// The hypervisor met a condition that it cannot survive.
    Fatal {
        /// What the console says about it.
        reason: String,
    },
    /// Something that was expected to finish did not.
    TimedOut {
        /// The time it had.
        after: Duration,
    },
    /// The user interrupted.
    Interrupted,
    /// The emulator ended in a way that no guest asks for.
    EmulatorFailed {
        /// What is known about it.
        reason: String,
    },
    /// The console did not take a command of the script.
    CommandUntaken {
        /// The first such command.
        untaken: Untaken,
        /// What the run itself came to.
        outcome: Box<RunOutcome>,
    },
    /// The run ended before a dialogue was through.
    DialogueUnfinished {
        /// The first step that was not done.
        unspoken: Unspoken,
        /// What the run itself came to.
        outcome: Box<RunOutcome>,
    },
    /// Of what the machine wrote to its debug port, a part was lost: its trace, or its end.
    StreamDamaged {
        /// What is known of that, in a line.
        damage: String,
        /// What the run itself came to.
        outcome: Box<RunOutcome>,
    },
    /// The emulator ended as the isa-debug-exit of a partition ends it, and the hypervisor did not end the run.
    EndedByGuest {
        /// Name of the partition that has the device.
        partition: String,
        /// What it may have written.
        value: TestExit,
    },
}

/// What a guest may have written to its isa-debug-exit: the process's exit code has only the low bits of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestExit {
    /// The low bits.
    pub value: u8,
    /// How many there are.
    pub bits: u8,
}

impl fmt::Display for TestExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, bits } = self;
        write!(f, "value {value:#x} (its low {bits} bits)")
    }
}

impl RunOutcome {
    /// Whether it counts as a success.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Success | Self::RanUntilTimeout)
    }

    /// The exit code of the tool.
    pub const fn exit_code(&self) -> u8 {
        if self.is_success() { EXIT_OK } else { EXIT_RUN_FAILED }
    }
}

impl fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::RanUntilTimeout => {
                f.write_str("success: ran until the time was up (no partition is expected to finish)")
            }
            Self::PartitionFailed { reason } => write!(f, "failed: {reason}"),
            Self::Refused { reason } => write!(f, "refused by the hypervisor: {reason}"),
            Self::Fatal { reason } => write!(f, "fatal error of the hypervisor: {reason}"),
            Self::TimedOut { after } => {
                write!(f, "timed out after {} s; raise it with --timeout if more is needed", after.as_secs_f64())
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::EmulatorFailed { reason } => write!(f, "the emulator failed: {reason}"),
            Self::CommandUntaken { untaken, outcome } => write!(f, "failed: {untaken}; the run itself: {outcome}"),
            Self::DialogueUnfinished { unspoken, outcome } => {
                write!(f, "failed: {unspoken}; the run itself: {outcome}")
            }
            Self::StreamDamaged { damage, outcome } => {
                write!(
                    f,
                    "failed: the stream of the machine's debug port is damaged: {damage}; the run itself: {outcome}"
                )
            }
            Self::EndedByGuest { partition, value } => {
                write!(
                    f,
                    "failed: partition {partition} may have ended the emulator through its isa-debug-exit: {value}"
                )
            }
        }
    }
}

/// What is known after a run.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// How the emulator ended.
    pub ended: Ended,
    /// The byte that the guest wrote to its exit port, if the emulator's exit code says so.
    pub exit_byte: Option<u8>,
    /// The partition that has an isa-debug-exit, and what it may have written to it, if the emulator's exit code can be
    /// from there.
    pub guest_exit: Option<(&'a str, TestExit)>,
    /// What starts the last line of the console, if the guest prints such a line.
    pub end_marker: Option<&'a str>,
    /// The console.
    pub console: &'a str,
    /// What the emulator printed itself.
    pub emulator_log: &'a str,
    /// Whether only the time-out ends this run.
    pub open_ended: bool,
    /// The time it had.
    pub timeout: Duration,
}

/// Judges a run.
pub fn judge(evidence: &Evidence<'_>) -> RunOutcome {
    let status = match evidence.ended {
        Ended::Interrupted => return RunOutcome::Interrupted,
        Ended::TimedOut if evidence.open_ended => return RunOutcome::RanUntilTimeout,
        Ended::TimedOut => return RunOutcome::TimedOut { after: evidence.timeout },
        Ended::Exited(status) => status,
    };
    let marker_text = evidence.end_marker.and_then(|marker| last_marker(evidence.console, marker));
    if let Some((partition, value)) = evidence.guest_exit
        && marker_text.is_none()
        // An error of the emulator itself looks like the value 0, but is told.
        && (value.value != 0 || evidence.emulator_log.trim().is_empty())
    {
        return RunOutcome::EndedByGuest { partition: partition.to_owned(), value };
    }
    let exit = evidence.exit_byte.and_then(HypervisorExit::from_byte);
    match exit {
        Some(HypervisorExit::Success) => match (evidence.end_marker, &marker_text) {
            (None, _) => RunOutcome::Success,
            (Some(_), Some(text)) if text == END_SUCCESS => RunOutcome::Success,
            (Some(marker), found) => RunOutcome::EmulatorFailed {
                reason: format!(
                    "its exit code says success, but the console does not end with \"{marker}{END_SUCCESS}\" ({})",
                    found.as_ref().map_or_else(|| "no such line".to_owned(), |text| format!("it says {text:?}"))
                ),
            },
        },
        Some(failure) => {
            let reason = marker_text.unwrap_or_else(|| format!("no reason on the console{}", tail(evidence.console)));
            match failure {
                HypervisorExit::Refused => RunOutcome::Refused { reason },
                HypervisorExit::Fatal => RunOutcome::Fatal { reason },
                HypervisorExit::PartitionFailed | HypervisorExit::Success => RunOutcome::PartitionFailed { reason },
            }
        }
        None => {
            let how = match (status.code(), status.signal(), evidence.exit_byte) {
                (_, _, Some(byte)) => format!("unknown byte {byte:#x} at the exit port"),
                (Some(0), ..) => "the machine reset or switched itself off, as after a triple fault".to_owned(),
                (Some(code), ..) => format!("exit code {code}"),
                (None, Some(signal), _) => format!("ended by signal {signal}"),
                (None, None, _) => "unknown status".to_owned(),
            };
            RunOutcome::EmulatorFailed { reason: format!("{how}{}", tail(evidence.emulator_log)) }
        }
    }
}

/// What follows the marker on the last line that starts with it.
fn last_marker(console: &str, marker: &str) -> Option<String> {
    console.lines().rev().find_map(|line| line.strip_prefix(marker)).map(|text| text.trim_end().to_owned())
}

/// The last lines of a log, as an appendix to a message.
fn tail(log: &str) -> String {
    const LINES: usize = 5;
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!("; last lines:\n  {}", last.join("\n  ")) }
}

/// [`HypervisorExit`] from the byte at the exit port.
trait FromByte: Sized {
    fn from_byte(byte: u8) -> Option<Self>;
}

impl FromByte for HypervisorExit {
    fn from_byte(byte: u8) -> Option<Self> {
        Self::from_qemu_exit_code((i32::from(byte) << 1) | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita_abi::report::END_MARKER;
    use std::process::ExitStatus;

    fn evidence(code: i32, console: &'static str) -> Evidence<'static> {
        Evidence {
            ended: Ended::Exited(ExitStatus::from_raw(code << 8)),
            exit_byte: (code > 1 && code & 1 == 1).then_some((code >> 1) as u8),
            guest_exit: None,
            end_marker: Some(END_MARKER),
            console,
            emulator_log: "",
            open_ended: false,
            timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn success_needs_exit_code_and_marker() {
        assert_eq!(judge(&evidence(33, "hello\npartita: end: success\r\n")), RunOutcome::Success);
        for console in ["hello\n", "partita: end: failed\n", "x partita: end: success\n"] {
            let outcome = judge(&evidence(33, console));
            assert!(matches!(outcome, RunOutcome::EmulatorFailed { .. }), "{console:?}: {outcome}");
        }
        let lying = judge(&evidence(35, "partita: end: success\n"));
        assert!(!lying.is_success());
    }

    #[test]
    fn failures_carry_the_consoles_reason() {
        let reason = || "rt0 stopped".to_owned();
        let console = "partita: end: rt0 stopped\n";
        assert_eq!(judge(&evidence(35, console)), RunOutcome::PartitionFailed { reason: reason() });
        assert_eq!(judge(&evidence(37, console)), RunOutcome::Refused { reason: reason() });
        assert_eq!(judge(&evidence(39, console)), RunOutcome::Fatal { reason: reason() });
        let silent = judge(&evidence(37, "one\ntwo\n")).to_string();
        assert!(silent.contains("no reason") && silent.contains("two"), "{silent}");
    }

    #[test]
    fn other_ends_are_the_emulators() {
        for (code, expected) in [(0, "triple fault"), (1, "exit code 1"), (101, "unknown byte 0x32")] {
            let text = judge(&evidence(code, "partita: end: success\n")).to_string();
            assert!(text.contains(expected), "{code}: {text}");
        }
        let mut killed = evidence(0, "");
        killed.ended = Ended::Exited(ExitStatus::from_raw(6));
        killed.emulator_log = "Bad icount read\n";
        let text = judge(&killed).to_string();
        assert!(text.contains("signal 6") && text.contains("Bad icount read"), "{text}");
    }

    #[test]
    fn an_end_by_a_guests_own_device_is_told_apart() {
        // 33 is also what the hypervisor's success gives, 1 what an error of the emulator gives.
        for (code, value) in [(33, "0x10"), (1, "0x0"), (0xFF, "0x7f")] {
            let mut evidence = evidence(code, "partita: partition 0 started\n");
            evidence.guest_exit = Some(("rt0", TestExit { value: (code >> 1) as u8, bits: 7 }));
            let outcome = judge(&evidence);
            let words = format!(
                "failed: partition rt0 may have ended the emulator through its isa-debug-exit: value {value} (its low 7 bits)"
            );
            assert_eq!((outcome.to_string(), outcome.exit_code()), (words, EXIT_RUN_FAILED));
        }
        let mut error = evidence(1, "");
        (error.emulator_log, error.guest_exit) = ("qemu: no such file", Some(("rt0", TestExit { value: 0, bits: 7 })));
        assert!(matches!(judge(&error), RunOutcome::EmulatorFailed { .. }));
        // Where the hypervisor ended the run, it was the hypervisor.
        let mut ended = evidence(33, "partita: end: success\n");
        ended.guest_exit = Some(("rt0", TestExit { value: 0x10, bits: 7 }));
        assert_eq!(judge(&ended), RunOutcome::Success);
    }

    #[test]
    fn a_time_out_is_a_success_only_where_nothing_was_to_finish() {
        let mut evidence = evidence(0, "");
        evidence.ended = Ended::TimedOut;
        assert_eq!(judge(&evidence).exit_code(), EXIT_RUN_FAILED);
        evidence.open_ended = true;
        assert_eq!(judge(&evidence), RunOutcome::RanUntilTimeout);
        assert_eq!(judge(&evidence).exit_code(), EXIT_OK);
        evidence.ended = Ended::Interrupted;
        assert_eq!(judge(&evidence).exit_code(), EXIT_RUN_FAILED);
    }
}
