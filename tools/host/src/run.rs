//! Running a system, or a bare payload, in an emulator: from images to a verdict and a saved trace.

mod boot;
mod memory;
mod session;

pub use session::{HYPERVISOR, Session};

use crate::emulator::{AttachedDevice, Clock, ConsoleInput, Emulator, MachineKind};
use crate::outcome::{EXIT_RUN_FAILED, RunOutcome};
use crate::run_dir::{BUNDLE_FILE, HYPERVISOR_LOG, PAYLOAD_LOG, RunDir, SYSTEM_FILE};
use crate::system_file::{SystemFile, TestDevice};
use crate::{artifacts, assemble, bundle, cargo_build, witness};
use anyhow::Context;
use boot::{Boot, boot};
pub(crate) use memory::machine_memory;
use partita_abi::report::{END_MARKER, PAYLOAD_END_MARKER};
use session::{HYPERVISOR_PORT, Port, check_ports};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The machine.
    pub machine: MachineKind,
    /// How time passes in the machine, if it leaves a choice.
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
    let emulator = options.machine.emulator();
    let emulator = emulator.as_ref();
    emulator.probe()?;
    check_io_ports(emulator, system)?;
    if let Some(path) = &options.hypervisor {
        anyhow::ensure!(path.is_file(), "no hypervisor at {}; check the path given with --hv", path.display());
    }
    let dir = RunDir::prepare(&options.out_dir)?;
    let ports = ports(system, &dir);
    check_ports(emulator, &ports)?;
    session.check_consoles(&ports)?;
    let hypervisor = match &options.hypervisor {
        Some(path) => path.clone(),
        None => cargo_build::hypervisor()?,
    };
    let assembled = assemble::assemble(system)?;
    for warning in &assembled.warnings {
        // A reader that went away is no reason to fail.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let bundle_bytes = bundle::build(&system.config, &assembled.images)?;
    let memory = machine_memory(system, bundle_bytes.len() as u64)?;
    let bundle_path = dir.file(BUNDLE_FILE);
    std::fs::write(&bundle_path, bundle_bytes).with_context(|| format!("cannot write {}", bundle_path.display()))?;
    let copy = dir.file(SYSTEM_FILE);
    std::fs::write(&copy, system.text()).with_context(|| format!("cannot write {}", copy.display()))?;

    let (devices, exit_owner) = test_devices(system, &dir);
    let machine = Boot {
        label: format!("running the system {} in {}", system.config.name, emulator.name()),
        kernel: &hypervisor,
        module: Some(&bundle_path),
        cmdline: &hypervisor_options(options, &session.input),
        pcpus: system.machine.pcpus,
        memory,
        ports,
        end_marker: Some(END_MARKER),
        open_ended: system.is_open_ended(),
        devices,
        exit_owner,
    };
    let elves: Vec<PathBuf> = std::iter::once(hypervisor.clone()).chain(assembled.elves).collect();
    boot(emulator, machine, &elves, &dir, options, session)
}

/// The consoles of a system, the hypervisor's first.
fn ports(system: &SystemFile, dir: &RunDir) -> Vec<Port> {
    let hypervisor = Port { name: HYPERVISOR.to_owned(), index: HYPERVISOR_PORT, log: dir.file(HYPERVISOR_LOG) };
    let of_partition = |partition: &partita_core::system::Partition| {
        let index = usize::from(partition.console?.number() - 1);
        Some(Port { name: partition.name.to_string(), index, log: dir.log(&partition.name) })
    };
    std::iter::once(hypervisor).chain(system.config.partitions.iter().filter_map(of_partition)).collect()
}

/// The test devices of a system, and the name of the partition that can end the emulator by one of them.
fn test_devices<'s>(system: &'s SystemFile, dir: &RunDir) -> (Vec<AttachedDevice>, Option<&'s str>) {
    let mut attached = Vec::new();
    let mut exit_owner = None;
    for (partition, devices) in system.config.partitions.iter().zip(&system.test_devices) {
        for device in devices {
            attached.push(match device {
                TestDevice::IsaDebugExit => {
                    exit_owner = Some(partition.name.as_str());
                    AttachedDevice::IsaDebugExit
                }
                TestDevice::DebugCon => AttachedDevice::DebugCon(dir.debugcon_log(&partition.name)),
                TestDevice::Edu => AttachedDevice::Edu,
            });
        }
    }
    (attached, exit_owner)
}

/// Checks that no partition owns a port by which the machine talks to the emulator.
fn check_io_ports(emulator: &dyn Emulator, system: &SystemFile) -> anyhow::Result<()> {
    for partition in &system.config.partitions {
        let has = |port: &u16| partition.io_ports.iter().any(|range| (range.first..=range.last).contains(port));
        if let Some(port) = emulator.own_ports().iter().find(|port| has(port)) {
            anyhow::bail!(
                "partition {:?} owns I/O port {port:#x}, by which {} gets the trace and the end of the run; leave it out, \
                 or leave that to --machine qemu",
                partition.name,
                emulator.name()
            );
        }
    }
    Ok(())
}

/// The hypervisor's command line.
fn hypervisor_options(options: &RunOptions, input: &ConsoleInput) -> String {
    let mut words = Vec::new();
    if (options.machine, options.clock) == (MachineKind::Qemu, Clock::Icount) {
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
    let emulator = options.machine.emulator();
    let emulator = emulator.as_ref();
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
        ports: vec![Port { name: "payload".to_owned(), index: HYPERVISOR_PORT, log }],
        end_marker: bare.has_end_marker.then_some(PAYLOAD_END_MARKER),
        open_ended: false,
        devices: Vec::new(),
        exit_owner: None,
    };
    boot(emulator, machine, &[bare.kernel.to_path_buf()], &dir, options, &Session::default())
}
