//! `partita bench`: the latency suite.

use super::say;
use clap::Args;
use partita_host::cargo_build;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::{EXIT_OK, EXIT_RUN_FAILED};
use partita_latency_tests::budgets::Budgets;
use partita_latency_tests::json_file::JsonFile;
use partita_latency_tests::table::table;
use partita_latency_tests::{QUICK_SAMPLES, SAMPLES, SuiteOptions};
use std::io::Write;
use std::path::PathBuf;

/// Most boots at a time.
const JOBS_MAX: usize = 2;

/// Measure what exits, IPIs, timers, kicks and SMP calls cost, on the bare machine and under Partita
///
/// Builds the hypervisor and the latency payload, and boots the payload bare and in a partition, each group of rows in a
/// boot of its own, all with time by instructions: two runs give identical figures. Prints one table, and fails if a row is above
/// its budget (latency-tests/budgets*.toml). docs/latency.md says what each row times.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo partita bench
  cargo partita bench --quick --json bench.json
  cargo partita bench --machine bochs --quick

Exit codes:
  0  all rows are measured and within their budgets
  1  a boot failed, samples are missing, or a row is above its budget
  2  bad arguments, or a machine that is not set up (ci/setup.sh does that)")]
pub(crate) struct Bench {
    /// The machine: qemu (AMD SVM), bochs (Intel VMX) or bochs-svm (AMD SVM)
    #[arg(long, value_name = "MACHINE", default_value_t)]
    machine: MachineKind,
    /// Take 200 samples of each row instead of 2,000
    #[arg(long)]
    quick: bool,
    /// Write the figures to this file, too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Directory for logs and traces of all boots [default: target/partita/bench in the repository, or bench-MACHINE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Bench {
    /// The directory for logs and traces, unless another is given.
    fn dir_name(&self) -> String {
        match self.machine {
            MachineKind::Qemu => "bench".to_owned(),
            other => format!("bench-{other}").replace(':', "-"),
        }
    }

    pub(crate) fn execute(&self) -> anyhow::Result<u8> {
        let json = self.json.as_deref().map(JsonFile::at).transpose()?;
        let budgets = Budgets::of_repository(self.machine)?;
        let out_dir = match &self.out {
            Some(dir) => dir.clone(),
            None => cargo_build::repository()?.join("target/partita").join(self.dir_name()),
        };
        let options = SuiteOptions {
            machine: self.machine,
            samples: if self.quick { QUICK_SAMPLES } else { SAMPLES },
            jobs: std::thread::available_parallelism().map_or(1, usize::from).min(JOBS_MAX),
            out_dir,
        };
        let file = match partita_latency_tests::run(&options) {
            Ok(file) => file,
            Err(error) => {
                complain(format_args!("{error}"));
                return Ok(error.exit_code());
            }
        };
        if let Some(json) = json {
            json.write(&file)?;
        }
        say(format_args!("{}", table(&file).trim_fmt()));
        say(format_args!("{}", self.machine.tick(Clock::Icount)));
        let excesses = budgets.check(&file);
        for excess in &excesses {
            complain(format_args!("above budget: {excess}"));
        }
        Ok(if excesses.is_empty() { EXIT_OK } else { EXIT_RUN_FAILED })
    }
}

/// Prints an error; nobody is left to tell where standard error is closed.
fn complain(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "error: {what}");
}
