//! `hist.json` has exactly the promised form.

use crate::common::{GUEST, HYPERVISOR, file, region, run_dir};
use partita_host::trace::{Trace, histograms, leg_frames_lines};
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::layout::{RegionHeader, RegionSpec};
use partita_trace::names::{ExitReason, KickKind};
use partita_trace::ring::RING_HEAD_LEN;
use serde_json::Value;

/// A call with these legs that `peer` served, as its caller writes it.
fn served(peer: u16, kind: KickKind, [post_to_kick, kick_to_exit, exit_to_run, run_to_ack]: [u32; 4]) -> Event {
    Event::SmpCallServed { peer, kind, by_caller: true, post_to_kick, kick_to_exit, exit_to_run, run_to_ack }
}

/// A call of `caller`'s with these legs that nobody waited for, as its target writes it.
fn unawaited(caller: u16, kind: KickKind, [post_to_kick, kick_to_exit, exit_to_run, run_to_ack]: [u32; 4]) -> Event {
    let (peer, by_caller) = (caller, false);
    Event::SmpCallServed { peer, kind, by_caller, post_to_kick, kick_to_exit, exit_to_run, run_to_ack }
}

/// Latencies of every kind, the guest's on vCPU 1.
fn trace() -> (tempfile::TempDir, Trace) {
    let hypervisor = region(&HYPERVISOR, |region| {
        let mut writer = region.ring(2).unwrap().writer();
        for ticks in 1..=100 {
            writer.record(ticks, Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks, detail: 0 });
        }
        writer.record(200, Event::IcrForward { vector: 0x40, targets: 1, ticks: 60, icr: 0x40 });
        let mut caller = region.ring(0).unwrap().writer();
        caller.record(300, served(2, KickKind::Nmi, [20, 50, 80, 10]));
        caller.record(400, Event::SmpCall { targets: 1, late: 0, ticks: 175, first_late: u64::MAX });
        caller.record(500, Event::SmpCall { targets: 1, late: 1, ticks: 99_999, first_late: 2 });
        let mut bank = region.histograms(2).unwrap();
        (1..=1000).for_each(|ticks| bank.record(HistogramId::Exit(ExitReason::Cpuid), ticks));
        region.histograms(0).unwrap().record(HistogramId::KickNmi, 50);
    });
    let guest = region(&GUEST, |region| {
        let mut writer = region.ring(1).unwrap().writer();
        writer.record(100, Event::Sample { row: 5, ticks: 93, index: 0 });
        writer.record(200, Event::Sample { row: 9, ticks: 7, index: 0 });
        writer.record(300, Event::Sample { row: 0xFF_FFFF, ticks: 7, index: 0 });
        // A guest's word about exits is not the hypervisor's.
        writer.record(400, Event::Exit { reason: ExitReason::Halt, detail16: 0, ticks: 1, detail: 0 });
        writer.record(500, served(0, KickKind::Nmi, [1; 4]));
    });
    let dir = run_dir(&file(&hypervisor, Some(&guest)));
    let trace = Trace::load(dir.path()).unwrap();
    (dir, trace)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn an_exit_that_sent_ipis_counts_as_them_too() {
    let hypervisor = region(&HYPERVISOR, |region| {
        let mut writer = region.ring(2).unwrap().writer();
        for (detail16, ticks) in [(0, 90), (1, 60), (3, 70)] {
            writer.record(ticks, Event::Exit { reason: ExitReason::IcrWrite, detail16, ticks, detail: 0x40 });
        }
    });
    let dir = run_dir(&file(&hypervisor, None));
    let (hist, _) = histograms(&Trace::load(dir.path()).unwrap());
    let found: Vec<_> =
        hist.sources.iter().map(|source| (source.kind, source.name, source.count, source.max)).collect();
    assert_eq!(found, [("exit", "icr", 3, 90), ("ipi", "icr_forward", 2, 70)]);
}

