//! What is kept of a run: the trace regions of the machine's RAM, and the ELF files whose log strings they refer to.

use anyhow::Context;
use object::{Object, ObjectSection};
use partita_abi::report::TRACE_REGION_AT;
use partita_trace::file::{Section, TraceFile};
use partita_trace::layout::{HEADER_LEN, MAGIC, REGION_ALIGN, RegionHeader, WriterKind, windows};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where in the RAM file a physical address lies.
pub type RamOffset<'f> = &'f dyn Fn(u64) -> Option<u64>;

/// A trace region that was found in RAM.
struct Found {
    partition: Option<u16>,
    hpa: u64,
    bytes: Vec<u8>,
}

/// What [`save_trace`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedTrace {
    /// Regions that were saved, guests' windows included.
    pub regions: usize,
    /// What a user should know, in whole sentences.
    pub notes: Vec<String>,
}

/// Copies all trace regions in the RAM file `ram` to `target`. `console` is what the hypervisor, or a bare payload,
/// printed: where it names the address of its region, only that one counts, so that nothing in a guest's memory can
/// pass for it.
///
/// # Errors
/// A file cannot be read or written.
pub fn save_trace(ram: &Path, offset_of: RamOffset<'_>, console: &str, target: &Path) -> anyhow::Result<SavedTrace> {
    let file = File::open(ram).with_context(|| format!("cannot read the machine's RAM {}", ram.display()))?;
    let mut saved = SavedTrace::default();
    let regions = find_regions(&file).with_context(|| format!("cannot read the machine's RAM {}", ram.display()))?;
    let mut found: Vec<Found> = Vec::new();
    for (hpa, header) in named_only(regions, console) {
        let Some(bytes) = read_region(&file, hpa, header.region_len() as u64) else {
            saved.notes.push(format!("The trace region at {hpa:#x} reaches beyond the RAM and is left out."));
            continue;
        };
        for window in windows(bytes.get(..HEADER_LEN).unwrap_or_default()) {
            let Ok(window) = window else {
                saved.notes.push("An entry of the trace's window table is damaged and is left out.".into());
                continue;
            };
            match offset_of(window.hpa).and_then(|offset| read_region(&file, offset, window.len)) {
                Some(bytes) => match RegionHeader::parse(&bytes) {
                    Ok(_) => found.push(Found { partition: Some(window.partition), hpa: window.hpa, bytes }),
                    Err(error) => saved.notes.push(format!(
                        "Partition {} has spoiled its trace window since it was accepted, and it is left out: {error}",
                        window.partition
                    )),
                },
                None => saved.notes.push(format!(
                    "The trace window of partition {} at {:#x} lies outside the RAM and is left out.",
                    window.partition, window.hpa
                )),
            }
        }
        found.push(Found { partition: None, hpa, bytes });
    }
    if found.is_empty() {
        saved.notes.push("No trace region was found in the machine's RAM.".into());
        return Ok(saved);
    }
    // The hypervisor's own comes first.
    found.sort_by_key(|found| (found.partition.is_some(), found.partition, found.hpa));
    saved.regions = found.len();
    let sections = found.iter().map(|found| Section::new(found.partition, found.hpa, &found.bytes)).collect();
    let bytes = TraceFile { sections }.write()?;
    std::fs::write(target, bytes).with_context(|| format!("cannot write the trace {}", target.display()))?;
    Ok(saved)
}

/// All regions of a hypervisor or a bare payload: file offset and header.
fn find_regions(ram: &File) -> std::io::Result<Vec<(u64, RegionHeader)>> {
    let len = ram.metadata()?.len();
    let mut regions = Vec::new();
    let mut page = vec![0; HEADER_LEN];
    for offset in (0..len.saturating_sub(HEADER_LEN as u64)).step_by(REGION_ALIGN) {
        let mut magic = [0; MAGIC.len()];
        ram.read_exact_at(&mut magic, offset)?;
        if magic != MAGIC {
            continue;
        }
        ram.read_exact_at(&mut page, offset)?;
        let Ok(header) = RegionHeader::parse(&page) else { continue };
        // A guest's own region counts only where the hypervisor accepted it as a window.
        if header.spec.writer != WriterKind::Guest {
            regions.push((offset, header));
        }
    }
    Ok(regions)
}

