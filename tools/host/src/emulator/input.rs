//! What the machine's first serial port reads: nothing, a person's terminal, or a script of commands.

use super::screen::{Screen, is_echo};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Bytes of the log that are read at once.
const CHUNK: usize = 64 << 10;

/// Where the input of the hypervisor's console comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConsoleInput {
    /// There is none.
    #[default]
    None,
    /// From standard input, which is a terminal; standard output shows the console.
    Terminal,
    /// These lines, each when the console waits for a command.
    Script(Vec<String>),
}

impl ConsoleInput {
    /// Connects standard input and output of an emulator that is about to start; neither, if there is no input.
    pub(super) fn connect(&self, command: &mut Command) {
        match self {
            Self::None => {}
            Self::Terminal => {
                command.stdin(Stdio::inherit()).stdout(Stdio::inherit());
            }
            // What the console prints is in its log.
            Self::Script(_) => {
                command.stdin(Stdio::piped()).stdout(Stdio::null());
            }
        }
    }
}

/// A line of a script that the console did not take before the machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untaken {
    /// The line.
    pub line: String,
    /// Its number, from 1 on.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl std::fmt::Display for Untaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, number, of } = self;
        write!(f, "the console did not take the command {line:?} ({number} of {of}): it showed no prompt for it")
    }
}

/// Sends the lines of a script, each when the one before it is done: its echo is in the log, and a prompt behind that.
#[derive(Debug)]
pub(super) struct ScriptFeeder {
    lines: Vec<String>,
    /// Lines that were sent.
    sent: usize,
    /// Lines whose echo was seen.
    echoed: usize,
    log: PathBuf,
    file: Option<File>,
    screen: Screen,
    /// Stays open until the emulator ends: it may take the end of its input for a reason to do something.
    stdin: Option<ChildStdin>,
}

impl ScriptFeeder {
    /// A feeder of `child`, whose console's log is at `log`; `None` if there is no script.
    pub(super) fn new(input: &ConsoleInput, log: &Path, child: &mut Child) -> Option<Self> {
        let ConsoleInput::Script(lines) = input else { return None };
        Some(Self {
            lines: lines.clone(),
            sent: 0,
            echoed: 0,
            log: log.to_path_buf(),
            file: None,
            screen: Screen::default(),
            stdin: child.stdin.take(),
        })
    }

    /// Reads what is new in the log, and sends the next line if the console waits for it.
    pub(super) fn poll(&mut self) {
        self.read_log();
        if self.sent > self.echoed || !self.screen.at_prompt() {
            return;
        }
        let (Some(line), Some(stdin)) = (self.lines.get(self.sent), self.stdin.as_mut()) else { return };
        // A line is far shorter than a pipe's buffer, so that this does not wait. It fails if the emulator has just
        // ended, and then the line was not taken.
        if stdin.write_all(format!("{line}\r").as_bytes()).and_then(|()| stdin.flush()).is_ok() {
            self.sent += 1;
        } else {
            self.stdin = None;
        }
    }

    /// The first line that the console did not take. For when the emulator has ended.
    pub(super) fn finish(mut self) -> Option<Untaken> {
        self.read_log();
        let line = self.lines.get(self.echoed)?.clone();
        Some(Untaken { line, number: self.echoed + 1, of: self.lines.len() })
    }

    fn read_log(&mut self) {
        if self.file.is_none() {
            self.file = File::open(&self.log).ok();
        }
        let mut chunk = vec![0; CHUNK];
        // An error is treated like the end of the file: no prompt is seen then.
        while let Some(read) = self.file.as_mut().and_then(|file| file.read(&mut chunk).ok())
            && read > 0
        {
            for &byte in chunk.iter().take(read) {
                let Some(line) = self.screen.push(byte) else { continue };
                let awaited = self.lines.get(self.echoed).filter(|_| self.sent > self.echoed);
                if awaited.is_some_and(|awaited| is_echo(&line.text, awaited)) {
                    self.echoed += 1;
                }
            }
        }
    }
}

/// The state of the terminal, which is restored when this is dropped: an emulator that is ended by force cannot do it.
#[derive(Debug)]
pub(super) struct TerminalGuard {
    modes: Option<Termios>,
    flags: Option<OFlags>,
}

impl TerminalGuard {
    /// Keeps the state of the terminal at standard input; `None` if that is not where input comes from.
    pub(super) fn new(input: &ConsoleInput) -> Option<Self> {
        let stdin = io::stdin();
        (*input == ConsoleInput::Terminal)
            .then(|| Self { modes: tcgetattr(&stdin).ok(), flags: fcntl_getfl(&stdin).ok() })
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        let stdin = io::stdin();
        // Both fail only where the terminal is gone.
        if let Some(flags) = self.flags {
            let _ = fcntl_setfl(&stdin, flags);
        }
        if let Some(modes) = &self.modes {
            let _ = tcsetattr(&stdin, OptionalActions::Flush, modes);
        }
    }
}
