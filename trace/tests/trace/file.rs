//! The file, and decoding around damage.

use std::sync::OnceLock;

use partita_trace::event::Event;
use partita_trace::file::{BLOCK_LEN, Damage, SECTIONS_MAX, Section, TooManySections, TraceFile};
use partita_trace::histogram::HistogramId;
use partita_trace::layout::{RegionSpec, Window, WriterKind};
use partita_trace::names::ExitReason;
use partita_trace::reader::{RegionDamage, RegionDump};
use partita_trace::ring::{FRAME_SLOTS_MAX, Writer};
use partita_trace::snapshot::{Body, Frame};

use crate::common::{Memory, SPEC};

const LARGE: RegionSpec = RegionSpec { ring_slots: 512, ..SPEC };
const GUEST: RegionSpec =
    RegionSpec { writer: WriterKind::Guest, pcpus: 1, ring_slots: 128, histograms: false, build_id: [7; 20], ..SPEC };

fn fill(mut writer: Writer<'_>, frames: u64) {
    for i in 0..frames {
        if i.is_multiple_of(4) {
            writer.log(i, &[i as u8; 40]);
        } else {
            writer.record(i, Event::Sample { row: 1, ticks: i, index: i });
        }
    }
}

fn is_as_filled(frame: &Frame) -> bool {
    let i = frame.tsc;
    match &frame.body {
        Body::Log(bytes) => i.is_multiple_of(4) && bytes == &[i as u8; 40],
        body => !i.is_multiple_of(4) && *body == Body::Event(Event::Sample { row: 1, ticks: i, index: i }),
    }
}

/// A hypervisor's region with a full and a partly filled ring, and a guest's.
fn regions() -> &'static (Vec<u8>, Vec<u8>) {
    static REGIONS: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    REGIONS.get_or_init(|| {
        let (host, guest) = (Memory::new(LARGE.len()), Memory::new(GUEST.len()));
        let region = host.region(&LARGE);
        fill(region.ring(0).unwrap().writer(), 2000);
        fill(region.ring(1).unwrap().writer(), 100);
        let mut bank = region.histograms(1).unwrap();
        (0..500).for_each(|i| bank.record(HistogramId::Exit(ExitReason::Cpuid), i));
        region.add_window(Window { partition: 0, gpa: 0, hpa: 1 << 30, len: GUEST.len() as u64 }).unwrap();
        fill(guest.region(&GUEST).ring(0).unwrap().writer(), 60);
        (host.bytes(), guest.bytes())
    })
}

fn sections() -> Vec<Section<'static>> {
    let (host, guest) = regions();
    vec![Section::new(None, 0x20_0000, host), Section::new(Some(0), 1 << 30, guest)]
}

fn file() -> Vec<u8> {
    TraceFile { sections: sections() }.write().unwrap()
}

fn frames(dump: &RegionDump) -> Vec<Frame> {
    dump.rings.iter().flat_map(|r| r.frames()).collect()
}

/// All frames that decoding a file shows. Each must have been written so.
fn decode(file: &TraceFile<'_>) -> (Vec<Frame>, Vec<RegionDamage>) {
    let (mut all, mut damage) = (Vec::new(), Vec::new());
    for dump in file.sections.iter().filter_map(|s| s.decode().ok()) {
        all.extend(frames(&dump));
        for histogram in &dump.histograms {
            assert_eq!((histogram.pcpu, histogram.histogram.count), (1, 500));
            assert!(histogram.histogram.is_consistent());
        }
        for window in &dump.windows {
            assert_eq!(window.hpa, 1 << 30);
        }
        for ring in &dump.rings {
            let counts = ring.summary().0;
            assert!(counts.frames <= 2000 && counts.overwritten <= 2000 && counts.damaged <= 2000);
        }
        damage.extend(dump.damage);
    }
    for frame in &all {
        assert!(is_as_filled(frame), "never written: {frame:?}");
    }
    (all, damage)
}

#[test]
fn what_is_written_is_read() {
    let bytes = file();
    let (file, damage) = TraceFile::read(&bytes);
    assert_eq!(damage, []);
    assert_eq!(file.sections, sections());
    let (frames, damage) = decode(&file);
    assert_eq!(damage, []);
    let dump = file.sections[0].decode().unwrap();
    assert_eq!(dump.windows.len(), 1);
    assert_eq!(dump.histograms.len(), 1);
    assert!(frames.len() > 300);
}

#[test]
fn a_file_without_regions_is_a_file() {
    let bytes = TraceFile::default().write().unwrap();
    assert_eq!(TraceFile::read(&bytes), (TraceFile::default(), vec![]));
    let many = TraceFile { sections: vec![Section::new(None, 0, &[]); SECTIONS_MAX + 1] };
    assert_eq!(many.write(), Err(TooManySections));
}

#[test]
fn no_file_is_no_file() {
    for bytes in [&[][..], b"PARTITAF", &[0; 10_000], b"PARTITAFxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxPARTITAE"] {
        let (file, damage) = TraceFile::read(bytes);
        assert_eq!((file.sections.len(), damage), (0, vec![Damage::NoIndex]));
    }
}

