//! Running a system, or a bare payload, in an emulator: from images to a verdict and a saved trace.

use crate::emulator::{
    Attached, Clock, Console, ConsoleInput, Emulator, Ended, MachineSpec, Qemu, SERIAL_PORTS, Supervised, Supervision,
    supervise_with_input,
};
use crate::outcome::{EXIT_RUN_FAILED, Evidence, RunOutcome, judge};
use crate::run_dir::{
    BUNDLE_FILE, ELF_DIR, EMULATOR_LOG, HYPERVISOR_LOG, PAYLOAD_LOG, RAM_FILE, RunDir, SYSTEM_FILE, TRACE_FILE,
    WITNESS_LOG,
};
use crate::run_info::{RUN_FILE, RunInfo};
use crate::system_file::{SystemFile, human};
use crate::{artifacts, assemble, bundle, cargo_build, system_file, terminal, witness};
use anyhow::Context;
use partita_abi::report::{END_MARKER, PAYLOAD_END_MARKER};
use partita_core::system::SerialPort;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// RAM of the machine beyond what partitions and bundle take, where the system file does not say how much.
const MEMORY_SPARE: u64 = 128 << 20;
/// Granule of that RAM.
const MEMORY_STEP: u64 = 64 << 20;

/// How to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// How time passes in the machine.
    pub clock: Clock,
    /// How long the machine may run, in time of the host.
    pub timeout: Duration,
    /// Where logs and trace go.
    pub out_dir: PathBuf,
    /// The hypervisor's ELF file, instead of the one that is built.
    pub hypervisor: Option<PathBuf>,
    /// Keep the file that was the machine's RAM.
    pub keep_ram: bool,
    /// Do not show the consoles.
    pub quiet: bool,
}

/// Who takes part in a run from outside.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// What the hypervisor's console reads.
    pub input: ConsoleInput,
    /// Compare the trace with the emulator's own log of exits. Takes [`Clock::Icount`]: the emulator's threads would not
    /// write their log in the order of time.
    pub witness: bool,
}

impl Session {
    fn check(&self, options: &RunOptions) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.witness || options.clock == Clock::Icount,
            "a witness needs a machine in which one pCPU runs at a time; add --icount"
        );
        anyhow::ensure!(
            self.input != ConsoleInput::Terminal || std::io::stdin().is_terminal(),
            "standard input is not a terminal; give the console's commands in a file, with --commands"
        );
        Ok(())
    }
}

/// What a run left.
#[derive(Debug)]
pub struct RunReport {
    /// What it came to.
    pub outcome: RunOutcome,
    /// Where logs and trace are.
    pub dir: PathBuf,
    /// What was saved of the trace.
    pub trace: artifacts::SavedTrace,
    /// What the emulator's own log says about the trace, if that was asked for.
    pub witness: Option<Result<witness::Agreement, witness::WitnessError>>,
}

impl RunReport {
    /// The exit code of the tool.
    pub fn exit_code(&self) -> u8 {
        if matches!(self.witness, Some(Err(_))) { EXIT_RUN_FAILED } else { self.outcome.exit_code() }
    }
}

/// A payload to be booted without a hypervisor.
#[derive(Clone, Debug)]
pub struct BareRun<'a> {
    /// Its ELF file, or a Linux kernel.
    pub kernel: &'a Path,
    /// Its only module, if any.
    pub module: Option<&'a Path>,
    /// Its command line.
    pub cmdline: &'a str,
    /// pCPUs of the machine.
    pub pcpus: u16,
    /// RAM of the machine in bytes.
    pub memory: u64,
    /// Whether it ends its console with [`PAYLOAD_END_MARKER`], as Partita's own payloads do.
    pub has_end_marker: bool,
}

/// Builds what `system` needs and runs it.
///
/// # Errors
/// It could not be run: bad input, or a machine that is not set up. What a run that took place came to is in the report.
pub fn run_system(system: &SystemFile, options: &RunOptions) -> anyhow::Result<RunReport> {
    run_system_in(system, options, &Session::default())
}

