//! One boot of the machine, and what is kept of it.

use super::session::{HYPERVISOR_PORT, Port, Session, serial};
use super::{RunOptions, RunReport};
use crate::emulator::{
    Attached, AttachedDevice, Console, Emulator, Ended, MachineSpec, Supervised, Supervision, Unfinished,
    supervise_typing,
};
use crate::outcome::{Evidence, RunOutcome, judge};
use crate::run_dir::{ELF_DIR, EMULATOR_LOG, RAM_FILE, RunDir, TRACE_FILE, WITNESS_LOG};
use crate::run_info::{RUN_FILE, RunInfo};
use crate::{artifacts, terminal, witness};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Stdio;

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
    let spec = MachineSpec {
        pcpus: boot.pcpus,
        memory: boot.memory,
        clock: options.clock,
        kernel: boot.kernel,
        module: boot.module,
        cmdline: boot.cmdline,
        serial: serial(&boot.ports),
        ram_file: Some(&ram),
    };
    RunInfo::new(emulator.name(), &spec).write(&dir.file(RUN_FILE))?;
    let log_path = dir.file(EMULATOR_LOG);
    let log = std::fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let witness_log = session.witness.then(|| dir.file(WITNESS_LOG));
    let keyboards = session.keyboards(&boot.ports, dir);
    let attached = Attached { keyboards: &keyboards, devices: &boot.devices, witness: witness_log.as_deref() };
    let mut command = emulator.command_attached(&spec, &attached);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let main_log = boot.main_log();
    let person = keyboards.iter().find(|keyboard| keyboard.is_terminal());
    if let Some(keyboard) = person {
        let consoles = boot.ports.iter().map(|port| (port.name.as_str(), port.log.as_path()));
        terminal::greet(&keyboard.log, emulator.name(), consoles);
    }
    let shown = boot.ports.iter().filter(|port| session.shows(&port.name));
    let consoles = shown.map(|port| Console::new(&port.name, port.index, &port.log)).collect();
    let supervision = Supervision { label: boot.label, timeout: options.timeout, consoles, quiet: options.quiet };
    let supervised = supervise_typing(command, supervision, &keyboards);
    let Supervised { ended, unfinished } = supervised.with_context(|| format!("cannot run {}", emulator.name()))?;

    let console = read_log(&main_log);
    if let Some(keyboard) = person {
        terminal::take_leave(&read_log(&keyboard.log));
    }
    let exit_code = match ended {
        Ended::Exited(status) => status.code(),
        _ => None,
    };
    let outcome = judge(&Evidence {
        ended,
        exit_byte: exit_code.and_then(|code| emulator.exit_byte(code)),
        guest_exit: boot.exit_owner.zip(exit_code.and_then(|code| emulator.test_exit_value(code))),
        end_marker: boot.end_marker,
        console: &console,
        emulator_log: &read_log(&log_path),
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
    let saved = save(emulator, elves, dir, &ram, boot.memory, &console);
    // RAM is large; whether or not the trace could be saved, it is kept only for who asks for it.
    if !options.keep_ram {
        remove(&ram)?;
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

fn save(
    emulator: &dyn Emulator,
    elves: &[PathBuf],
    dir: &RunDir,
    ram: &Path,
    memory: u64,
    console: &str,
) -> anyhow::Result<artifacts::SavedTrace> {
    let elf_dir = dir.file(ELF_DIR);
    artifacts::save_elves(elves, &elf_dir)?;
    if !ram.exists() {
        let notes = vec![format!("{} did not start: there is no trace.", emulator.name())];
        return Ok(artifacts::SavedTrace { regions: 0, notes });
    }
    let offset_of = |address| emulator.ram_offset(memory, address);
    artifacts::save_trace(ram, &offset_of, console, &dir.file(TRACE_FILE))
}

/// What a guest printed; nothing, if there is no log.
fn read_log(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