#[test]
fn the_json_has_the_promised_form() {
    let (_dir, trace) = trace();
    let (hist, notes) = histograms(&trace);
    assert_eq!(notes, Vec::<String>::new());
    let json = serde_json::to_value(&hist).unwrap();
    let mut found = keys(&json);
    found.sort_unstable();
    assert_eq!(found, ["clock", "smp_leg_frames", "sources"]);
    assert_eq!(json["clock"], "icount");
    let expected = ["buckets", "count", "kind", "max", "min", "name", "p50", "p99", "pcpu", "source"];
    for source in json["sources"].as_array().unwrap() {
        let mut found = keys(source);
        found.sort_unstable();
        let is_leg = source["kind"] == "smp_leg";
        assert_eq!(found.contains(&"kick"), is_leg);
        found.retain(|key| *key != "kick");
        assert_eq!(found, expected);
        assert!(["exit", "ipi", "kick", "smp_call", "smp_leg"].contains(&source["kind"].as_str().unwrap()));
        assert!(!is_leg || ["nmi", "vector"].contains(&source["kick"].as_str().unwrap()));
        assert!(["ring", "always_on"].contains(&source["source"].as_str().unwrap()));
        let buckets = source["buckets"].as_array().unwrap();
        let total: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
        assert_eq!(source["count"].as_u64(), Some(total));
        for bucket in buckets {
            let mut found = keys(bucket);
            found.sort_unstable();
            assert_eq!(found, ["count", "high", "low"]);
            assert!(bucket["low"].as_u64() <= bucket["high"].as_u64() && bucket["count"].as_u64() > Some(0));
        }
    }
}

#[test]
fn each_latency_is_found_with_its_figures() {
    let (_dir, trace) = trace();
    let (hist, _) = histograms(&trace);
    let rows: Vec<_> = hist
        .sources
        .iter()
        .map(|s| (s.kind, s.name, s.pcpu, s.source.name(), s.count, [s.min, s.p50, s.p99, s.max]))
        .collect();
    assert_eq!(
        rows,
        [
            ("exit", "cpuid", 2, "ring", 100, [1, 50, 99, 100]),
            ("exit", "cpuid", 2, "always_on", 1000, [1, 511, 991, 1000]),
            ("ipi", "icr_forward", 2, "ring", 1, [60; 4]),
            ("ipi", "ipi.self", 3, "ring", 1, [93; 4]),
            ("kick", "nmi", 0, "ring", 1, [50; 4]),
            ("kick", "nmi", 0, "always_on", 1, [50; 4]),
            ("smp_call", "roundtrip", 0, "ring", 1, [175; 4]),
            ("smp_leg", "post_kick", 2, "ring", 1, [20; 4]),
            ("smp_leg", "kick_exit", 2, "ring", 1, [50; 4]),
            ("smp_leg", "exit_run", 2, "ring", 1, [80; 4]),
            ("smp_leg", "run_ack", 2, "ring", 1, [10; 4]),
        ]
    );
}

#[test]
fn what_is_not_known_is_said() {
    let (dir, _) = trace();
    std::fs::remove_file(dir.path().join("system.toml")).unwrap();
    std::fs::remove_file(dir.path().join("run.json")).unwrap();
    let (hist, notes) = histograms(&Trace::load(dir.path()).unwrap());
    assert_eq!(serde_json::to_value(hist.clock).unwrap(), "tsc");
    assert!(hist.sources.iter().all(|source| source.name != "ipi.self"));
    assert!(notes.len() == 2 && notes[1].contains("1 samples of partition 0/vCPU 1"), "{notes:?}");
}

/// Calls of three targets, by both kinds of kick, in the rings of callers and of a target: one that lost some, one that
/// lost all, and one that lost others.
fn trace_of_calls() -> Trace {
    let hypervisor = region(&HYPERVISOR, |region| {
        let write = |pcpu: u16, calls: &[Event], others: u64| {
            let mut writer = region.ring(pcpu).unwrap().writer();
            let mut bank = region.histograms(pcpu).unwrap();
            for event in calls {
                let Event::SmpCallServed { kind, kick_to_exit, .. } = *event else { unreachable!() };
                let id = if kind == KickKind::Nmi { HistogramId::KickNmi } else { HistogramId::KickVector };
                bank.record(id, kick_to_exit.into());
                writer.record(100, *event);
            }
            for i in 0..others {
                writer.record(200 + i, Event::Mark { id: 0, first: i, second: 0 });
            }
        };
        let many: Vec<_> = (0..300).map(|i| served(1, KickKind::Nmi, [i, 1000 + i, 20, u32::MAX])).collect();
        write(0, &many, 0);
        write(1, &[], 300);
        let by_vector = unawaited(0, KickKind::Vector, [1, 2, 3, 4]);
        let to_1_and_3 = [(1, [2, 2, 20, 2]), (3, [5, 6, 7, 8])].map(|(to, legs)| served(to, KickKind::Nmi, legs));
        write(2, &[by_vector, to_1_and_3[0], to_1_and_3[1]], 1);
        write(3, &many[..9], 300);
    });
    Trace::load(run_dir(&file(&hypervisor, None)).path()).unwrap()
}

