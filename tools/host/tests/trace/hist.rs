//! `hist.json` has exactly the promised form.

use crate::common::{GUEST, HYPERVISOR, file, region, run_dir};
use partita_host::trace::{Trace, histograms};
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, KickKind};
use serde_json::Value;

/// Latencies of every kind, the guest's on vCPU 1.
fn trace() -> (tempfile::TempDir, Trace) {
    let hypervisor = region(&HYPERVISOR, |region| {
        let mut writer = region.ring(2).unwrap().writer();
        for ticks in 1..=100 {
            writer.record(ticks, Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks, detail: 0 });
        }
        writer.record(200, Event::IcrForward { vector: 0x40, targets: 1, ticks: 60, icr: 0x40 });
        writer.record(300, Event::Kick { kind: KickKind::Nmi, sender: 0, sent: 250, ticks: 50 });
        let mut caller = region.ring(0).unwrap().writer();
        caller.record(400, Event::SmpCall { targets: 1, late: 0, ticks: 175, first_late: u64::MAX });
        caller.record(500, Event::SmpCall { targets: 1, late: 1, ticks: 99_999, first_late: 2 });
        let mut bank = region.histograms(2).unwrap();
        (1..=1000).for_each(|ticks| bank.record(HistogramId::Exit(ExitReason::Cpuid), ticks));
    });
    let guest = region(&GUEST, |region| {
        let mut writer = region.ring(1).unwrap().writer();
        writer.record(100, Event::Sample { row: 5, ticks: 93, index: 0 });
        writer.record(200, Event::Sample { row: 9, ticks: 7, index: 0 });
        writer.record(300, Event::Sample { row: 0xFF_FFFF, ticks: 7, index: 0 });
        // A guest's word about exits is not the hypervisor's.
        writer.record(400, Event::Exit { reason: ExitReason::Halt, detail16: 0, ticks: 1, detail: 0 });
    });
    let dir = run_dir(&file(&hypervisor, Some(&guest)));
    let trace = Trace::load(dir.path()).unwrap();
    (dir, trace)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_json_has_the_promised_form() {
    let (_dir, trace) = trace();
    let (hist, notes) = histograms(&trace);
    assert_eq!(notes, Vec::<String>::new());
    let json = serde_json::to_value(&hist).unwrap();
    assert_eq!(keys(&json), ["clock", "sources"]);
    assert_eq!(json["clock"], "icount");
    let expected = ["buckets", "count", "kind", "max", "min", "name", "p50", "p99", "pcpu", "source"];
    for source in json["sources"].as_array().unwrap() {
        let mut found = keys(source);
        found.sort_unstable();
        assert_eq!(found, expected);
        assert!(["exit", "ipi", "kick", "smp_call"].contains(&source["kind"].as_str().unwrap()));
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
            ("kick", "nmi", 2, "ring", 1, [50; 4]),
            ("smp_call", "roundtrip", 0, "ring", 1, [175; 4]),
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
