//! How much the hypervisor takes: its sections, the memory that it keeps, and its lines of `unsafe`.

mod astray;
mod sections;
mod unsafe_lines;

pub use astray::{Astray, references_astray};
pub use sections::Sections;
pub use unsafe_lines::{UnsafeLines, unsafe_lines};

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::emulator::{Clock, MachineKind};
use crate::outcome::RunOutcome;
use crate::run::{RunOptions, run_system};
use crate::system_file::SystemFile;

/// Most bytes of code that stay mapped on a machine: those for all machines, and for its vendor's.
pub const TEXT_MAX: u64 = 128 << 10;
/// Most bytes of memory that the hypervisor keeps with 4 pCPUs and one partition, without the trace region.
pub const RAM_MAX: u64 = 4 << 20;

/// Memory that the hypervisor keeps for itself, in bytes, without the trace region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// pCPUs of the machine.
    pub pcpus: u16,
    /// Image and pool, with one partition.
    pub ram: u64,
    /// How much of it is for that partition: its permission maps, nested tables, and its window's tables.
    pub per_partition: u64,
}

/// Ends the run.
const FIRST: &str = r#"
[[partition]]
name = "rt0"
pcpus = [2, 3]
memory = "64 MiB"
image = { kind = "payload", name = "latency" }
cmdline = "group=exit samples=1"
expect = "finish"
"#;

const SECOND: &str = r#"
[[partition]]
name = "neighbour"
pcpus = [1]
memory = "16 MiB"
image = { kind = "payload", name = "neighbour" }
cmdline = "writes=32 rounds=512"
expect = "run"
"#;

/// Boots systems with one and with two partitions on so many pCPUs, four at least, and tells what they keep. Logs go to
/// `out_dir`.
///
/// # Errors
/// A run fails, or does not say what it keeps.
pub fn measure_memory(pcpus: u16, out_dir: &Path) -> anyhow::Result<Memory> {
    anyhow::ensure!(pcpus >= 4, "{pcpus} pCPUs are too few for two partitions; use 4 at least");
    let one = kept(pcpus, &[FIRST], &out_dir.join("one"))?;
    let two = kept(pcpus, &[FIRST, SECOND], &out_dir.join("two"))?;
    Ok(Memory { pcpus, ram: one, per_partition: two.saturating_sub(one) })
}

fn kept(pcpus: u16, partitions: &[&str], out_dir: &Path) -> anyhow::Result<u64> {
    let text = format!("[system]\nname = \"size\"\n[machine]\npcpus = {pcpus}\n{}", partitions.concat());
    let system = SystemFile::parse(&text, &out_dir.join("size.toml"))?;
    let options = RunOptions {
        machine: MachineKind::Qemu,
        clock: Clock::Icount,
        timeout: Duration::from_secs(60),
        out_dir: out_dir.to_path_buf(),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    };
    let report = run_system(&system, &options)?;
    anyhow::ensure!(report.outcome == RunOutcome::Success, "the run that measures the memory failed");
    let log = out_dir.join("hypervisor.log");
    let console = std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    kept_by_report(&console).with_context(|| format!("{} has no report of the memory", log.display()))
}

/// Bytes of the hypervisor but for the trace, by its own report: `... hypervisor A KiB (image B KiB, pool C KiB of which trace D
/// KiB) ...`.
fn kept_by_report(console: &str) -> Option<u64> {
    let line = console.lines().find(|line| line.starts_with("partita: memory: "))?;
    let number = |before: &str| line.split_once(before)?.1.split(' ').next()?.parse::<u64>().ok();
    Some(number("hypervisor ")?.checked_sub(number("of which trace ")?)? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let line = "partita: memory: 9 KiB RAM, partitions 1 KiB, bundle 2 KiB, hypervisor 2200 KiB (image 512 KiB, pool 1688 \
                    KiB of which trace 1100 KiB), unassigned 3 KiB";
        assert_eq!(kept_by_report(&format!("partita: x\n{line}\n")), Some(1100 << 10));
        assert_eq!(kept_by_report("partita: memory: hypervisor 1 KiB (of which trace 2 KiB)"), None);
        assert_eq!(kept_by_report(""), None);
    }
}