/// The same with somebody at the hypervisor's console, or with a witness.
///
/// # Errors
/// It could not be run.
pub fn run_system_in(system: &SystemFile, options: &RunOptions, session: &Session) -> anyhow::Result<RunReport> {
    session.check(options)?;
    assemble::check(system)?;
    let emulator = Qemu;
    emulator.probe()?;
    if let Some(path) = &options.hypervisor {
        anyhow::ensure!(path.is_file(), "no hypervisor at {}; check the path given with --hv", path.display());
    }
    let dir = RunDir::prepare(&options.out_dir)?;
    let hypervisor = match &options.hypervisor {
        Some(path) => path.clone(),
        None => cargo_build::hypervisor()?,
    };
    let assembled = assemble::assemble(system)?;
    let bundle_bytes = bundle::build(&system.config, &assembled.images)?;
    let memory = machine_memory(system, bundle_bytes.len() as u64)?;
    let bundle_path = dir.file(BUNDLE_FILE);
    std::fs::write(&bundle_path, bundle_bytes).with_context(|| format!("cannot write {}", bundle_path.display()))?;
    let copy = dir.file(SYSTEM_FILE);
    std::fs::write(&copy, system.text()).with_context(|| format!("cannot write {}", copy.display()))?;

    let mut serial: [Option<PathBuf>; SERIAL_PORTS] = [Some(dir.file(HYPERVISOR_LOG)), None, None, None];
    let mut consoles = vec![Console::new("hypervisor", dir.file(HYPERVISOR_LOG))];
    for partition in &system.config.partitions {
        if let Some(port) = partition.console.and_then(|port| serial.get_mut(serial_index(port))) {
            let log = dir.log(&partition.name);
            consoles.push(Console::new(partition.name.as_str(), &log));
            *port = Some(log);
        }
    }
    let machine = Boot {
        label: format!("running the system {} in {}", system.config.name, emulator.name()),
        kernel: &hypervisor,
        module: Some(&bundle_path),
        cmdline: &hypervisor_options(options.clock, &session.input),
        pcpus: system.machine.pcpus,
        memory,
        serial,
        consoles,
        console_log: dir.file(HYPERVISOR_LOG),
        end_marker: Some(END_MARKER),
        open_ended: system.is_open_ended(),
    };
    let elves: Vec<PathBuf> = std::iter::once(hypervisor.clone()).chain(assembled.elves).collect();
    boot(&emulator, machine, &elves, &dir, options, session)
}

/// The hypervisor's command line.
fn hypervisor_options(clock: Clock, input: &ConsoleInput) -> String {
    let mut words = Vec::new();
    if clock == Clock::Icount {
        // QEMU aborts at a read of the timer's count while it counts instructions (docs/platforms.md).
        words.push("trap-timer-count");
    }
    if *input != ConsoleInput::None {
        // The console prompts from the start.
        words.push("console");
    }
    words.join(" ")
}

/// Boots a payload, or a Linux kernel, without a hypervisor.
///
/// # Errors
/// It could not be run. What a run that took place came to is in the report.
pub fn run_bare(bare: &BareRun<'_>, options: &RunOptions) -> anyhow::Result<RunReport> {
    let emulator = Qemu;
    emulator.probe()?;
    anyhow::ensure!(bare.kernel.is_file(), "no payload at {}; check the path", bare.kernel.display());
    let dir = RunDir::prepare(&options.out_dir)?;
    let log = dir.file(PAYLOAD_LOG);
    let machine = Boot {
        label: format!("running a bare payload in {}", emulator.name()),
        kernel: bare.kernel,
        module: bare.module,
        cmdline: bare.cmdline,
        pcpus: bare.pcpus,
        memory: bare.memory,
        serial: [Some(log.clone()), None, None, None],
        consoles: vec![Console::new("payload", &log)],
        console_log: log,
        end_marker: bare.has_end_marker.then_some(PAYLOAD_END_MARKER),
        open_ended: false,
    };
    boot(&emulator, machine, &[bare.kernel.to_path_buf()], &dir, options, &Session::default())
}

/// Everything that differs between a system and a bare payload.
struct Boot<'a> {
    label: String,
    kernel: &'a Path,
    module: Option<&'a Path>,
    cmdline: &'a str,
    pcpus: u16,
    memory: u64,
    serial: [Option<PathBuf>; SERIAL_PORTS],
    consoles: Vec<Console>,
    console_log: PathBuf,
    end_marker: Option<&'static str>,
    open_ended: bool,
}

