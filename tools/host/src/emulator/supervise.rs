//! Watching over a process until it ends, its time is up, or the user interrupts.

use super::keyboard::{Keyboard, Typing, Unfinished};
use super::painter::Painter;
use super::{Console, Shown};
use crate::progress::Step;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often consoles and process are looked at.
const POLL: Duration = Duration::from_millis(10);
/// The same while somebody types.
const POLL_TYPING: Duration = Duration::from_millis(2);
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

/// What became of a supervision with keyboards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supervised {
    /// How it ended.
    pub ended: Ended,
    /// What was still to be typed, at each keyboard.
    pub unfinished: Vec<Unfinished>,
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
    /// Do not ask the process to terminate before it is ended by force: it would not.
    pub ignores_sigterm: bool,
}

/// Ends and reaps the process on every way out.
struct Reaper {
    child: Child,
    ignores_sigterm: bool,
}

impl Reaper {
    /// Asks the process to end, waits, and ends it by force if it does not.
    fn end(&mut self) {
        if !self.ignores_sigterm {
            self.ask();
        }
        // Both fail only for a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn ask(&mut self) {
        // The process is not reaped before `try_wait` says so, so its ID is still its own.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && matches!(self.child.try_wait(), Ok(None))
        {
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + GRACE;
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
        }
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
pub fn supervise(command: Command, supervision: Supervision) -> std::io::Result<Ended> {
    Ok(supervise_typing(command, supervision, &[])?.ended)
}

/// The same with somebody at these keyboards, whose pipes the command reads. While a person types at one, the terminal shows
/// nothing but that console, and is restored at the end; a person who leaves interrupts the run.
///
/// # Errors
/// The process cannot be started or waited for, or a keyboard cannot be made.
pub fn supervise_typing(
    mut command: Command,
    supervision: Supervision,
    keyboards: &[Keyboard],
) -> std::io::Result<Supervised> {
    catch_interrupts();
    let Supervision { label, timeout, mut consoles, quiet, ignores_sigterm } = supervision;
    let has_terminal = keyboards.iter().any(Keyboard::is_terminal);
    let mut typing = keyboards.iter().map(Typing::begin).collect::<std::io::Result<Vec<_>>>()?;
    let step = (!has_terminal).then(|| Step::start(label));
    let painter = Painter::of_stdout();
    let mut show = |lines: fn(&mut Console, Instant) -> Vec<Shown>| {
        let now = Instant::now();
        for line in consoles.iter_mut().flat_map(|console| lines(console, now)).filter(|_| !quiet) {
            step.iter().for_each(|step| step.println(&painter.line(&line)));
        }
    };
    let pause = if keyboards.is_empty() { POLL } else { POLL_TYPING };
    let started = Instant::now();
    let mut process = Reaper { child: command.spawn()?, ignores_sigterm };
    let ended = loop {
        if let Some(status) = process.child.try_wait()? {
            // A terminal sends its Ctrl-C to the process, too.
            break if interrupted() { Ended::Interrupted } else { Ended::Exited(status) };
        }
        // All get their turn.
        let has_left = typing.iter_mut().filter_map(|typing| typing.poll().then_some(())).count() > 0;
        if interrupted() || has_left {
            break Ended::Interrupted;
        }
        if started.elapsed() >= timeout {
            break Ended::TimedOut;
        }
        show(Console::poll);
        std::thread::sleep(pause);
    };
    process.end();
    show(Console::finish);
    Ok(Supervised { ended, unfinished: typing.into_iter().filter_map(Typing::finish).collect() })
}

/// From the first call on, Ctrl-C and requests to terminate are noted and do not end the tool.
fn catch_interrupts() {
    static CAUGHT: OnceLock<bool> = OnceLock::new();
    CAUGHT.get_or_init(|| ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).is_ok());
}

#[cfg(test)]
mod tests {
    use super::super::{ScriptStep, Typist, Untaken};
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
            ignores_sigterm: false,
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
    fn a_process_that_is_known_to_ignore_it_is_not_asked() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; while :; do sleep 0.05; done"]);
        let supervision = Supervision {
            label: "test".into(),
            timeout: Duration::from_millis(50),
            consoles: Vec::new(),
            quiet: true,
            ignores_sigterm: true,
        };
        let started = Instant::now();
        assert_eq!(supervise(command, supervision).unwrap(), Ended::TimedOut);
        assert!(started.elapsed() < GRACE);
    }

