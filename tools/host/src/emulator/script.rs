//! A script of commands for the hypervisor's console.

use super::input_pipe::InputPipe;
use super::log_tail::LogTail;
use super::screen::{Screen, is_echo};
use std::path::Path;

/// Bytes of the log that are looked at in one go.
const LOOK_MAX: usize = 1 << 20;

/// A step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptStep {
    /// Types a command when the console waits for one. The step is done when the console has taken it.
    Command(String),
    /// Types the command again and again, until the console shows a line with one of these texts.
    Until {
        /// The command.
        command: String,
        /// The texts.
        texts: Vec<String>,
    },
    /// Waits until the console of this partition has printed a line with this text.
    Await {
        /// The partition's name: its log lies beside the hypervisor's.
        console: String,
        /// The text.
        text: String,
    },
}

impl std::fmt::Display for ScriptStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Command(line) => f.write_str(line),
            Self::Until { command, texts } => write!(f, "{command}, until {}", texts.join(" or ")),
            Self::Await { console, text } => write!(f, "await {text:?} of {console}"),
        }
    }
}

/// A step of a script that was not done before the machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untaken {
    /// The step: of a command the line.
    pub line: String,
    /// Whether it waits for what a console prints.
    pub waits: bool,
    /// Its number, from 1 on.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl std::fmt::Display for Untaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, waits, number, of } = self;
        if *waits {
            return write!(f, "the script waited in vain ({number} of {of}): {line}");
        }
        write!(f, "the console did not take the command {line:?} ({number} of {of}): it showed no prompt for it")
    }
}

/// Goes through the steps of a script, each when the one before it is done. A command is when its echo is in the log; the next
/// one waits for the prompt behind that.
#[derive(Debug)]
pub(super) struct ScriptFeeder {
    steps: Vec<ScriptStep>,
    /// Steps that are done.
    done: usize,
    /// Whether the command of the step was typed, and its echo not seen yet.
    is_typed: bool,
    log: LogTail,
    screen: Screen,
    /// The log that a step waits for, and its line so far.
    awaited: Option<(LogTail, Screen)>,
}

impl ScriptFeeder {
    /// A feeder of the console whose log is at `log`.
    pub(super) fn new(steps: &[ScriptStep], log: &Path) -> Self {
        let (log, screen) = (LogTail::new(log), Screen::default());
        Self { steps: steps.to_vec(), done: 0, is_typed: false, log, screen, awaited: None }
    }

    /// Reads what is new in the logs, and types the next command if the console waits for it.
    pub(super) fn poll(&mut self, pipe: &mut InputPipe) {
        self.read_log();
        if self.is_typed || !self.screen.at_prompt() {
            return;
        }
        let command = match self.steps.get(self.done) {
            Some(ScriptStep::Command(command) | ScriptStep::Until { command, .. }) => command,
            _ => return,
        };
        pipe.push(format!("{command}\r").as_bytes());
        self.is_typed = true;
    }

    /// The first step that was not done. For when the emulator has ended.
    pub(super) fn finish(mut self) -> Option<Untaken> {
        while self.read_log() {}
        let step = self.steps.get(self.done)?;
        let waits = !matches!(step, ScriptStep::Command(_));
        Some(Untaken { line: step.to_string(), waits, number: self.done + 1, of: self.steps.len() })
    }

    /// Whether there was anything new.
    fn read_log(&mut self) -> bool {
        let bytes = self.log.read(LOOK_MAX);
        for &byte in &bytes {
            let Some(line) = self.screen.push(byte) else { continue };
            let is_done = match self.steps.get(self.done) {
                Some(ScriptStep::Command(command)) => self.is_typed && is_echo(&line.text, command),
                Some(ScriptStep::Until { command, texts }) => {
                    if self.is_typed && is_echo(&line.text, command) {
                        self.is_typed = false;
                    }
                    texts.iter().any(|text| line.text.contains(text))
                }
                Some(ScriptStep::Await { .. }) | None => false,
            };
            if is_done {
                self.done += 1;
                self.is_typed = false;
            }
        }
        !bytes.is_empty() | self.read_awaited()
    }