fn boot(
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
        serial: boot.serial,
        ram_file: Some(&ram),
    };
    RunInfo::new(emulator.name(), &spec).write(&dir.file(RUN_FILE))?;
    let log_path = dir.file(EMULATOR_LOG);
    let log = std::fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let witness_log = session.witness.then(|| dir.file(WITNESS_LOG));
    let attached = Attached { input: &session.input, witness: witness_log.as_deref() };
    let mut command = emulator.command_attached(&spec, &attached);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    if session.input == ConsoleInput::Terminal {
        terminal::greet(boot.consoles.iter().filter(|console| console.path() != boot.console_log));
    }
    let supervision =
        Supervision { label: boot.label, timeout: options.timeout, consoles: boot.consoles, quiet: options.quiet };
    let supervised = supervise_with_input(command, supervision, &session.input, &boot.console_log);
    let Supervised { ended, untaken } = supervised.with_context(|| format!("cannot run {}", emulator.name()))?;

    let console = read_log(&boot.console_log);
    if session.input == ConsoleInput::Terminal {
        terminal::take_leave(&console);
    }
    // A person who ends the emulator by its own key interrupts the run.
    let ended = if terminal::was_left(&session.input, &console) { Ended::Interrupted } else { ended };
    let outcome = judge(&Evidence {
        ended,
        exit_byte: match ended {
            Ended::Exited(status) => status.code().and_then(|code| emulator.exit_byte(code)),
            _ => None,
        },
        end_marker: boot.end_marker,
        console: &console,
        emulator_log: &read_log(&log_path),
        open_ended: boot.open_ended,
        timeout: options.timeout,
    });
    let outcome = match untaken {
        Some(untaken) => RunOutcome::CommandUntaken { untaken, outcome: Box::new(outcome) },
        None => outcome,
    };
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

const fn serial_index(port: SerialPort) -> usize {
    match port {
        SerialPort::Com2 => 1,
        SerialPort::Com3 => 2,
        SerialPort::Com4 => 3,
    }
}

/// RAM of the machine: what the system file says if that is enough, else enough for the system.
fn machine_memory(system: &SystemFile, bundle: u64) -> Result<u64, system_file::SystemFileError> {
    let partitions = || system.config.partitions.iter();
    let sum: u64 = partitions().map(|partition| partition.memory_bytes).sum();
    let fixed_ends = partitions().filter_map(|partition| partition.memory_at?.checked_add(partition.memory_bytes));
    let highest = fixed_ends.max().unwrap_or(0);
    let needed = (sum + bundle).max(highest).saturating_add(MEMORY_SPARE).next_multiple_of(MEMORY_STEP);
    match system.machine.memory {
        Some(memory) if memory < sum + bundle || memory < highest => {
            let cure = format!("raise it, to {} for instance, or leave it out", human(needed));
            let message = format!("{} is too little for the partitions and the boot bundle; {cure}", human(memory));
            Err(system.problems([(system_file::Place::MachineMemory, message)]))
        }
        Some(memory) => Ok(memory),
        None => Ok(needed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(machine: &str, memory_at: &str) -> SystemFile {
        let text = format!(
            "[system]\nname = 's'\n{machine}\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '64 MiB'\n{memory_at}\n\
             expect = 'run'\nimage = {{ kind = 'elf', path = 'p' }}\n"
        );
        SystemFile::parse(&text, Path::new("s.toml")).unwrap()
    }

    #[test]
    fn the_machine_has_enough_memory_by_default() {
        assert_eq!(machine_memory(&system("", ""), 1 << 20).unwrap(), 256 << 20);
        let high = system("", "memory_at = 0x40000000");
        assert_eq!(machine_memory(&high, 1 << 20).unwrap(), (1024 + 64 + 128) << 20);
    }

    #[test]
    fn too_little_memory_is_refused_with_its_place() {
        let small = system("[machine]\nmemory = '64 MiB'", "");
        let error = machine_memory(&small, 1).unwrap_err().to_string();
        assert!(error.starts_with("s.toml:4:10: machine.memory: 64 MiB is too little"), "{error}");
        assert!(error.contains("256 MiB"), "{error}");
        let exact = system("[machine]\nmemory = '128 MiB'", "");
        assert_eq!(machine_memory(&exact, 1).unwrap(), 128 << 20);
    }
}
