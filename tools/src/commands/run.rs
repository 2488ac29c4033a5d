//! `partita run`: build a system and run it.

use super::say;
use clap::Args;
use partita_host::cargo_build;
use partita_host::console_script::read_commands;
use partita_host::dialogue::Dialogue;
use partita_host::emulator::{Clock, ConsoleInput, MachineKind};
use partita_host::measure::cyclictest_report;
use partita_host::outcome::RunOutcome;
use partita_host::run::{HYPERVISOR, RunOptions, RunReport, Session, run_system_in};
use partita_host::run_dir::WITNESS_LOG;
use partita_host::system_file::SystemFile;
use std::path::PathBuf;
use std::time::Duration;

/// `--timeout` in seconds where it is not given.
const TIMEOUT: u64 = 120;
/// How many times as long a system may run in Bochs, which is slower than QEMU, if nothing is said.
const BOCHS_TIMES: u32 = 10;
/// Longest `--timeout` in seconds: a day. Also that of a person at the console, if nothing else is said.
const TIMEOUT_MAX: u64 = 24 * 60 * 60;

/// Build a system, boot it in QEMU or Bochs and show its consoles until it ends
///
/// Fetches the Debian packages that the system names (once), builds the hypervisor, the payloads and the boot bundle,
/// and runs them. Succeeds only if every partition that is expected to finish reported success; where none is, the
/// system runs until the time is up, and that is a success. Logs, trace and what is needed to decode it are left in the
/// output directory.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo partita run rt-partitions/systems/demo.toml
  cargo partita run rt-partitions/systems/linux-rt.toml --icount --timeout 300
  cargo partita run my.toml --out my-run --quiet
  cargo partita run rt-partitions/systems/demo.toml --show rt0
  cargo partita run rt-partitions/systems/demo.toml --console
  cargo partita run rt-partitions/systems/demo.toml --commands commands.txt
  cargo partita run rt-partitions/systems/linux-rt.toml --console linux
  cargo partita run my.toml --type linux=login.txt --commands commands.txt
  cargo partita run rt-partitions/systems/tests/guest.toml --icount --witness
  cargo partita run rt-partitions/systems/demo.toml --machine bochs

The output directory has:
  hypervisor.log, PARTITION.log   the consoles
  PARTITION.debugcon.log          what it wrote to its debugcon
  trace.bin, elf/, system.toml    the trace, and what `partita trace` needs to decode it
  run.json                        the clock, the emulator, the machine
  witness.log                     with --witness, if log and trace differ: QEMU's log of exits
  bundle.bin, qemu.log, bochs*    the boot bundle, and what the emulator said")]
pub(crate) struct Run {
    /// The system file
    #[arg(value_name = "SYSTEM.toml")]
    system: PathBuf,
    /// The machine: qemu (AMD SVM), bochs (Intel VMX), bochs-svm (AMD SVM), or bochs:CPU with another of Bochs' CPUs
    #[arg(long, value_name = "MACHINE", default_value_t)]
    machine: MachineKind,
    /// Let time pass by instructions, so that two runs are identical (slower); a system file can say so, too
    #[arg(long)]
    icount: bool,
    /// End the run after this many seconds [default: what the system file says, or 120, in Bochs ten times that; with --console a day]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_MAX))]
    timeout: Option<u64>,
    /// Connect this terminal to the console of a partition, or to the hypervisor's, which lists its commands at `help`
    ///
    /// The other consoles go to their files only. Ctrl-A X ends the run at once; the hypervisor's command `quit` ends it
    /// with a line on what each partition came to. A system ends as it does without a console, too. See docs/console.md.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = HYPERVISOR)]
    console: Option<String>,
    /// Give the hypervisor's console the commands in this file
    ///
    /// One a line, each when the one before it is done; lines that begin with `#` and blank lines are left out. The run
    /// fails if it ends before the console has taken all of them. The answers are in hypervisor.log.
    #[arg(long, value_name = "FILE")]
    commands: Option<PathBuf>,
    /// Hold the dialogue in this file with the partition NAME at its console; can be given for several partitions
    ///
    /// One step a line: `expect TEXT` waits until the console has printed it since the last match, `send TEXT` types it and
    /// Enter, `send-raw TEXT` types it alone. A text in double quotes can have blanks at its ends, and escapes such as \\x03.
    /// Lines that begin with `#` and blank lines are left out. The run fails if it ends before the dialogue is through.
    #[arg(long = "type", value_name = "NAME=FILE", value_parser = name_and_file)]
    dialogues: Vec<(String, PathBuf)>,
    /// Show only these consoles: partitions by name, and hypervisor; can be given several times [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "quiet")]
    show: Vec<String>,
    /// Compare the trace with QEMU's own log of exits, exit by exit (with --icount only)
    ///
    /// The run fails if they differ, or if the trace does not have all exits: then make `ring` in the system file's
    /// `[trace]` larger.
    #[arg(long, requires = "icount")]
    witness: bool,
    /// Directory for logs and trace [default: target/partita/run/NAME in the repository]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The hypervisor's ELF file, instead of building it
    #[arg(long, value_name = "PATH")]
    hv: Option<PathBuf>,
    /// Keep the file that was the machine's RAM (ram.bin; as large as the RAM)
    #[arg(long)]
    keep_ram: bool,
    /// Do not show the consoles; they are in the output directory all the same
    #[arg(long, short)]
    quiet: bool,
}

