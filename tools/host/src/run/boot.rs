//! One boot of the machine, and what is kept of it.

use super::session::{HYPERVISOR_PORT, Port, Session, serial};
use super::{RunOptions, RunReport};
use crate::emulator::{
    Attached, AttachedDevice, Console, Emulator, Ended, InstructionLog, Launch, MachineSpec, Remains, Supervised,
    Supervision, Unfinished, read_lossy, supervise_typing,
};
use crate::itrace::debugger::{Log, LogError, log_from};
use crate::outcome::{Evidence, RunOutcome, judge};
use crate::run_dir::{DEBUG_PORT_FILE, ELF_DIR, INSTRUCTION_LOG, ISO_FILE, RAM_FILE, RunDir, TRACE_FILE, WITNESS_LOG};
use crate::run_info::{RUN_FILE, RunInfo};
use crate::{artifacts, itrace, terminal, witness};
use anyhow::Context;
use std::path::{Path, PathBuf};

/// Everything that differs between a system and a bare payload.
pub(super) struct Boot<'a> {
    pub(super) label: String,
    pub(super) kernel: &'a Path,
    pub(super) module: Option<&'a Path>,
    pub(super) cmdline: &'a str,
    pub(super) pcpus: u16,
    pub(super) memory: u64,
    /// The consoles; the first one tells what the run came to.
    pub(super) ports: Vec<Port>,
    pub(super) end_marker: Option<&'static str>,
    pub(super) open_ended: bool,
    /// Test devices of partitions.
    pub(super) devices: Vec<AttachedDevice>,
    /// The partition that can end the emulator.
    pub(super) exit_owner: Option<&'a str>,
}

impl Boot<'_> {
    /// The log that tells what the run came to.
    fn main_log(&self) -> PathBuf {
        self.ports.iter().find(|port| port.index == HYPERVISOR_PORT).map(|port| port.log.clone()).unwrap_or_default()
    }
}

