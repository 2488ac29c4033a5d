//! Watching over a process until it ends, its time is up, or the user interrupts.

use super::Console;
use crate::progress::Step;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often consoles and process are looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(3);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the user pressed Ctrl-C (or the tool was asked to terminate) since the first supervision began.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// How a supervision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The process ended by itself.
    Exited(ExitStatus),
    /// Its time was up; it was ended.
    TimedOut,
    /// The user interrupted; it was ended.
    Interrupted,
}

/// What to watch, and for how long.
#[derive(Debug)]
pub struct Supervision {
    /// What is going on, for the progress display.
    pub label: String,
    /// How long the process may run.
    pub timeout: Duration,
    /// Its consoles.
    pub consoles: Vec<Console>,
    /// Do not show the consoles.
    pub quiet: bool,
}

/// Ends and reaps the process on every way out.
struct Reaper(Child);

impl Reaper {
    /// Asks the process to end, waits, and ends it by force if it does not.
    fn end(&mut self) {
        // The process is not reaped before `try_wait` says so, so its ID is still its own.
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && matches!(self.0.try_wait(), Ok(None))
        {
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + GRACE;
            while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
        }
        // Both fail only for a process that has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs `command` and watches over it. When this returns, the process has ended and was waited for.
///
/// # Errors
/// The process cannot be started or waited for.
pub fn supervise(mut command: Command, supervision: Supervision) -> std::io::Result<Ended> {
    catch_interrupts();
    let Supervision { label, timeout, mut consoles, quiet } = supervision;
    let step = Step::start(label);
    let mut show = |lines: fn(&mut Console) -> Vec<String>| {
        for line in consoles.iter_mut().flat_map(lines).filter(|_| !quiet) {
            step.println(&line);
        }
    };
    let started = Instant::now();
    let mut process = Reaper(command.spawn()?);
    let ended = loop {
        if let Some(status) = process.0.try_wait()? {
            // A terminal sends its Ctrl-C to the process, too.
            break if interrupted() { Ended::Interrupted } else { Ended::Exited(status) };
        }
        if interrupted() {
            break Ended::Interrupted;
        }
        if started.elapsed() >= timeout {
            break Ended::TimedOut;
        }
        show(Console::poll);
        std::thread::sleep(POLL);
    };
    process.end();
    show(Console::finish);
    Ok(ended)
}

/// From the first call on, Ctrl-C and requests to terminate are noted and do not end the tool.
fn catch_interrupts() {
    static CAUGHT: OnceLock<bool> = OnceLock::new();
    CAUGHT.get_or_init(|| ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str, timeout_ms: u64) -> (Ended, Duration) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let supervision = Supervision {
            label: "test".into(),
            timeout: Duration::from_millis(timeout_ms),
            consoles: Vec::new(),
            quiet: true,
        };
        let started = Instant::now();
        (supervise(command, supervision).unwrap(), started.elapsed())
    }

    #[test]
    fn an_exit_code_comes_through() {
        assert_eq!(shell("exit 33", 10_000).0, Ended::Exited(ExitStatus::from_raw(33 << 8)));
    }

    #[test]
    fn a_process_that_never_ends_is_ended() {
        let (ended, took) = shell("exec sleep 60", 50);
        assert_eq!(ended, Ended::TimedOut);
        assert!(took < GRACE, "{took:?}");
    }

    #[test]
    fn a_process_that_ignores_the_request_is_ended_by_force() {
        let (ended, took) = shell("trap '' TERM; while :; do sleep 0.05; done", 50);
        assert_eq!(ended, Ended::TimedOut);
        assert!(took >= GRACE, "{took:?}");
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let supervision =
            Supervision { label: String::new(), timeout: Duration::ZERO, consoles: Vec::new(), quiet: true };
        assert!(supervise(Command::new("no-such-program-at-all"), supervision).is_err());
    }
}
