//! A script of commands for the hypervisor's console.

use super::input_pipe::InputPipe;
use super::log_tail::LogTail;
use super::screen::{Screen, is_echo};
use std::path::Path;

/// Bytes of the log that are looked at in one go.
const LOOK_MAX: usize = 1 << 20;

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
    log: LogTail,
    screen: Screen,
}

impl ScriptFeeder {
    /// A feeder of the console whose log is at `log`.
    pub(super) fn new(lines: &[String], log: &Path) -> Self {
        Self { lines: lines.to_vec(), sent: 0, echoed: 0, log: LogTail::new(log), screen: Screen::default() }
    }

    /// Reads what is new in the log, and sends the next line if the console waits for it.
    pub(super) fn poll(&mut self, pipe: &mut InputPipe) {
        self.read_log();
        if self.sent > self.echoed || !self.screen.at_prompt() {
            return;
        }
        if let Some(line) = self.lines.get(self.sent) {
            pipe.push(format!("{line}\r").as_bytes());
            self.sent += 1;
        }
    }

    /// The first line that the console did not take. For when the emulator has ended.
    pub(super) fn finish(mut self) -> Option<Untaken> {
        while self.read_log() {}
        let line = self.lines.get(self.echoed)?.clone();
        Some(Untaken { line, number: self.echoed + 1, of: self.lines.len() })
    }

    /// Whether there was anything new.
    fn read_log(&mut self) -> bool {
        let bytes = self.log.read(LOOK_MAX);
        for &byte in &bytes {
            let Some(line) = self.screen.push(byte) else { continue };
            let awaited = self.lines.get(self.echoed).filter(|_| self.sent > self.echoed);
            if awaited.is_some_and(|awaited| is_echo(&line.text, awaited)) {
                self.echoed += 1;
            }
        }
        !bytes.is_empty()
    }
}
