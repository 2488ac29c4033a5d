//! Who takes part in a run from outside.

use super::RunOptions;
use crate::dialogue::Dialogue;
use crate::emulator::{Clock, ConsoleInput, Emulator, Keyboard, SERIAL_PORTS, ScriptStep, Typist};
use crate::run_dir::RunDir;
use std::io::IsTerminal;
use std::path::PathBuf;

/// What people call the hypervisor's console.
pub const HYPERVISOR: &str = "hypervisor";
/// The serial port of the hypervisor's console.
pub(super) const HYPERVISOR_PORT: usize = 0;

/// Who takes part in a run from outside.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// What the hypervisor's console reads.
    pub input: ConsoleInput,
    /// The partition at whose console the person at this terminal is. Not together with [`ConsoleInput::Terminal`].
    pub terminal: Option<String>,
    /// Dialogues at the consoles of partitions, by name.
    pub dialogues: Vec<(String, Dialogue)>,
    /// The consoles that are shown, by name, of which one is [`HYPERVISOR`]; all if `None`.
    pub shown: Option<Vec<String>>,
    /// Compare the trace with the emulator's own log of exits. Takes [`Clock::Icount`]: the emulator's threads would not
    /// write their log in the order of time.
    pub witness: bool,
    /// Log the instructions that what boots executes, in [`INSTRUCTION_LOG`](crate::run_dir::INSTRUCTION_LOG), for
    /// [`crate::itrace`]. Takes [`Clock::Icount`], and is not together with a witness.
    pub instructions: bool,
}

/// A console of the machine that is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// What people call it.
    pub(super) name: String,
    /// Its number: 0 is COM1.
    pub(super) index: usize,
    /// Where its output goes.
    pub(super) log: PathBuf,
}

impl Session {
    /// Whether a person at a terminal takes part.
    pub fn has_terminal(&self) -> bool {
        self.input == ConsoleInput::Terminal || self.terminal.is_some()
    }

    pub(super) fn check(&self, options: &RunOptions) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.witness || options.clock == Clock::Icount,
            "a witness needs a machine in which one pCPU runs at a time; add --icount"
        );
        anyhow::ensure!(
            !self.instructions || (options.clock == Clock::Icount && !self.witness),
            "a log of instructions needs a machine in which one pCPU runs at a time, and no witness; use the icount clock"
        );
        anyhow::ensure!(
            self.input != ConsoleInput::Terminal || self.terminal.is_none(),
            "this terminal can be at one console only; give the hypervisor's commands in a file, with --commands"
        );
        anyhow::ensure!(
            !self.has_terminal() || std::io::stdin().is_terminal(),
            "standard input is not a terminal; give what is to be typed in a file, with --commands or --type"
        );
        Ok(())
    }

    /// Whether the lines of this console are shown.
    pub(super) fn shows(&self, console: &str) -> bool {
        self.shown.as_ref().is_none_or(|shown| shown.iter().any(|name| name == console))
    }

    /// Checks that what is said of consoles fits those that there are.
    pub(super) fn check_consoles(&self, ports: &[Port]) -> anyhow::Result<()> {
        for name in self.shown.iter().flatten() {
            anyhow::ensure!(find(ports, name).is_some(), "no console is called {name:?}, {}", there_are(ports));
        }
        let typed = self.terminal.iter().chain(self.dialogues.iter().map(|(name, _)| name));
        let mut seen: Vec<&str> = Vec::new();
        for name in typed {
            anyhow::ensure!(
                name != HYPERVISOR,
                "a dialogue is for a partition; give the hypervisor's commands in a file, with --commands"
            );
            anyhow::ensure!(
                find(ports, name).is_some(),
                "no partition with a console is called {name:?}, {}",
                there_are(ports)
            );
            anyhow::ensure!(!seen.contains(&name.as_str()), "two are to type at the console of {name}; leave one out");
            seen.push(name);
        }
        Ok(())
    }

    /// The keyboards at these consoles.
    pub(super) fn keyboards(&self, ports: &[Port], dir: &RunDir) -> Vec<Keyboard> {
        let of_hypervisor = match &self.input {
            ConsoleInput::None => None,
            ConsoleInput::Terminal => Some((HYPERVISOR, Typist::Terminal)),
            ConsoleInput::Script(lines) => {
                let steps = lines.iter().cloned().map(ScriptStep::Command).collect();
                Some((HYPERVISOR, Typist::Script(steps)))
            }
            ConsoleInput::Steps(steps) => Some((HYPERVISOR, Typist::Script(steps.clone()))),
        };
        let terminal = self.terminal.iter().map(|name| (name.as_str(), Typist::Terminal));
        let dialogue = |(name, dialogue): &(String, Dialogue)| Typist::Dialogue(name.clone(), dialogue.clone());
        let dialogues = self.dialogues.iter().map(|entry| (entry.0.as_str(), dialogue(entry)));
        let typists = of_hypervisor.into_iter().chain(terminal).chain(dialogues);
        let keyboard = |(name, typist): (&str, Typist)| {
            let port = find(ports, name)?;
            Some(Keyboard { port: port.index, pipe: dir.input(port.index), log: port.log.clone(), typist })
        };
        typists.filter_map(keyboard).collect()
    }
}

