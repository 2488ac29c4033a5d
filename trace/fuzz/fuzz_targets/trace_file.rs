//! Any bytes as a trace file, and as the data of a region whose header is good.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partita_trace::file::{Section, TraceFile};
use partita_trace::layout::{RegionHeader, RegionSpec, WriterKind};
use partita_trace::reader::RegionDump;

const SPEC: RegionSpec =
    RegionSpec { writer: WriterKind::Guest, pcpus: 2, ring_slots: 64, histograms: false, tsc_hz: 1, build_id: [1; 20] };

fuzz_target!(|data: &[u8]| {
    let (file, damage) = TraceFile::read(data);
    damage.iter().for_each(|d| drop(d.to_string()));
    file.sections.iter().for_each(decode);
    // The region's bytes are the fuzzer's, the header is not: rings of noise.
    if let Ok(dump) = RegionDump::parse(data, &[], Some(&RegionHeader { spec: SPEC })) {
        show(&dump);
    }
});

fn decode(section: &Section<'_>) {
    if let Ok(dump) = section.decode() {
        show(&dump);
    }
}

fn show(dump: &RegionDump) {
    for ring in &dump.rings {
        let (counts, _) = ring.summary();
        assert_eq!(counts.frames, ring.frames().count() as u64);
    }
    dump.damage.iter().for_each(|d| drop(d.to_string()));
}