/// Flipped bits all over the file: found, located, and everything else still there.
#[test]
fn a_flipped_bit_costs_its_block() {
    let mut bytes = file();
    let whole = decode(&TraceFile::read(&bytes).0).0;
    let index = (0..bytes.len()).step_by(BLOCK_LEN).find(|&at| bytes[at..].starts_with(b"PARTITAT")).unwrap();
    let step = |at: usize| {
        if at < index || at > bytes.len() - index { 41 } else { 1009 }
    };
    let places: Vec<_> =
        std::iter::successors(Some(0), |&at| Some(at + step(at))).take_while(|&at| at < bytes.len()).collect();
    for at in places {
        bytes[at] ^= 1 << (at % 8);
        let (file, damage) = TraceFile::read(&bytes);
        let [one] = damage.as_slice() else { panic!("one flipped bit at {at:#x}: {damage:?}") };
        let (shown, _) = decode(&file);
        match one {
            Damage::Data { section, range } => {
                assert!(range.end - range.start <= BLOCK_LEN as u64, "{one}");
                let in_file = file.sections[*section].data.as_ptr() as u64 - bytes.as_ptr() as u64;
                assert!((in_file + range.start..in_file + range.end.next_multiple_of(4096)).contains(&(at as u64)));
                // A block's slots, a head's newest frames, and the frames that reach into the block.
                assert!(shown.len() + BLOCK_LEN / 32 + 2 * FRAME_SLOTS_MAX >= whole.len(), "{one}");
            }
            _ => assert_eq!(shown, whole, "{one}"),
        }
        bytes[at] ^= 1 << (at % 8);
    }
}

#[test]
fn a_truncated_file_is_decoded_up_to_its_end() {
    let bytes = file();
    let mut last = usize::MAX;
    for len in (0..bytes.len()).rev().step_by(509) {
        let (file, damage) = TraceFile::read(&bytes[..len]);
        assert!(!damage.is_empty());
        let shown = decode(&file).0.len();
        // The end of a ring's oldest lap is cut first, so that what is shown only shrinks, but for the damage
        // that separates frames.
        assert!(shown <= last.saturating_add(FRAME_SLOTS_MAX));
        last = shown;
    }
    assert_eq!(last, 0);
}

#[test]
fn damage_in_the_middle_of_a_ring_is_located_and_counted() {
    let mut bytes = regions().0.clone();
    let offset = RegionDump::parse(&bytes, &[], None).unwrap().header.ring_offset(1).unwrap();
    // Frame 4 is a log of three slots: slots 6 to 8, after a log of three and three events.
    bytes[offset + 128 + 7 * 32 + 5] ^= 0x40;
    let dump = RegionDump::parse(&bytes, &[], None).unwrap();
    let [RegionDamage::Slots(damage)] = dump.damage.as_slice() else { panic!("{:?}", dump.damage) };
    assert_eq!((damage.ring, damage.slots.clone(), damage.offset), (1, 6..9, 128 + 6 * 32));
    let counts = dump.rings[1].summary().0;
    assert_eq!((counts.frames, counts.damaged, counts.overwritten, counts.exact), (99, 1, 0, true));
    assert!(dump.rings[1].frames().all(|f| is_as_filled(&f) && f.tsc != 4));
}

#[test]
fn a_ring_without_its_head_is_recovered_by_the_positions_in_its_slots() {
    let bytes = &regions().0;
    let whole = RegionDump::parse(bytes, &[], None).unwrap();
    for ring in 0..2 {
        let offset = whole.header.ring_offset(ring).unwrap();
        let dump = RegionDump::parse(bytes, std::slice::from_ref(&(offset..offset + 128)), None).unwrap();
        assert_eq!(dump.damage, [RegionDamage::RingHead { ring, offset }]);
        let (all, some) = (&whole.rings[ring as usize], &dump.rings[ring as usize]);
        let (all, some): (Vec<_>, Vec<_>) = (all.frames().collect(), some.frames().collect());
        assert!(some.len() + FRAME_SLOTS_MAX >= all.len());
        assert_eq!(some, all[..some.len()]);
        assert!(!dump.rings[ring as usize].summary().0.exact);
    }
}

#[test]
fn the_regions_own_header_has_a_stand_in() {
    let mut bytes = file();
    let at = (0..bytes.len()).step_by(BLOCK_LEN).find(|&at| bytes[at..].starts_with(b"PARTITAT")).unwrap();
    let whole = decode(&TraceFile::read(&bytes).0).0;
    bytes[at] ^= 1;
    let (file, damage) = TraceFile::read(&bytes);
    assert_eq!(damage, [Damage::Data { section: 0, range: 0..BLOCK_LEN as u64 }]);
    let (shown, damage) = decode(&file);
    assert!(damage.contains(&RegionDamage::Header));
    assert_eq!(shown, whole);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever happens to a file, nothing is shown that was not written, and nothing panics.
        #[test]
        fn damage_is_found(
            flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = file();
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let before = bytes.clone();
            for (at, bit) in flips {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                }
            }
            let (read, damage) = TraceFile::read(&bytes);
            prop_assert!(!damage.is_empty() || (cut.is_none() && before == bytes));
            decode(&read);
            prop_assert!(damage.iter().all(|d| !d.to_string().is_empty()));
        }

        /// Bytes of a region that nothing protects: no panic, whatever is in them.
        #[test]
        fn wild_bytes_do_not_panic(at in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 1..200)) {
            let mut bytes = regions().1.clone();
            let at = at.index(bytes.len() - noise.len());
            bytes[at..at + noise.len()].copy_from_slice(&noise);
            if let Ok(dump) = RegionDump::parse(&bytes, &[], None) {
                let _ = frames(&dump);
                dump.rings.iter().for_each(|r| drop(r.summary()));
            }
        }
    }
}
