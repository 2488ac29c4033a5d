//! `partita run`: build a system and run it.

use super::say;
use clap::Args;
use partita_host::cargo_build;
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;
use partita_host::run::{RunOptions, RunReport, run_system};
use partita_host::system_file::SystemFile;
use std::path::PathBuf;
use std::time::Duration;

/// Longest `--timeout` in seconds: a day.
const TIMEOUT_MAX: u64 = 24 * 60 * 60;

/// Build a system, boot it in QEMU and show its consoles until it ends
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

The output directory has:
  hypervisor.log, PARTITION.log   the consoles
  trace.bin, elf/, system.toml    the trace, and what `partita trace` needs to decode it
  run.json                        the clock, the emulator, the machine
  bundle.bin, qemu.log            the boot bundle, and what QEMU said")]
pub(crate) struct Run {
    /// The system file
    #[arg(value_name = "SYSTEM.toml")]
    system: PathBuf,
    /// Let time pass by instructions, so that two runs are identical (slower)
    #[arg(long)]
    icount: bool,
    /// End the run after this many seconds
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_MAX))]
    timeout: u64,
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
        let system = SystemFile::load(&self.system)?;
        let out_dir = match &self.out {
            Some(dir) => dir.clone(),
            None => cargo_build::repository()?.join("target/partita/run").join(system.config.name.as_str()),
        };
        let options = RunOptions {
            clock: if self.icount { Clock::Icount } else { Clock::Host },
            timeout: Duration::from_secs(self.timeout),
            out_dir,
            hypervisor: self.hv.clone(),
            keep_ram: self.keep_ram,
            quiet: self.quiet,
        };
        let report = run_system(&system, &options)?;
        tell(&system, &report);
        Ok(report.outcome.exit_code())
    }
}

fn tell(system: &SystemFile, report: &RunReport) {
    for note in &report.trace.notes {
        say(format_args!("note: {note}"));
    }
    say(format_args!("{}: {}", system.config.name, report.outcome));
    let dir = report.dir.display();
    say(format_args!("logs and trace: {dir}"));
    if report.trace.regions > 0 {
        if matches!(report.outcome, RunOutcome::TimedOut { .. }) {
            super::trace::show_last_frames(&report.dir);
        }
        say(format_args!("show the trace: cargo partita trace decode {dir} (or hist for histograms)"));
    }
}
