//! `partita trace`: views of the trace that a run left.

use super::say;
use clap::{Args, Subcommand};
use partita_host::emulator::MachineKind;
use partita_host::outcome::{EXIT_DAMAGED_TRACE, EXIT_OK};
use partita_host::progress::Step;
use partita_host::trace::{
    DecodeOptions, Decoder, Extent, HistFile, KindFilter, LatencySource, Moment, Origin, Trace, Window, chart,
    histograms, leg_frames_lines, worst_exits, worst_table,
};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const EXIT_CODES: &str = "Exit codes:
  0  the trace is whole
  1  parts of the trace are damaged: it is shown up to the damage and after it
  2  bad arguments, or a directory without a usable trace";

const DECODE_HELP: &str = "Examples:
  cargo partita trace decode target/partita/run/demo --kind exit --tail 20
  cargo partita trace decode target/partita/run/demo --around worst:exit
  cargo partita trace decode target/partita/run/demo --around 1_234_567_890 --within 100us

Exit codes:
  0  the trace is whole
  1  parts of the trace are damaged: it is shown up to the damage and after it
  2  bad arguments, or a directory without a usable trace";

/// Show the trace that a run left
#[derive(Debug, Args)]
pub(crate) struct TraceCommand {
    #[command(subcommand)]
    view: View,
}

#[derive(Debug, Subcommand)]
enum View {
    Decode(Decode),
    Hist(Hist),
    Worst(Worst),
}

/// Print all frames in the order of time, and what became of those that are missing
///
/// Merges the rings of the hypervisor and of all guests by the time of their frames. Log frames are decoded with the
/// strings of the ELF file that wrote them, of which the run left a copy; without that they are shown in hexadecimal.
#[derive(Debug, Args)]
#[command(after_help = DECODE_HELP)]
struct Decode {
    /// The output directory of a run
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Show at most so many frames, the first ones
    #[arg(long, value_name = "N", conflicts_with = "tail")]
    limit: Option<usize>,
    /// Show at most so many frames, the last ones
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Show only frames that this pCPU wrote, in the hypervisor or in a guest
    #[arg(long, value_name = "N")]
    pcpu: Option<u16>,
    /// Show only frames of this kind, such as exit, icr-forward, smp-call-served or log; can be given several times
    #[arg(long = "kind", value_name = "NAME")]
    kinds: Vec<KindFilter>,
    /// Show only frames around this time, and count the exits and IPIs there by reason
    ///
    /// TIME is a number of ticks, as the first column has it, or a number with ns, us, ms or s, as the second; or a frame:
    /// first:KIND, last:KIND, or worst:KIND, the one that took longest. The counts are of all pCPUs and kinds, and include
    /// an exit that began before and reaches into that part.
    #[arg(long, value_name = "TIME")]
    around: Option<Moment>,
    /// How far --around reaches to either side: ticks, or a number with ns, us, ms or s
    #[arg(long, value_name = "DURATION", default_value = "1ms", requires = "around")]
    within: Extent,
}

/// Draw the histograms of exits, IPIs, kicks, SMP calls and their legs
///
/// Of each but the legs there can be two: one of the frames that are still in the rings, where each value is exact (ring),
/// and one that the hypervisor keeps in fixed memory, which has every value since the start (always_on). Its percentiles
/// are exact to a sixteenth.
///
/// The legs of an SMP call lie between its five stamps: post, kick, exit, run, ack. They come from the frames that are
/// still in the rings; it is said how many calls were served, how many of them are counted, and what each ring has lost.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct Hist {
    /// The output directory of a run
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Write them to this file, too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Tell of each kind of exit how long the longest took, and where in the trace it is
///
/// The counts and maxima are of all exits since the start: the hypervisor keeps them in fixed memory. Where the record of
/// an exit was not overwritten, its time and detail are shown, by which `trace decode --around` finds it. Of several
/// runs, the table has the worst of all.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct Worst {
    /// The output directories of runs
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
}

impl TraceCommand {
    pub(crate) fn execute(&self) -> anyhow::Result<u8> {
        match &self.view {
            View::Decode(decode) => decode.execute(),
            View::Hist(hist) => hist.execute(),
            View::Worst(worst) => worst.execute(),
        }
    }
}

fn load(dir: &Path) -> anyhow::Result<Trace> {
    let _step = Step::start(format!("reading the trace in {}", dir.display()));
    Ok(Trace::load(dir)?)
}

fn exit_code(trace: &Trace) -> u8 {
    if trace.is_whole() { EXIT_OK } else { EXIT_DAMAGED_TRACE }
}

/// Writes to standard output. A reader that went away, as `head` does, has had enough: that is no failure.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // Nothing is left to be written when the buffer is dropped.
            let _ = out.into_parts();
            Ok(())
        }
        result => result,
    }
}

impl Decode {
    fn execute(&self) -> anyhow::Result<u8> {
        let trace = load(&self.dir)?;
        let window = self.around.map(|moment| Window::around(&trace, moment, self.within)).transpose()?;
        let Self { limit, tail, pcpu, .. } = *self;
        let options = DecodeOptions { limit, tail, pcpu, kinds: self.kinds.clone(), window };
        print(|out| Decoder::new(&trace).write(out, &options))?;
        Ok(exit_code(&trace))
    }
}

