//! What on a real processor makes figures worse than they need be: clocks that change, and system management interrupts.

use serde::Serialize;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// MSR_SMI_COUNT (SDM vol. 4, table 2-2): SMIs since the reset, in its low 32 bits. Intel only.
const MSR_SMI_COUNT: u64 = 0x34;
/// The governor that lets the clock be.
const STEADY: &str = "performance";

/// A host. Its files lie in a directory, `/` but in tests.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

/// SMIs of all processors together, or why they cannot be counted.
pub type Smis = Result<u64, String>;

/// What a host was like during a run: part of `bench.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostFacts {
    /// SMIs during the run, on all CPUs; `None` if they cannot be counted.
    pub smis: Option<u64>,
    /// Why the processor's clock may have changed: [`Host::warnings`].
    pub warnings: Vec<String>,
}

impl HostFacts {
    /// Those of a run, from the counts before and after it.
    pub fn new(warnings: Vec<String>, before: &Smis, after: &Smis) -> Self {
        let counts = before.as_ref().ok().zip(after.as_ref().ok());
        Self { smis: counts.map(|(before, after)| after.saturating_sub(*before)), warnings }
    }
}

impl Default for Host {
    /// This one.
    fn default() -> Self {
        Self::at(Path::new("/"))
    }
}

impl Host {
    /// The host whose `sys` and `dev` are in `root`.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Why the processor's clock may change during a run: a sentence with its cure each.
    pub fn warnings(&self) -> Vec<String> {
        let cpus = self.root.join("sys/devices/system/cpu");
        let mut warnings = Vec::new();
        let others: Vec<(usize, String)> = self
            .cpus()
            .into_iter()
            .filter_map(|cpu| Some((cpu, read(&cpus.join(format!("cpu{cpu}/cpufreq/scaling_governor")))?)))
            .filter(|(_, governor)| governor != STEADY)
            .collect();
        if let Some((cpu, governor)) = others.first() {
            let more = if others.len() > 1 { format!(" (and {} more)", others.len() - 1) } else { String::new() };
            warnings.push(format!(
                "frequency scaling is on: the governor of CPU {cpu}{more} is {governor:?}; `cpupower frequency-set -g \
                 {STEADY}`"
            ));
        }
        let turbo_is_on = [("intel_pstate/no_turbo", "0", "1"), ("cpufreq/boost", "1", "0")];
        for (name, on, off) in turbo_is_on {
            let path = cpus.join(name);
            if read(&path).is_some_and(|value| value == on) {
                warnings.push(format!("turbo is on ({} is {on}); `echo {off} > {}`", path.display(), path.display()));
            }
        }
        warnings
    }

    /// SMIs since the reset.
    ///
    /// # Errors
    /// They cannot be read: a sentence about what is missing.
    pub fn smis(&self) -> Smis {
        let cpus = self.cpus();
        if cpus.is_empty() {
            return Err(format!("{} lists no CPU", self.root.join("sys/devices/system/cpu").display()));
        }
        let of_cpu = |cpu: usize| {
            let path = self.root.join(format!("dev/cpu/{cpu}/msr"));
            let mut bytes = [0; 8];
            let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, MSR_SMI_COUNT));
            let why = |error: std::io::Error| {
                format!("{}: {}; as root, `modprobe msr`; AMD has no such MSR", path.display(), error.kind())
            };
            read.map_err(why).map(|()| u64::from_le_bytes(bytes) & u64::from(u32::MAX))
        };
        cpus.into_iter().map(of_cpu).sum()
    }

    /// The numbers of the CPUs that are online.
    fn cpus(&self) -> Vec<usize> {
        let dir = self.root.join("sys/devices/system/cpu");
        let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("cpu")?.parse().ok();
        // A CPU that cannot be taken offline, as often the first, does not say that it is online.
        let is_online = |cpu: &usize| read(&dir.join(format!("cpu{cpu}/online"))).is_none_or(|value| value != "0");
        let entries = std::fs::read_dir(&dir).into_iter().flatten();
        let cpus = entries.filter_map(|entry| number(entry.ok()?.file_name()));
        let mut cpus: Vec<usize> = cpus.filter(is_online).collect();
        cpus.sort_unstable();
        cpus
    }
}

/// A line about the SMIs between two counts.
pub fn smi_line(before: &Smis, after: &Smis) -> String {
    match (before, after) {
        (Ok(before), Ok(after)) => format!("SMIs during the run, on all CPUs: {}", after.saturating_sub(*before)),
        (Err(why), _) | (_, Err(why)) => format!("SMIs during the run: unknown ({why})"),
    }
}

/// The text of a small file.
fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let host = Host::at(dir.path());
        (dir, host)
    }

    #[test]
    fn a_clock_that_may_change_is_warned_of() {
        let (_dir, calm) = host(&[
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", b"performance\n"),
            ("sys/devices/system/cpu/intel_pstate/no_turbo", b"1\n"),
            ("sys/devices/system/cpu/cpufreq/boost", b"0\n"),
        ]);
        assert_eq!(calm.warnings(), [""; 0]);
        let (_dir, restless) = host(&[
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", b"performance\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", b"powersave\n"),
            ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", b"schedutil\n"),
            ("sys/devices/system/cpu/intel_pstate/no_turbo", b"0\n"),
            ("sys/devices/system/cpu/cpufreq/boost", b"1\n"),
        ]);
        let warnings = restless.warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].contains("CPU 1 (and 1 more) is \"powersave\"") && warnings[0].contains("cpupower"));
        assert!(warnings[1].contains("no_turbo is 0") && warnings[2].contains("boost is 1"), "{warnings:?}");
        let (_dir, unknown) = host(&[]);
        assert_eq!(unknown.warnings(), [""; 0]);
    }

    #[test]
    fn smis_are_counted_or_unknown() {
        let msrs = |count: u64| [vec![0xFF; 0x34], count.to_le_bytes().to_vec()].concat();
        let cpu = |number: usize| format!("sys/devices/system/cpu/cpu{number}/online");
        let (_dir, counted) = host(&[
            ("sys/devices/system/cpu/cpu0/topology/core_id", b"0"),
            (&cpu(1), b"1\n"),
            // Has no `dev/cpu/2/msr`.
            (&cpu(2), b"0\n"),
            ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", b"powersave\n"),
            ("dev/cpu/0/msr", &msrs(5)),
            // The high half is reserved.
            ("dev/cpu/1/msr", &msrs(0xFFFF_FFFF_0000_0003)),
        ]);
        assert_eq!((counted.smis(), counted.warnings()), (Ok(8), Vec::new()));
        let (_dir, unreadable) = host(&[(&cpu(0), b"1")]);
        let why = unreadable.smis().unwrap_err();
        assert!(why.contains("dev/cpu/0/msr") && why.contains("modprobe msr"), "{why}");
        assert!(host(&[]).1.smis().is_err());
        assert_eq!(smi_line(&Ok(5), &Ok(8)), "SMIs during the run, on all CPUs: 3");
        let facts = |before: &Smis, after: &Smis| HostFacts::new(Vec::new(), before, after).smis;
        assert_eq!((facts(&Ok(5), &Ok(8)), facts(&Ok(5), &Err(why.clone()))), (Some(3), None));
        assert!(smi_line(&Ok(5), &Err(why)).starts_with("SMIs during the run: unknown ("));
    }
}
