//! Boots that log each instruction of the hypervisor, and the profiles that they come to.

use super::{PathKind, Profile};
use crate::SuiteError;
use crate::boot::{Boot, Place};
use crate::suite::Images;
use crate::systems::system;
use anyhow::Context;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::itrace::{ExecutionLog, PathEnd, Program, paths};
use partita_host::run::{RunOptions, Session, run_system_in};
use partita_host::run_dir::INSTRUCTION_LOG;
use partita_host::trace::Trace;
use partita_host::witness::traced_exits;
use partita_rows::Group;
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Samples of each row: each takes the same path.
const SAMPLES: u32 = 20;
/// Rounds of SMP calls.
const ROUNDS: u32 = 200;
/// How long a boot may take in time of the host.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The hypervisor's own pCPU.
const HOUSEKEEPING: u16 = 0;

/// Profiles these paths, in QEMU. Logs stay in `dir`, but those of the instructions.
///
/// # Errors
/// A boot could not take place or failed, or has not all of its paths.
pub fn measure(kinds: &[PathKind], images: &Images, dir: &Path) -> Result<Profile, SuiteError> {
    let groups: BTreeSet<&str> = kinds.iter().map(|kind| kind.group().name()).collect();
    let mut profile = Profile::default();
    for group in Group::ALL.iter().copied().filter(|group| groups.contains(group.name())) {
        let of_group = of_boot(group, images, dir)?;
        let wanted = |name: &String| kinds.iter().any(|kind| kind.group() == group && kind.name() == name);
        profile.paths.extend(of_group.paths.into_iter().filter(|(name, _)| wanted(name)));
    }
    let missing = kinds.iter().find(|kind| !profile.paths.contains_key(kind.name()));
    if let Some(kind) = missing {
        let boot = Boot { place: Place::Partita, group: kind.group() };
        let problem = format!("its log of instructions has no path {}", kind.name());
        return Err(SuiteError::Samples { boot, problem, dir: dir.join(format!("profile-{}", kind.group().name())) });
    }
    Ok(profile)
}

/// Profiles all paths of a group's boot.
///
/// # Errors
/// As [`measure`].
pub fn of_boot(group: Group, images: &Images, dir: &Path) -> Result<Profile, SuiteError> {
    let mut program = Program::load(&images.hypervisor).map_err(anyhow::Error::from)?;
    let mut profile = Profile::default();
    for (kind, addresses) in ways_of_boot(group, images, &program, dir)? {
        let functions = profile.paths.entry(kind.name().to_owned()).or_default();
        for address in addresses {
            *functions.entry(program.function(address).to_string()).or_default() += 1;
        }
    }
    Ok(profile)
}

/// The addresses of the instructions of all paths of a group's boot, each path as it is most often.
///
/// # Errors
/// As [`measure`].
pub fn ways_of_boot(
    group: Group,
    images: &Images,
    program: &Program,
    dir: &Path,
) -> Result<BTreeMap<PathKind, Vec<u64>>, SuiteError> {
    let dir = dir.join(format!("profile-{}", group.name()));
    let boot = Boot { place: Place::Partita, group };
    let options = RunOptions {
        machine: MachineKind::Qemu,
        clock: Clock::Icount,
        timeout: TIMEOUT,
        out_dir: dir.clone(),
        hypervisor: Some(images.hypervisor.clone()),
        keep_ram: false,
        quiet: true,
    };
    let mut system = system(group, SAMPLES.into(), &images.payload)?;
    if system.config.housekeeping.smp_call_rounds > 0 {
        system.config.housekeeping.smp_call_rounds = ROUNDS;
    }
    let path = dir.join(INSTRUCTION_LOG);
    let _log = Removed(path.clone());
    let report = run_system_in(&system, &options, &Session { instructions: true, ..Session::default() })?;
    if !report.outcome.is_success() {
        return Err(SuiteError::BootFailed { boot, outcome: report.outcome.to_string(), dir });
    }
    let open = std::fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let log = ExecutionLog::read(BufReader::with_capacity(1 << 20, open))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let samples = |problem: String| SuiteError::Samples { boot, problem, dir: dir.clone() };
    let trace = Trace::load(&dir).map_err(|error| samples(error.to_string()))?;
    all_paths(group, &log, &trace, program).map_err(samples)
}

/// A large file that goes whatever becomes of the run.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // What has not been written is not there.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The most frequent path of each kind.
fn all_paths(
    group: Group,
    log: &ExecutionLog,
    trace: &Trace,
    program: &Program,
) -> Result<BTreeMap<PathKind, Vec<u64>>, String> {
    let mut seen: BTreeMap<PathKind, BTreeMap<Vec<u64>, u64>> = BTreeMap::new();
    let exits = traced_exits(trace).map_err(|error| error.to_string())?;
    let mut of_pcpu: BTreeMap<u16, Vec<_>> = BTreeMap::new();
    for exit in exits.iter().rev() {
        of_pcpu.entry(exit.pcpu).or_default().push(exit);
    }
    for path in paths(&log.executed, |address| program.end_at(address)) {
        let kind = match path.after {
            // The n-th return from a guest is the n-th exit in the trace.
            Some(PathEnd::Entry) => {
                let exit = of_pcpu.get_mut(&path.pcpu).and_then(Vec::pop);
                exit.filter(|_| path.end == PathEnd::Entry).and_then(|exit| PathKind::of_exit(exit.reason, exit.detail))
            }
            Some(PathEnd::Halt) if path.pcpu == HOUSEKEEPING && path.end == PathEnd::Halt => PathKind::of_rounds(group),
            _ => None,
        };
        let Some(kind) = kind else { continue };
        *seen.entry(kind).or_default().entry(path.addresses).or_default() += 1;
    }
    if let Some((pcpu, left)) = of_pcpu.iter().find(|(_, left)| !left.is_empty()) {
        return Err(format!(
            "its trace has {} exits of pCPU {pcpu} more than its log of instructions has; is the hypervisor that of the log?",
            left.len()
        ));
    }
    let most_frequent = |ways: BTreeMap<Vec<u64>, u64>| ways.into_iter().max_by_key(|(_, count)| *count);
    Ok(seen.into_iter().filter_map(|(kind, ways)| Some((kind, most_frequent(ways)?.0))).collect())
}