#[test]
fn legs_are_told_apart_by_target_and_kick_in_their_order() {
    let (hist, _) = histograms(&trace_of_calls());
    let legs: Vec<_> = hist
        .sources
        .iter()
        .filter(|s| s.kind == "smp_leg")
        .map(|s| (s.pcpu, s.kick.unwrap(), s.name, s.count, [s.min, s.p50, s.p99, s.max]))
        .collect();
    let longest = u64::from(u32::MAX);
    assert_eq!(
        legs,
        [
            // The newest 245 of 256 slots of pCPU 0 are shown: calls 55 to 299. The other one is pCPU 2's.
            (1, "nmi", "post_kick", 246, [2, 176, 297, 299]),
            (1, "nmi", "kick_exit", 246, [2, 1176, 1297, 1299]),
            (1, "nmi", "exit_run", 246, [20; 4]),
            (1, "nmi", "run_ack", 246, [2, longest, longest, longest]),
            (2, "vector", "post_kick", 1, [1; 4]),
            (2, "vector", "kick_exit", 1, [2; 4]),
            (2, "vector", "exit_run", 1, [3; 4]),
            (2, "vector", "run_ack", 1, [4; 4]),
            (3, "nmi", "post_kick", 1, [5; 4]),
            (3, "nmi", "kick_exit", 1, [6; 4]),
            (3, "nmi", "exit_run", 1, [7; 4]),
            (3, "nmi", "run_ack", 1, [8; 4]),
        ]
    );
}

#[test]
fn no_served_call_is_missing_silently() {
    let (hist, notes) = histograms(&trace_of_calls());
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(
        leg_frames_lines(&hist.smp_leg_frames),
        [
            "248 of 312 served calls are counted",
            "245 of their legs took 4294967295 ticks or more, and count as that",
            "pCPU 0 wrote 245 of them; 55 frames of its ring are overwritten, 0 damaged",
            "pCPU 2 wrote 3 of them; 0 frames of its ring are overwritten, 0 damaged",
            "pCPU 3 wrote 0 of them; 64 frames of its ring are overwritten, 0 damaged",
        ]
    );
}

/// As an older version would have written, or a newer one: kind 21 is retired.
#[test]
fn frames_of_unknown_kinds_are_not_left_out_silently() {
    let mut bytes = region(&HYPERVISOR, |region| {
        region.ring(2).unwrap().writer().record(100, served(1, KickKind::Nmi, [1; 4]));
    });
    let slot = RegionHeader::parse(&bytes).unwrap().ring_offset(2).unwrap() + RING_HEAD_LEN;
    bytes[slot] = 21;
    let (hist, notes) = histograms(&Trace::load(run_dir(&file(&bytes, None)).path()).unwrap());
    assert!(hist.sources.is_empty() && hist.smp_leg_frames.is_empty());
    assert_eq!(notes, ["frames of pCPU 2 that this version cannot read are left out: 1 of kind 21"]);
}

/// Without the always-on histograms a ring is named, too, if it may have had calls.
#[test]
fn a_damaged_ring_says_so() {
    let spec = RegionSpec { histograms: false, ..HYPERVISOR };
    let mut bytes = region(&spec, |region| {
        for pcpu in [1, 2] {
            region.ring(pcpu).unwrap().writer().record(100, served(3, KickKind::Nmi, [1; 4]));
        }
    });
    let ring = RegionHeader::parse(&bytes).unwrap().ring_offset(2).unwrap();
    bytes[ring + RING_HEAD_LEN + 4] ^= 0xFF;
    let (hist, _) = histograms(&Trace::load(run_dir(&file(&bytes, None)).path()).unwrap());
    assert_eq!(
        leg_frames_lines(&hist.smp_leg_frames),
        [
            "1 of an unknown number of served calls are counted",
            "pCPU 1 wrote 1 of them; 0 frames of its ring are overwritten, 0 damaged",
            "pCPU 2 wrote 0 of them; at least 1 frames of its ring are overwritten or damaged",
        ]
    );
}
