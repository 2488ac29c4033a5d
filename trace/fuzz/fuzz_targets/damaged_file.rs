//! A good file, cut and with flipped bits: nothing that was not written is shown.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use partita_trace::event::Event;
use partita_trace::file::{Section, TraceFile};
use partita_trace::layout::{REGION_ALIGN, Region, RegionSpec, WriterKind};
use partita_trace::names::KickKind;
use partita_trace::snapshot::Body;

const SPEC: RegionSpec =
    RegionSpec { writer: WriterKind::Bare, pcpus: 2, ring_slots: 128, histograms: false, tsc_hz: 1, build_id: [1; 20] };

/// Of payload words that are one field, and of such that are shared by two.
fn event(i: u64) -> Event {
    if i % 4 == 1 {
        let [post_to_kick, kick_to_exit, exit_to_run, run_to_ack] = [1, 2, 3, 4].map(|leg| leg * i as u32);
        let (peer, kind, by_caller) = (3, KickKind::Vector, i % 8 == 1);
        Event::SmpCallServed { peer, kind, by_caller, post_to_kick, kick_to_exit, exit_to_run, run_to_ack }
    } else {
        Event::Sample { row: 1, ticks: i, index: i }
    }
}

fn good_file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        // Memory of which a part is aligned as regions are.
        let mut memory = vec![0u64; (REGION_ALIGN + SPEC.len()) / 8];
        let base = memory.as_mut_ptr().cast::<u8>();
        let base = base.wrapping_add(base.align_offset(REGION_ALIGN));
        // SAFETY: the part lies in `memory`, which nothing else uses until the region is gone.
        let region = unsafe { Region::init(base, SPEC.len(), &SPEC) }.expect("the spec is good");
        for ring in 0..SPEC.pcpus {
            let mut writer = region.ring(ring).expect("it is in the spec").writer();
            for i in 0..u64::from(ring + 1) * 70 {
                match i % 4 {
                    0 => writer.log(i, &[i as u8; 40]),
                    _ => writer.record(i, event(i)),
                }
            }
        }
        // SAFETY: as above, and nothing writes any more.
        let bytes = unsafe { std::slice::from_raw_parts(base, SPEC.len()) };
        TraceFile { sections: vec![Section::new(None, 0, bytes)] }.write().expect("one section")
    })
}

fuzz_target!(|data: (Vec<(u16, u8)>, Option<u16>)| {
    let (flips, cut) = data;
    let mut bytes = good_file().to_vec();
    bytes.truncate(cut.map_or(usize::MAX, usize::from));
    let before = bytes.clone();
    for (at, bit) in flips {
        if let Some(byte) = bytes.get_mut(usize::from(at)) {
            *byte ^= 1 << (bit % 8);
        }
    }
    let (file, damage) = TraceFile::read(&bytes);
    assert_eq!(damage.is_empty(), bytes == good_file(), "{damage:?}");
    assert!(!damage.is_empty() || bytes == before);
    for dump in file.sections.iter().filter_map(|s| s.decode().ok()) {
        for frame in dump.rings.iter().flat_map(|r| r.frames()) {
            let i = frame.tsc;
            match frame.body {
                Body::Log(bytes) => assert_eq!(bytes, [i as u8; 40]),
                body => assert_eq!(body, Body::Event(event(i))),
            }
        }
    }
});