    /// The same of the log that the step waits for, if it does.
    fn read_awaited(&mut self) -> bool {
        let Some(ScriptStep::Await { console, text }) = self.steps.get(self.done) else { return false };
        let path = self.log.path().with_file_name(format!("{console}.log"));
        let (log, screen) = self.awaited.get_or_insert_with(|| (LogTail::new(path), Screen::default()));
        let bytes = log.read(LOOK_MAX);
        if bytes.iter().filter_map(|byte| screen.push(*byte)).any(|line| line.text.contains(text)) {
            self.done += 1;
            self.awaited = None;
        }
        !bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};

    /// A feeder, the log that it reads, and what it typed.
    struct Desk {
        dir: tempfile::TempDir,
        pipe: InputPipe,
        feeder: ScriptFeeder,
    }

    impl Desk {
        fn new(steps: &[ScriptStep]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let pipe = InputPipe::create(&dir.path().join("in")).unwrap();
            let feeder = ScriptFeeder::new(steps, &dir.path().join("hypervisor.log"));
            Self { dir, pipe, feeder }
        }

        /// A console prints this; gives what is typed then.
        fn prints(&mut self, console: &str, text: &str) -> String {
            let log = self.dir.path().join(format!("{console}.log"));
            OpenOptions::new().create(true).append(true).open(log).unwrap().write_all(text.as_bytes()).unwrap();
            // Twice: nothing is typed for one state of the logs a second time.
            self.feeder.poll(&mut self.pipe);
            self.feeder.poll(&mut self.pipe);
            if self.pipe.is_taken() {
                return String::new();
            }
            let mut bytes = [0; 100];
            let len = File::open(self.dir.path().join("in")).unwrap().read(&mut bytes).unwrap();
            String::from_utf8(bytes[..len].to_vec()).unwrap()
        }
    }

    fn steps() -> Vec<ScriptStep> {
        let texts = vec!["finished".to_owned(), "stopped".to_owned()];
        vec![
            ScriptStep::Await { console: "rt0".into(), text: "ready".into() },
            ScriptStep::Until { command: "partitions".into(), texts },
            ScriptStep::Command("quit".into()),
        ]
    }

    #[test]
    fn a_step_waits_for_a_line_of_another_console_or_for_an_answer() {
        let mut desk = Desk::new(&steps());
        assert_eq!(desk.prints("hypervisor", "boot\npartita> "), "");
        assert_eq!(desk.prints("rt0", "it is rea"), "");
        // What another console prints is not waited for.
        assert_eq!(desk.prints("rt1", "ready\n"), "");
        assert_eq!(desk.prints("rt0", "dy\nmore"), "partitions\r");
        assert_eq!(desk.prints("hypervisor", "partitions\r\nrt0 running\n"), "");
        assert_eq!(desk.prints("hypervisor", "partita> "), "partitions\r");
        assert_eq!(desk.prints("hypervisor", "partitions\r\nrt0 stopped\n"), "");
        assert_eq!(desk.prints("hypervisor", "partita> "), "quit\r");
        assert_eq!(desk.prints("hypervisor", "quit\r\n"), "");
        assert_eq!(desk.feeder.finish(), None);
    }

    #[test]
    fn the_first_step_that_is_not_done_is_named() {
        let desk = Desk::new(&steps());
        let untaken = |desk: Desk| desk.feeder.finish().unwrap();
        assert_eq!(untaken(desk), Untaken { line: "await \"ready\" of rt0".into(), waits: true, number: 1, of: 3 });
        let mut desk = Desk::new(&steps());
        desk.prints("rt0", "ready\n");
        // What came in too late for a command is seen.
        let late = Untaken { line: "partitions, until finished or stopped".into(), waits: true, number: 2, of: 3 };
        assert_eq!(untaken(desk), late);
    }
}