impl Hist {
    fn execute(&self) -> anyhow::Result<u8> {
        if let Some(path) = &self.json {
            check_target(path)?;
        }
        let trace = load(&self.dir)?;
        let (hist, notes) = histograms(&trace);
        if let Some(path) = &self.json {
            let write = || -> io::Result<()> {
                let mut file = BufWriter::new(std::fs::File::create(path)?);
                serde_json::to_writer_pretty(&mut file, &hist)?;
                writeln!(file)?;
                file.flush()
            };
            write().map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
        }
        print(|out| {
            if hist.sources.is_empty() {
                writeln!(out, "The trace has no exits, IPIs, kicks or SMP calls.")?;
            } else {
                writeln!(out, "Latencies in ticks of {}{}", whose_clock(&trace, &hist), frequency(trace.tsc_hz))?;
                if let Some(run) = trace.run.as_ref().filter(|run| !run.tick.is_empty()) {
                    writeln!(out, "{}", run.tick)?;
                }
                writeln!(out, "{}", chart::table(&hist, trace.tsc_hz).trim_fmt())?;
            }
            print_legs(out, &hist, trace.tsc_hz)?;
            for source in hist.sources.iter().filter(|source| !is_repeated(source, &hist)) {
                writeln!(out)?;
                chart::chart(source, trace.tsc_hz).iter().try_for_each(|line| writeln!(out, "{line}"))?;
            }
            let separate = if notes.is_empty() && trace.notes.is_empty() && trace.is_whole() { "" } else { "\n" };
            write!(out, "{separate}")?;
            trace.notes.iter().chain(&notes).try_for_each(|note| writeln!(out, "note: {note}"))?;
            trace.damage.iter().try_for_each(|damage| writeln!(out, "damaged: {damage}"))
        })?;
        Ok(exit_code(&trace))
    }
}

/// The legs of SMP calls, and what they are from.
fn print_legs(out: &mut dyn Write, hist: &HistFile, tsc_hz: Option<u64>) -> io::Result<()> {
    if hist.smp_leg_frames.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nLegs of SMP calls, by target and kick")?;
    if let Some(table) = chart::leg_table(hist, tsc_hz) {
        writeln!(out, "{}", table.trim_fmt())?;
    }
    leg_frames_lines(&hist.smp_leg_frames).iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// Whether a histogram in fixed memory holds just the values that its ring still has, whose chart is the finer one.
fn is_repeated(source: &LatencySource, hist: &HistFile) -> bool {
    source.source == Origin::AlwaysOn
        && hist.sources.iter().any(|other| {
            other.source == Origin::Ring
                && (other.kind, other.name, other.pcpu, other.count)
                    == (source.kind, source.name, source.pcpu, source.count)
        })
}

/// The clock that the ticks are of. Bochs has one of its own, to which QEMU's name for time by instructions does not apply.
fn whose_clock(trace: &Trace, hist: &HistFile) -> String {
    let bochs = MachineKind::BOCHS_VMX.emulator().name();
    match &trace.run {
        Some(run) if run.emulator == bochs => format!("{bochs}' clock"),
        _ => format!("the {} clock", hist.clock.name()),
    }
}

fn frequency(tsc_hz: Option<u64>) -> String {
    tsc_hz.map(|hz| format!(", {}.{:03} MHz", hz / 1_000_000, hz / 1000 % 1000)).unwrap_or_default()
}

/// Refuses a file that cannot be written, before any work is done.
fn check_target(path: &Path) -> anyhow::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(
        parent.is_dir(),
        "cannot write {}: {} is no directory; make it, or choose another file with --json",
        path.display(),
        parent.display()
    );
    anyhow::ensure!(!path.is_dir(), "cannot write {}: it is a directory; choose a file with --json", path.display());
    Ok(())
}

/// How many frames are shown of a run whose time was up.
const LAST_FRAMES: usize = 20;

/// Shows the last frames of the trace in `dir`.
pub(crate) fn show_last_frames(dir: &Path) {
    match Trace::load(dir) {
        Ok(trace) => {
            say(format_args!("last frames of the trace:"));
            let options = DecodeOptions { tail: Some(LAST_FRAMES), ..DecodeOptions::default() };
            // Only the reader can have gone away, and then there is nobody to tell.
            let _ = print(|out| Decoder::new(&trace).write_frames(out, &options));
        }
        Err(error) => say(format_args!("note: {error}")),
    }
}

impl Worst {
    fn execute(&self) -> anyhow::Result<u8> {
        let traces = self.dirs.iter().map(|dir| load(dir)).collect::<anyhow::Result<Vec<Trace>>>()?;
        let names: Vec<String> = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
        let worst = worst_exits(&traces, |_| true);
        print(|out| {
            if worst.is_empty() {
                return writeln!(out, "The hypervisor counted no exits.");
            }
            writeln!(out, "{}", worst_table(&worst, &names).trim_fmt())
        })?;
        let damaged = traces.iter().map(exit_code).find(|code| *code != EXIT_OK);
        Ok(damaged.unwrap_or(EXIT_OK))
    }
}
