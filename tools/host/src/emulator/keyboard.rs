//! Who types at the serial ports of the machine.

use super::dialogue::{DialogueFeeder, Unspoken};
use super::input_pipe::InputPipe;
use super::script::{ScriptFeeder, ScriptStep, Untaken};
use super::terminal::Terminal;
use crate::dialogue::Dialogue;
use std::io;
use std::path::PathBuf;

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
    /// These steps, one after the other.
    Steps(Vec<ScriptStep>),
}

/// Who types at a serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typist {
    /// A person at standard input, which is a terminal; standard output shows the console. There can be one only.
    Terminal,
    /// A script for the hypervisor's console.
    Script(Vec<ScriptStep>),
    /// A dialogue with the guest that prints at the console of this name.
    Dialogue(String, Dialogue),
}

/// A serial port at which somebody types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyboard {
    /// The port: 0 is COM1.
    pub port: usize,
    /// Where the named pipe is made that the port reads.
    pub pipe: PathBuf,
    /// The log of what the port prints.
    pub log: PathBuf,
    /// Who types.
    pub typist: Typist,
}

impl Keyboard {
    /// Whether a person types.
    pub fn is_terminal(&self) -> bool {
        self.typist == Typist::Terminal
    }
}

/// What was still to be typed, or waited for, when the machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// A command that the hypervisor's console did not take.
    Command(Untaken),
    /// A step of a dialogue.
    Dialogue(Unspoken),
}

/// A typist at work.
#[derive(Debug)]
enum Work {
    Terminal(Terminal),
    Script(ScriptFeeder),
    Dialogue(DialogueFeeder),
}

/// A keyboard in use.
#[derive(Debug)]
pub(super) struct Typing {
    pipe: InputPipe,
    work: Work,
}

impl Typing {
    /// Makes the pipe, which has to be there before the emulator starts, and begins.
    ///
    /// # Errors
    /// The pipe cannot be made.
    pub(super) fn begin(keyboard: &Keyboard) -> io::Result<Self> {
        let pipe = InputPipe::create(&keyboard.pipe)?;
        let log = keyboard.log.as_path();
        let work = match &keyboard.typist {
            Typist::Terminal => Work::Terminal(Terminal::connect(log)),
            Typist::Script(steps) => Work::Script(ScriptFeeder::new(steps, log)),
            Typist::Dialogue(console, dialogue) => Work::Dialogue(DialogueFeeder::new(console, dialogue, log)),
        };
        Ok(Self { pipe, work })
    }

    /// Goes on. Gives true if a person has left.
    pub(super) fn poll(&mut self) -> bool {
        self.pipe.flush();
        match &mut self.work {
            Work::Terminal(terminal) => return terminal.poll(&mut self.pipe),
            Work::Script(script) => script.poll(&mut self.pipe),
            Work::Dialogue(dialogue) => dialogue.poll(&mut self.pipe),
        }
        false
    }

    /// What was not finished. For when the emulator has ended.
    pub(super) fn finish(mut self) -> Option<Unfinished> {
        match self.work {
            Work::Terminal(terminal) => {
                terminal.finish();
                None
            }
            Work::Script(script) => script.finish().map(Unfinished::Command),
            Work::Dialogue(dialogue) => dialogue.finish(&mut self.pipe).map(Unfinished::Dialogue),
        }
    }
}
