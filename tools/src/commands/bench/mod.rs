//! `partita bench`: the latency suite.

mod report;

use super::say;
use clap::Args;
use partita_host::cargo_build;
use partita_host::emulator::{MachineKind, UnknownMachine};
use partita_host::outcome::{EXIT_OK, EXIT_RUN_FAILED};
use partita_host::progress::Step;
use partita_host::trace::Trace;
use partita_latency_tests::budgets::Budgets;
use partita_latency_tests::compare::OldFile;
use partita_latency_tests::extent::Extent;
use partita_latency_tests::from_trace::figures_of;
use partita_latency_tests::hardware::{Host, HostFacts, smi_line};
use partita_latency_tests::histogram::histograms;
use partita_latency_tests::json_file::JsonFile;
use partita_latency_tests::profile::{PathKind, Profile, measure};
use partita_latency_tests::tighten::tighten;
use partita_latency_tests::{BenchFile, Images, QUICK_SAMPLES, SAMPLES, SuiteError, SuiteOptions};
use report::{complain, note, warn};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Most boots at a time.
const JOBS_MAX: usize = 2;

/// Measure what exits, IPIs, timers, kicks and SMP calls cost, on the bare machine and under Partita
///
/// Builds the hypervisor and the latency payload, and boots the payload bare and in a partition, each group of rows in a
/// boot of its own, all with time by instructions: two runs give identical figures. Prints one table, and fails if a row is above
/// its budget (latency-tests/budgets*.toml): then it says which functions on its path execute more instructions than in
/// latency-tests/profiles. docs/latency.md says what each row times.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo partita bench
  cargo partita bench --quick --json bench.json
  cargo partita bench --machine bochs --quick
  cargo partita bench --machine all --json all.json
  cargo partita bench --compare old.json
  cargo partita bench --from-trace target/partita/bench --histogram

Exit codes:
  0  all rows are measured and within their budgets, and none is slower or gone since the file to compare with
  1  a boot failed, samples are missing, a row is above its budget, is slower, or gone
  2  bad arguments, or a machine that is not set up (ci/setup.sh does that)")]
pub(crate) struct Bench {
    /// The machine: qemu (AMD SVM), bochs (Intel VMX), bochs-svm (AMD SVM), kvm (the host's, nested), or all three emulated ones
    #[arg(long, value_name = "MACHINE|all", default_value = "qemu")]
    machine: Machines,
    /// Take 200 samples of each row instead of 2,000
    #[arg(long)]
    quick: bool,
    /// Take a million periods of the periodic timer
    #[arg(long, conflicts_with = "quick")]
    long: bool,
    /// Write the figures to this file, too, as JSON: of one machine an object, of all a list of them
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show the figures beside those of an earlier run, in a file that --json wrote, and fail if a row is slower or gone
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// With --compare: do not fail if a row is slower or gone
    #[arg(long, requires = "compare")]
    allow_slower: bool,
    /// Draw the distribution of each row
    #[arg(long, visible_alias = "histograms")]
    histogram: bool,
    /// Boot nothing, take the figures from the output directories of boots, or of a whole run
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with_all = ["machine", "quick", "long", "out"])]
    from_trace: Vec<PathBuf>,
    /// Measure nothing, write latency-tests/profiles: the instructions of each function on the paths behind the rows
    #[arg(long, conflicts_with_all = ["machine", "quick", "long", "json", "compare", "histogram", "from_trace", "tighten"])]
    profile: bool,
    /// If all rows are within their budgets, bring the budgets down to what was measured
    #[arg(long, conflicts_with_all = ["quick", "from_trace"])]
    tighten: bool,
    /// Directory for logs and traces of all boots [default: target/partita/bench in the repository, or bench-MACHINE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// One machine, or those that are emulated with time by instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machines {
    One(MachineKind),
    All,
}

impl FromStr for Machines {
    type Err = UnknownMachine;