    /// A console that echoes, and answers a command by two lines; one of them tells what it was.
    const CONSOLE: &str = "printf 'boot\\npartita> '; while IFS= read -r -d '\r' line; do \
         printf '%s\\r\\n' \"$line\"; sleep 0.02; printf 'doing %s\\npartita> \\ndone\\n' \"$line\"; \
         [ \"$line\" = end ] && exit 3; printf 'partita> '; done";

    /// How it ended, the first line that was not taken, and the log.
    fn script(console: &str, lines: &[&str], timeout_ms: u64) -> (Ended, Option<Untaken>, String) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("console.log");
        let pipe = dir.path().join("console.in");
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec > '{}' < '{}'; {console}", log.display(), pipe.display())]);
        let supervision = Supervision {
            label: "test".into(),
            timeout: Duration::from_millis(timeout_ms),
            consoles: Vec::new(),
            quiet: true,
            ignores_sigterm: false,
        };
        let steps = lines.iter().map(|line| ScriptStep::Command((*line).to_owned()));
        let typist = Typist::Script(steps.collect());
        let keyboard = Keyboard { port: 0, pipe, log: log.clone(), typist };
        let Supervised { ended, unfinished } = supervise_typing(command, supervision, &[keyboard]).unwrap();
        let untaken = match &unfinished[..] {
            [] => None,
            [Unfinished::Command(untaken)] => Some(untaken.clone()),
            _ => panic!("{unfinished:?}"),
        };
        (ended, untaken, std::fs::read_to_string(&log).unwrap())
    }

    #[test]
    fn a_script_is_sent_line_by_line() {
        let (ended, untaken, log) = script(CONSOLE, &["one two", "3", "end"], 20_000);
        assert_eq!((ended, untaken), (Ended::Exited(ExitStatus::from_raw(3 << 8)), None), "{log}");
        let answer = |line| super::super::answers(log.as_bytes(), line, 0);
        assert_eq!(answer("one two"), Some(vec!["doing one two".to_owned()]), "{log}");
        // A line that was sent before the last one was done would be echoed in the midst of it.
        let expected = "boot\npartita> one two\r\ndoing one two\npartita> \ndone\npartita> 3\r\ndoing 3\npartita> \ndone\n\
                        partita> end\r\ndoing end\npartita> \ndone\n";
        assert_eq!(log, expected);
    }

    #[test]
    fn the_first_line_that_is_not_taken_is_named() {
        let (ended, untaken, log) = script(CONSOLE, &["end", "more", "most"], 20_000);
        assert!(matches!(ended, Ended::Exited(_)), "{log}");
        assert_eq!(untaken, Some(Untaken { line: "more".into(), waits: false, number: 2, of: 3 }), "{log}");
        // No prompt at the start of a line, or no echo.
        for console in ["printf 'x partita> '; exec sleep 60", "printf 'partita> '; exec sleep 60"] {
            let (ended, untaken, _) = script(console, &["help"], 200);
            assert_eq!(ended, Ended::TimedOut);
            let words = untaken.unwrap().to_string();
            assert!(words.contains("the command \"help\" (1 of 1)"), "{words}");
        }
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let supervision = Supervision {
            label: String::new(),
            timeout: Duration::ZERO,
            consoles: Vec::new(),
            quiet: true,
            ignores_sigterm: false,
        };
        assert!(supervise(Command::new("no-such-program-at-all"), supervision).is_err());
    }
}