pub(super) fn boot(
    emulator: &dyn Emulator,
    boot: Boot<'_>,
    elves: &[PathBuf],
    dir: &RunDir,
    options: &RunOptions,
    session: &Session,
) -> anyhow::Result<RunReport> {
    let ram = dir.file(RAM_FILE);
    let words: Vec<&str> =
        [boot.cmdline].into_iter().filter(|words| !words.is_empty()).chain(emulator.option()).collect();
    let spec = MachineSpec {
        pcpus: boot.pcpus,
        memory: boot.memory,
        clock: options.machine.clock(options.clock),
        kernel: boot.kernel,
        module: boot.module,
        cmdline: &words.join(" "),
        serial: serial(&boot.ports),
        ram_file: Some(&ram),
    };
    let witness_log = session.witness.then(|| dir.file(WITNESS_LOG));
    let keyboards = session.keyboards(&boot.ports, dir);
    let instruction_log = dir.file(INSTRUCTION_LOG);
    let logged = if session.instructions { Some(itrace::Logged::of(boot.kernel)?) } else { None };
    // A socket's path has a hundred characters at most.
    let socket_dir = tempfile::tempdir().context("cannot make a directory for the debugger's socket")?;
    let socket = socket_dir.path().join("gdb");
    let log = |logged: &itrace::Logged| InstructionLog { file: &instruction_log, range: logged.text, socket: &socket };
    let instructions = logged.as_ref().map(log);
    let attached =
        Attached { keyboards: &keyboards, devices: &boot.devices, witness: witness_log.as_deref(), instructions };
    emulator.check(&spec, &attached)?;
    RunInfo::new(options.machine, &spec).write(&dir.file(RUN_FILE))?;
    let Launch { command, bridges } = emulator.prepare(&spec, &attached, dir.path())?;
    let main_log = boot.main_log();
    let person = keyboards.iter().find(|keyboard| keyboard.is_terminal());
    if let Some(keyboard) = person {
        let consoles = boot.ports.iter().map(|port| (port.name.as_str(), port.log.as_path()));
        terminal::greet(&keyboard.log, emulator.name(), consoles);
    }
    let shown = boot.ports.iter().filter(|port| session.shows(&port.name));
    let consoles = shown.map(|port| Console::new(&port.name, port.index, &port.log)).collect();
    let supervision = Supervision {
        label: boot.label,
        timeout: options.timeout,
        consoles,
        quiet: options.quiet,
        ignores_sigterm: emulator.ignores_sigterm(),
    };
    let limited_log = Log { path: &instruction_log, max: itrace::LOG_MAX };
    let (supervised, logging) = std::thread::scope(|scope| {
        let debugger = logged
            .as_ref()
            .map(|logged| scope.spawn(|| log_from(&socket, &logged.entries, limited_log, options.timeout)));
        (supervise_typing(command, supervision, &keyboards), debugger.map(|thread| thread.join()))
    });
    let Supervised { ended, unfinished } = supervised.with_context(|| format!("cannot run {}", emulator.name()))?;
    for bridge in bridges {
        bridge.finish().context("a serial port's output is not all in its log")?;
    }

    let console = read_lossy(&main_log);
    if let Some(keyboard) = person {
        terminal::take_leave(&read_lossy(&keyboard.log));
    }
    let exit_code = match ended {
        Ended::Exited(status) => status.code(),
        _ => None,
    };
    let Remains { exit_byte, test_exit, log, damage, why_no_ram } = emulator.remains(&spec, dir.path(), exit_code)?;
    let outcome = judge(&Evidence {
        ended,
        exit_byte,
        guest_exit: boot.exit_owner.zip(test_exit),
        end_marker: boot.end_marker,
        console: &console,
        emulator_log: &log,
        open_ended: boot.open_ended,
        timeout: options.timeout,
    });
    let outcome = unfinished.into_iter().rev().fold(outcome, |outcome, unfinished| {
        let outcome = Box::new(outcome);
        match unfinished {
            Unfinished::Command(untaken) => RunOutcome::CommandUntaken { untaken, outcome },
            Unfinished::Dialogue(unspoken) => RunOutcome::DialogueUnfinished { unspoken, outcome },
        }
    });
    let is_whole = damage.is_empty();
    let outcome = match summary_of(&damage) {
        Some(damage) => RunOutcome::StreamDamaged { damage, outcome: Box::new(outcome) },
        None => outcome,
    };
    let saved = artifacts::save_elves(elves, &dir.file(ELF_DIR)).and_then(|_| {
        if ram.exists() {
            let offset_of = |address| emulator.ram_offset(boot.memory, address);
            artifacts::save_trace(&ram, &offset_of, &console, &dir.file(TRACE_FILE))
        } else {
            let notes = vec![format!("There is no trace: {why_no_ram}.")];
            Ok(artifacts::SavedTrace { regions: 0, notes })
        }
    });
    // RAM is large; whether or not the trace could be saved, it is kept only for who asks for it.
    if !options.keep_ram {
        remove(&ram)?;
        remove(&dir.file(ISO_FILE))?;
        if is_whole {
            remove(&dir.file(DEBUG_PORT_FILE))?;
        }
    }
    match logging {
        // What became of the run is this.
        Some(Ok(Err(error @ LogError::TooLong { .. }))) => return Err(error.into()),
        // What became of the run says more than that it was not logged.
        Some(Ok(result)) if outcome.is_success() => result.context("cannot log instructions")?,
        _ => {}
    }
    let saved = saved?;
    let witness = witness_log.map(|log| (witness::of_run(dir.path()), log));
    if let Some((Ok(_), log)) = &witness {
        remove(log)?;
    }
    let witness = witness.map(|(result, _)| result);
    Ok(RunReport { outcome, dir: dir.path().to_path_buf(), trace: saved, witness })
}

/// Removes a file that need not be there.
fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The first few of many sentences.
fn summary_of(sentences: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let first = sentences.get(..SHOWN).unwrap_or(sentences).join("; ");
    match sentences.len().saturating_sub(SHOWN) {
        _ if sentences.is_empty() => None,
        0 => Some(first),
        more => Some(format!("{first}; and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let of = |count: usize| summary_of(&(1..=count).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(of(0), None);
        assert_eq!(of(3).as_deref(), Some("1; 2; 3"));
        assert_eq!(of(5).as_deref(), Some("1; 2; 3; and 2 more"));
    }
}