/// Where the output of each serial port goes.
pub(super) fn serial(ports: &[Port]) -> [Option<PathBuf>; SERIAL_PORTS] {
    let mut serial = [const { None }; SERIAL_PORTS];
    for port in ports {
        if let Some(place) = serial.get_mut(port.index) {
            *place = Some(port.log.clone());
        }
    }
    serial
}

/// Checks that the emulator's machine can have these consoles.
pub(super) fn check_ports(emulator: &dyn Emulator, ports: &[Port]) -> anyhow::Result<()> {
    let there = emulator.serial_ports();
    if let Some(Port { name, index, .. }) = ports.iter().find(|port| port.index >= there) {
        let emulator = emulator.name();
        anyhow::bail!(
            "the console of partition {name:?} is COM{}, but {emulator} has COM1 to COM{there} only; say \
             `console = \"none\"` for the partitions that need none",
            index + 1
        );
    }
    Ok(())
}

fn find<'p>(ports: &'p [Port], name: &str) -> Option<&'p Port> {
    ports.iter().find(|port| port.name == name)
}

fn there_are(ports: &[Port]) -> String {
    format!("there are: {}", ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::Qemu;

    fn ports() -> Vec<Port> {
        [(HYPERVISOR, 0), ("rt0", 1), ("linux", 3)]
            .map(|(name, index)| Port { name: name.into(), index, log: format!("d/{name}.log").into() })
            .to_vec()
    }

    fn at(name: &str) -> (String, Dialogue) {
        (name.into(), Dialogue::new().expect("x"))
    }

    #[test]
    fn consoles_that_are_not_there_are_refused_by_name() {
        let check = |session: Session| session.check_consoles(&ports()).map_err(|error| error.to_string());
        let shown = |name: &str| Session { shown: Some(vec![name.into()]), ..Session::default() };
        assert_eq!(check(shown("rt0")), Ok(()));
        assert_eq!(check(shown(HYPERVISOR)), Ok(()));
        let error = check(shown("rt1")).unwrap_err();
        assert_eq!(error, "no console is called \"rt1\", there are: hypervisor, rt0, linux");
        let typed = |names: &[&str], terminal: Option<&str>| {
            let dialogues = names.iter().map(|name| at(name)).collect();
            check(Session { dialogues, terminal: terminal.map(str::to_owned), ..Session::default() })
        };
        assert_eq!(typed(&["rt0"], Some("linux")), Ok(()));
        assert!(typed(&["rt1"], None).unwrap_err().contains("\"rt1\", there are"));
        assert!(typed(&[HYPERVISOR], None).unwrap_err().contains("--commands"));
        assert!(typed(&["rt0", "rt0"], None).unwrap_err().contains("console of rt0"));
        assert!(typed(&["rt0"], Some("rt0")).unwrap_err().contains("console of rt0"));
    }

    #[test]
    fn a_console_that_the_machine_cannot_have_is_refused_by_name() {
        let port = |index| [Port { name: "p9".into(), index, log: PathBuf::new() }];
        assert!(check_ports(&Qemu, &port(7)).is_ok());
        let error = check_ports(&Qemu, &port(8)).unwrap_err().to_string();
        assert!(error.contains("\"p9\" is COM9, but QEMU has COM1 to COM8 only"), "{error}");
    }

    #[test]
    fn each_keyboard_is_at_its_port() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir::prepare(root.path()).unwrap();
        let input = ConsoleInput::Script(vec!["help".into()]);
        let session = Session { input, dialogues: vec![at("linux"), at("rt0")], ..Session::default() };
        let keyboards = session.keyboards(&ports(), &dir);
        let found: Vec<_> = keyboards.iter().map(|keyboard| (keyboard.port, keyboard.log.to_str().unwrap())).collect();
        assert_eq!(found, [(0, "d/hypervisor.log"), (3, "d/linux.log"), (1, "d/rt0.log")]);
        assert!(Session::default().keyboards(&ports(), &dir).is_empty());
        assert_eq!(serial(&ports())[3].as_deref(), Some("d/linux.log".as_ref()));
        assert_eq!(serial(&ports())[2], None);
    }

    #[test]
    fn what_is_shown_is_all_or_what_is_named() {
        let named = Session { shown: Some(vec!["rt0".into()]), ..Session::default() };
        assert_eq!(["rt0", HYPERVISOR].map(|name| named.shows(name)), [true, false]);
        assert!(Session::default().shows(HYPERVISOR));
    }
}