    fn from_str(name: &str) -> Result<Self, UnknownMachine> {
        if name == "all" { Ok(Self::All) } else { name.parse().map(Self::One) }
    }
}

impl Machines {
    fn list(self) -> Vec<MachineKind> {
        match self {
            Self::One(machine) => vec![machine],
            Self::All => vec![MachineKind::Qemu, MachineKind::BOCHS_SVM, MachineKind::BOCHS_VMX],
        }
    }
}

/// What one machine came to.
struct Measured {
    machine: MachineKind,
    file: BenchFile,
    dir: PathBuf,
}

impl Bench {
    pub(crate) fn execute(&self) -> anyhow::Result<u8> {
        let json = self.json.as_deref().map(JsonFile::at).transpose()?;
        let old = self.compare.as_deref().map(|path| OldFile::read_all(path).map(|files| (path, files))).transpose()?;
        if self.profile {
            return self.write_profile();
        }
        if !self.from_trace.is_empty() {
            return self.report_traces(json, old);
        }
        let mut measured = Vec::new();
        for machine in self.machine.list() {
            // A file that does not fit is found before the machine runs.
            if let Some((path, files)) = &old {
                OldFile::of_machine(files, &machine.result_name(), path)?;
            }
            match self.measure(machine)? {
                Ok(of_machine) => measured.push(of_machine),
                Err(error) => {
                    complain(format_args!("{error}"));
                    return Ok(error.exit_code());
                }
            }
        }
        let files: Vec<BenchFile> = measured.iter().map(|measured| measured.file.clone()).collect();
        self.write_json(json, &files)?;
        for Measured { machine, file, dir } in &measured {
            if let Some(charts) = self.charts(*machine, dir)? {
                report::charts(&charts);
            }
            report::table_of(*machine, file, measured.len() > 1);
        }
        if self.machine == Machines::All {
            report::side_by_side(&files);
        }
        let mut is_good = true;
        for measured in &measured {
            is_good &= self.judge(measured, &files)?;
        }
        if let Some((path, files)) = &old {
            for Measured { file, .. } in &measured {
                is_good &= report::comparison(OldFile::fitting(files, file, path)?, file) || self.allow_slower;
            }
        }
        if self.tighten && is_good {
            for Measured { machine, file, .. } in &measured {
                for lowered in tighten(*machine, file)? {
                    let name = machine.result_name();
                    say(format_args!("{name}: {}: {} -> {}", lowered.row, lowered.budget, lowered.value));
                }
            }
        }
        Ok(if is_good { EXIT_OK } else { EXIT_RUN_FAILED })
    }

    fn measure(&self, machine: MachineKind) -> anyhow::Result<Result<Measured, SuiteError>> {
        let dir = self.dir_of(machine)?;
        let options = SuiteOptions {
            machine,
            samples: self.extent().samples,
            is_long: self.long,
            // What runs beside it would be in figures that are not counted by instructions.
            jobs: if machine == MachineKind::Kvm { 1 } else { jobs() },
            out_dir: dir.clone(),
        };
        let host = Host::default();
        let is_kvm = machine == MachineKind::Kvm;
        let warnings = if is_kvm { host.warnings() } else { Vec::new() };
        warnings.iter().for_each(|warning| warn(format_args!("{warning}")));
        let smis = host.smis();
        let mut file = match partita_latency_tests::run(&options) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        if !is_kvm {
            return Ok(Ok(Measured { machine, file, dir }));
        }
        let smis_after = host.smis();
        say(format_args!("{}", smi_line(&smis, &smis_after)));
        file.host = Some(HostFacts::new(warnings, &smis, &smis_after));
        let tsc_hz = Trace::load(&dir.join("partita-exit"))?.tsc_hz;
        if tsc_hz.is_none() {
            note(format_args!("the hypervisor's trace does not tell the frequency of the TSC: figures are in ticks"));
        }
        let file = tsc_hz.map_or(file.clone(), |hz| file.in_nanoseconds(hz));
        Ok(Ok(Measured { machine, file, dir }))
    }