impl Run {
    pub(crate) fn execute(&self) -> anyhow::Result<u8> {
        anyhow::ensure!(
            !self.icount || self.machine == MachineKind::Qemu,
            "--icount is for QEMU: in Bochs time always passes by instructions, and two runs are identical; leave it out"
        );
        let session = self.session()?;
        let system = SystemFile::load(&self.system)?;
        let out_dir = match &self.out {
            Some(dir) => dir.clone(),
            None => cargo_build::repository()?.join("target/partita/run").join(system.config.name.as_str()),
        };
        let options = RunOptions {
            machine: self.machine,
            clock: if self.icount { Clock::Icount } else { system.run.clock },
            timeout: self.timeout(&system),
            out_dir,
            hypervisor: self.hv.clone(),
            keep_ram: self.keep_ram,
            quiet: self.quiet,
        };
        let report = run_system_in(&system, &options, &session)?;
        tell(&system, &report);
        if report.outcome == RunOutcome::Success
            && let Some(measured) = cyclictest_report(&system, &report.dir)?
        {
            say(format_args!("\n{measured}"));
        }
        Ok(report.exit_code())
    }

    fn session(&self) -> anyhow::Result<Session> {
        let console = self.console.as_deref();
        let input = match &self.commands {
            Some(_) if console == Some(HYPERVISOR) => {
                anyhow::bail!(
                    "the hypervisor's console takes its commands from a terminal or from a file; leave one out"
                )
            }
            Some(path) => ConsoleInput::Script(read_commands(path)?),
            None if console == Some(HYPERVISOR) => ConsoleInput::Terminal,
            None => ConsoleInput::None,
        };
        let mut dialogues = Vec::new();
        for (name, path) in &self.dialogues {
            dialogues.push((name.clone(), Dialogue::read(path)?));
        }
        let terminal = console.filter(|name| *name != HYPERVISOR).map(str::to_owned);
        let shown = (!self.show.is_empty()).then(|| self.show.clone());
        Ok(Session { input, terminal, dialogues, shown, witness: self.witness, instructions: false })
    }

    fn timeout(&self, system: &SystemFile) -> Duration {
        let is_attended = self.console.is_some();
        let default = if is_attended { TIMEOUT_MAX } else { TIMEOUT };
        let of_system = system.run.timeout.filter(|_| !is_attended);
        let said = self.timeout.map(Duration::from_secs);
        let factor = if self.machine == MachineKind::Qemu { 1 } else { BOCHS_TIMES };
        let by_default = of_system.unwrap_or(Duration::from_secs(default)) * factor;
        said.unwrap_or(by_default.min(Duration::from_secs(TIMEOUT_MAX)))
    }
}

/// `NAME=FILE`.
fn name_and_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("write the name of a partition and a file, as in linux=login.txt".to_owned()),
    }
}

fn tell(system: &SystemFile, report: &RunReport) {
    for note in &report.trace.notes {
        say(format_args!("note: {note}"));
    }
    say(format_args!("{}: {}", system.config.name, report.outcome));
    let dir = report.dir.display();
    match &report.witness {
        Some(Ok(agreement)) => say(format_args!("{agreement}")),
        Some(Err(error)) => say(format_args!("witness: {error}\nQEMU's log of exits: {dir}/{WITNESS_LOG}")),
        None => {}
    }
    say(format_args!("logs and trace: {dir}"));
    if report.trace.regions > 0 {
        if timed_out(&report.outcome) {
            super::trace::show_last_frames(&report.dir);
        }
        say(format_args!("show the trace: cargo partita trace decode {dir} (or hist for histograms)"));
    }
}

fn timed_out(outcome: &RunOutcome) -> bool {
    match outcome {
        RunOutcome::TimedOut { .. } => true,
        RunOutcome::CommandUntaken { outcome, .. } | RunOutcome::DialogueUnfinished { outcome, .. } => {
            timed_out(outcome)
        }
        _ => false,
    }
}
