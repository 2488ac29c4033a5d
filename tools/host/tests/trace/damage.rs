//! Traces that are not whole.

use crate::common::{GUEST, HYPERVISOR, decoded, file, region, run_dir};
use partita_host::trace::{DecodeOptions, Decoder, LoadError, Trace, chart, histograms, leg_frames_lines};
use partita_trace::event::Event;
use partita_trace::layout::RegionHeader;
use partita_trace::ring::{RING_HEAD_LEN, SLOT_LEN};
use proptest::prelude::*;
use std::sync::OnceLock;

/// A hundred marks on each of two pCPUs, and on a guest's first vCPU.
fn regions() -> (Vec<u8>, Vec<u8>) {
    let marks = |region: partita_trace::Region<'_>, ring: u16, shift: u64| {
        let mut writer = region.ring(ring).unwrap().writer();
        (0..100).for_each(|i| writer.record(1000 * i + shift, Event::Mark { id: i as u32, first: i, second: 0 }));
    };
    let hypervisor = region(&HYPERVISOR, |region| {
        marks(region, 0, 1);
        marks(region, 2, 2);
    });
    (hypervisor, region(&GUEST, |region| marks(region, 0, 3)))
}

fn whole() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let (hypervisor, guest) = regions();
        file(&hypervisor, Some(&guest))
    })
}

fn marks(text: &str, place: &str) -> usize {
    text.lines().filter(|line| line.contains(&format!("  {place}  ")) && line.contains("mark")).count()
}

fn print(bytes: &[u8]) -> (bool, String) {
    let dir = run_dir(bytes);
    (Trace::load(dir.path()).unwrap().is_whole(), decoded(dir.path(), &DecodeOptions::default()))
}

#[test]
fn a_whole_trace_is_whole() {
    let (is_whole, text) = print(whole());
    assert!(is_whole && text.ends_with("The trace is whole.\n"), "{text}");
    assert_eq!((marks(&text, "pCPU 2      "), marks(&text, "rt0/vCPU 0  ")), (100, 100));
    let times: Vec<u64> = text.lines().skip(1).map_while(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert!(times.len() == 300 && times.is_sorted());
}

#[test]
fn a_slot_overwritten_in_memory_is_shown_as_a_gap() {
    let (mut hypervisor, guest) = regions();
    let ring = RegionHeader::parse(&hypervisor).unwrap().ring_offset(2).unwrap();
    // The position that slot 50 carries.
    hypervisor[ring + RING_HEAD_LEN + 50 * SLOT_LEN + 4] ^= 0xFF;
    let (is_whole, text) = print(&file(&hypervisor, Some(&guest)));
    assert!(!is_whole && marks(&text, "pCPU 2      ") == 99, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let gap = lines.iter().position(|line| line.starts_with("-- pCPU 2: damaged, slots 50 to 50")).unwrap();
    let (before, after) = (lines[..gap].join("\n"), lines[gap..].join("\n"));
    assert!(before.contains("id=49 ") && after.contains("id=51 "), "{text}");
    assert!(after.contains("The trace is damaged:\n  hypervisor: slots 50 to 50 of ring 2 are damaged"), "{after}");
}

#[test]
fn a_flipped_bit_in_the_file_costs_its_block_only() {
    let mut bytes = whole().to_vec();
    let at = (0..bytes.len()).step_by(4096).find(|&at| bytes[at..].starts_with(b"PARTITAT")).unwrap();
    bytes[at + 4096 + 300] ^= 1;
    let (is_whole, text) = print(&bytes);
    assert!(!is_whole && text.contains("bytes 0x1000 to 0x2000 of section 0 are damaged"), "{text}");
    assert_eq!(marks(&text, "pCPU 2      "), 100);
    assert_eq!(marks(&text, "rt0/vCPU 0  "), 100);
}

#[test]
fn a_truncated_file_is_shown_as_far_as_it_goes() {
    let (is_whole, text) = print(&whole()[..whole().len() / 3]);
    assert!(!is_whole && marks(&text, "pCPU 0      ") == 100, "{text}");
    assert!(text.contains("the file ends after"), "{text}");
    assert_eq!(marks(&text, "rt0/vCPU 0  "), 0);
}

#[test]
fn what_is_no_trace_is_an_error() {
    let empty = tempfile::tempdir().unwrap();
    let error = |dir: &std::path::Path| Trace::load(dir).unwrap_err();
    assert!(matches!(error(&empty.path().join("no")), LoadError::NoDirectory { .. }));
    assert!(matches!(error(empty.path()), LoadError::NoTrace { .. }));
    for bytes in [&b""[..], b"hello", &[0; 10_000]] {
        let error = error(run_dir(bytes).path());
        assert!(matches!(error, LoadError::Unusable { .. }) && error.to_string().contains("trace.bin"), "{error}");
    }
}

#[test]
fn without_the_systems_file_guests_are_shown_by_number() {
    let dir = run_dir(whole());
    std::fs::remove_file(dir.path().join("system.toml")).unwrap();
    let text = decoded(dir.path(), &DecodeOptions::default());
    assert!(text.contains("partition 0/vCPU 0") && text.contains("note: system.toml does not tell"), "{text}");
    std::fs::write(dir.path().join("system.toml"), "[system]\nname = 1").unwrap();
    std::fs::write(dir.path().join("run.json"), "{}").unwrap();
    let text = decoded(dir.path(), &DecodeOptions::default());
    assert!(text.contains("note: DIR/system.toml") && text.contains("note: DIR/run.json"), "{text}");
}

/// Everything that is done with a trace.
fn view(bytes: &[u8]) {
    if let Ok(trace) = Trace::parse(bytes, None) {
        let mut decoder = Decoder::new(&trace);
        decoder.write(&mut std::io::sink(), &DecodeOptions::default()).unwrap();
        let (hist, _) = histograms(&trace);
        chart::table(&hist, trace.tsc_hz).trim_fmt();
        chart::leg_table(&hist, trace.tsc_hz).iter().for_each(|table| drop(table.trim_fmt()));
        leg_frames_lines(&hist.smp_leg_frames);
        hist.sources.iter().for_each(|source| drop(chart::chart(source, trace.tsc_hz)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        view(&bytes);
        view(&[b"PARTITAF", &bytes[..]].concat());
    }

    /// What is damaged in the file.
    #[test]
    fn arbitrary_changes_of_a_file_do_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = whole().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        view(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        view(&bytes);
    }

    /// What was wrong in memory already, or is a guest's malice: the file's checksums are right.
    #[test]
    fn arbitrary_memory_does_not_panic(
        noise in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..64)), 1..20),
    ) {
        let (mut hypervisor, mut guest) = regions();
        for (at, noise) in noise {
            for bytes in [&mut hypervisor, &mut guest] {
                let at = at.index(bytes.len() - noise.len());
                bytes[at..at + noise.len()].copy_from_slice(&noise);
            }
        }
        view(&file(&hypervisor, Some(&guest)));
    }
}