/// Only the region whose address the console names after [`TRACE_REGION_AT`], first of all: what else is printed, a guest
/// can have chosen. All of them if it names none, as when the hypervisor did not get so far.
fn named_only(regions: Vec<(u64, RegionHeader)>, console: &str) -> Vec<(u64, RegionHeader)> {
    let named = console.split(TRACE_REGION_AT).nth(1).and_then(|after| {
        let digits = after.trim_start().strip_prefix("0x")?;
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        u64::from_str_radix(digits.get(..end)?, 16).ok()
    });
    match named {
        Some(address) => regions.into_iter().filter(|region| region.0 == address).collect(),
        None => regions,
    }
}

fn read_region(ram: &File, offset: u64, len: u64) -> Option<Vec<u8>> {
    let end = offset.checked_add(len)?;
    if end > ram.metadata().ok()?.len() || len > partita_trace::layout::REGION_LEN_MAX as u64 {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    ram.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// Copies each of `elves` that has log strings (a `.defmt` section) to `dir`, named by build ID. Returns the copies.
///
/// # Errors
/// One cannot be read or written.
pub fn save_elves(elves: &[PathBuf], dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut copies = Vec::new();
    for path in elves {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(build_id) = defmt_build_id(&bytes) else { continue };
        let target = dir.join(format!("{build_id}.elf"));
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(&target, &bytes))
            .with_context(|| format!("cannot write {}", target.display()))?;
        copies.push(target);
    }
    Ok(copies)
}

/// The build ID, in hexadecimal, of an ELF file with log strings.
fn defmt_build_id(elf: &[u8]) -> Option<String> {
    let file = object::File::parse(elf).ok()?;
    file.sections().find(|section| section.name() == Ok(".defmt"))?;
    hex_build_id(&file)
}

/// The build ID of an ELF file, in hexadecimal.
pub(crate) fn build_id_of(elf: &[u8]) -> Option<String> {
    hex_build_id(&object::File::parse(elf).ok()?)
}

fn hex_build_id(file: &object::File<'_>) -> Option<String> {
    let build_id = file.build_id().ok()??;
    Some(build_id.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita_trace::layout::RegionSpec;

    #[test]
    fn only_regions_that_the_console_names_count_if_it_names_any() {
        let spec = RegionSpec {
            writer: WriterKind::Hypervisor,
            pcpus: 1,
            ring_slots: 1024,
            histograms: false,
            tsc_hz: 0,
            build_id: [0; 20],
        };
        let regions = || vec![(0x20_0000, RegionHeader { spec }), (0x1080_0000, RegionHeader { spec })];
        let left = |console| named_only(regions(), console).into_iter().map(|region| region.0).collect::<Vec<_>>();
        assert_eq!(left("partita: trace region at 0x10800000\npartita: partition 0 at 0x200000\n"), [0x1080_0000]);
        assert_eq!(left("payload: trace region at 0x200000, 64 slots"), [0x20_0000]);
        let forged = "partita: trace region at 0x10800000\nguest: trace region at 0x200000\n";
        assert_eq!(left(forged), [0x1080_0000]);
        assert!(left("partita: trace region at 0x7\n").is_empty());
        assert_eq!(left("partition 0 at 0x200000"), [0x20_0000, 0x1080_0000]);
    }

    #[test]
    fn only_elf_files_with_log_strings_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        assert_eq!(save_elves(&[own], dir.path()).unwrap(), Vec::<PathBuf>::new());
        assert!(save_elves(&[dir.path().join("no")], dir.path()).is_err());
    }
}