    /// Whether all is within its budgets.
    fn judge(&self, Measured { machine, file, dir }: &Measured, all: &[BenchFile]) -> anyhow::Result<bool> {
        let budgets = Budgets::of_repository(*machine)?;
        let mut excesses = budgets.check(file);
        excesses.extend(budgets.check_against(file, all));
        report::excesses(file, &excesses);
        if !self.tighten && !self.quick {
            for loose in budgets.loose(*machine, file) {
                note(format_args!("{}: {loose}", file.machine));
            }
        }
        if *machine == MachineKind::Qemu && !excesses.is_empty() {
            report::growth(&excesses, dir);
        }
        Ok(excesses.is_empty())
    }

    /// The figures of traces that are there.
    fn report_traces(&self, json: Option<JsonFile>, old: Option<(&Path, Vec<OldFile>)>) -> anyhow::Result<u8> {
        let file = {
            let _step = Step::start("reading the traces".to_owned());
            figures_of(&self.from_trace)?
        };
        self.write_json(json, std::slice::from_ref(&file.file))?;
        if self.histogram {
            report::charts(&file.charts);
        }
        report::table_alone(&file.file);
        let mut is_good = true;
        if let Some((path, files)) = &old {
            is_good = report::comparison(OldFile::fitting(files, &file.file, path)?, &file.file) || self.allow_slower;
        }
        Ok(if is_good { EXIT_OK } else { EXIT_RUN_FAILED })
    }

    fn write_profile(&self) -> anyhow::Result<u8> {
        let dir = self.dir_of(MachineKind::Qemu)?.join("profile");
        std::fs::create_dir_all(&dir)?;
        let profile = match measure(&PathKind::ALL, &Images::build(&dir)?, &dir) {
            Ok(profile) => profile,
            Err(error) => {
                complain(format_args!("{error}"));
                return Ok(error.exit_code());
            }
        };
        let before = Profile::of_repository().unwrap_or_default();
        let path = Profile::path()?;
        std::fs::write(&path, profile.text()?)
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
        report::changes(&before, &profile);
        for kind in PathKind::ALL {
            let total = profile.total(kind.name()).unwrap_or_default();
            say(format_args!("{:<16} {total:>6} instructions", kind.name()));
        }
        say(format_args!("written: {}", path.display()));
        Ok(EXIT_OK)
    }

    /// The histograms of a run, if they are asked for.
    fn charts(&self, machine: MachineKind, dir: &Path) -> anyhow::Result<Option<Vec<Vec<String>>>> {
        if !self.histogram {
            return Ok(None);
        }
        Ok(Some(histograms(machine, self.extent(), dir).map_err(|error| anyhow::anyhow!("{error}"))?))
    }

    fn write_json(&self, json: Option<JsonFile>, files: &[BenchFile]) -> anyhow::Result<()> {
        match (json, files) {
            (Some(json), [file]) => json.write(file)?,
            (Some(json), files) => json.write(&files)?,
            (None, _) => {}
        }
        Ok(())
    }

    fn extent(&self) -> Extent {
        Extent { samples: if self.quick { QUICK_SAMPLES } else { SAMPLES }, is_long: self.long }
    }

    /// The directory for logs and traces of a machine.
    fn dir_of(&self, machine: MachineKind) -> anyhow::Result<PathBuf> {
        let name = match machine {
            MachineKind::Qemu => "bench".to_owned(),
            other => format!("bench-{other}").replace(':', "-"),
        };
        Ok(match &self.out {
            Some(dir) if self.machine == Machines::All => dir.join(machine.result_name()),
            Some(dir) => dir.clone(),
            None => cargo_build::repository()?.join("target/partita").join(name),
        })
    }
}

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(JOBS_MAX)
}
