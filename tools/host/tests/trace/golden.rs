//! Every kind of frame once, as it is printed. `UPDATE_GOLDEN=1 cargo test -p partita-host --test trace` writes the
//! expected text anew.

use crate::common::{GUEST, HYPERVISOR, decoded, defmt_elf, file, region, run_dir};
use partita_host::trace::{
    DecodeOptions, KindFilter, MomentError, Trace, Window, WindowCount, chart, counts, histograms, leg_frames_lines,
};
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, IcrRefusal, InterruptMode, KickKind, PcpuStateName, PolicyKind, StopCause};
use std::path::{Path, PathBuf};

/// Each event of the hypervisor, and the pCPU that records it.
const EVENTS: &[(u16, Event)] = &[
    (0, Event::PcpuOnline { pcpu: 2, hardware_id: 2 }),
    (2, Event::PcpuClock { pcpu: 2, ahead: 40, behind: 55 }),
    (0, Event::PcpuState { pcpu: 2, state: PcpuStateName::Parked }),
    (2, Event::PartitionLoaded { partition: 0, bytes: 64 << 20, ticks: 70_000_000 }),
    (0, Event::InterruptMode { partition: 0, mode: InterruptMode::LapicPassthrough, pcpus: 0b1100 }),
    (0, Event::PartitionStart { partition: 0, memory: 64 << 20, hpa: 0x1000_0000 }),
    (0, Event::WindowAdded { partition: 0, gpa: 0x20_0000, length: 0x10_0000 }),
    (2, Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks: 105, detail: 0x4000_0100 }),
    (2, Event::IcrForward { vector: 0xEC, targets: 1, ticks: 61, icr: 0x3_0000_00EC }),
    (2, Event::IcrRefused { cause: IcrRefusal::ForeignDestination, icr: 0x30 }),
    (
        0,
        Event::SmpCallServed {
            peer: 3,
            kind: KickKind::Nmi,
            by_caller: true,
            post_to_kick: 9,
            kick_to_exit: 41,
            exit_to_run: 60,
            run_to_ack: 12,
        },
    ),
    (0, Event::SmpCall { targets: 1, late: 0, ticks: 175, first_late: u64::MAX }),
    (2, Event::GuestNmi { target: 3, icr: 0x400 }),
    (2, Event::GuestInit { target: 3, icr: 0x500 }),
    (2, Event::GuestSipi { target: 3, vector: 0x9F, icr: 0x69F }),
    (3, Event::NmiInjected { another: true, rip: 0x1000 }),
    (2, Event::PolicyRefused { kind: PolicyKind::MsrWrite, target: 0xC000_0080, value: 0xD01 }),
    (2, Event::Mark { id: 1, first: 2, second: 3 }),
    (3, Event::PartitionStop { partition: 0, cause: StopCause::TripleFault, detail: 0x7F, rip: 0xFFF0 }),
    (0, Event::SmpCall { targets: 1, late: 1, ticks: 200_000, first_late: 3 }),
    (0, Event::HypervisorEntered {}),
];

const GUEST_EVENTS: &[(u16, Event)] = &[
    (0, Event::Sample { row: 5, ticks: 93, index: 0 }),
    (0, Event::Sample { row: 1, ticks: 30, index: 1999 }),
    (1, Event::Claim { passed: false, id: 4, left: 1, right: 2 }),
];

fn trace() -> Vec<u8> {
    let hypervisor = region(&HYPERVISOR, |region| {
        let mut writers: Vec<_> = (0..4).map(|pcpu| region.ring(pcpu).unwrap().writer()).collect();
        for (time, (pcpu, event)) in (10_000..).step_by(100).zip(EVENTS) {
            writers[usize::from(*pcpu)].record(time, *event);
        }
        writers[1].log(10_050, &[1, 0]);
        // An exit is recorded at its end with the time of its beginning.
        writers[1].log(20_010, &[2, 0, 7, 0]);
        writers[1].record(20_000, Event::Exit { reason: ExitReason::IoOut, detail16: 0xF4, ticks: 130, detail: 0 });
        let mut bank = region.histograms(2).unwrap();
        bank.record(HistogramId::Exit(ExitReason::Cpuid), 105);
        bank.record(HistogramId::Exit(ExitReason::Cpuid), 4321);
        region.histograms(0).unwrap().record(HistogramId::KickNmi, 41);
    });
    let guest = region(&GUEST, |region| {
        let mut writers: Vec<_> = (0..2).map(|vcpu| region.ring(vcpu).unwrap().writer()).collect();
        for (time, (vcpu, event)) in (10_450..).step_by(100).zip(GUEST_EVENTS) {
            writers[usize::from(*vcpu)].record(time, *event);
        }
        writers[1].log(30_000, &[9, 0, 0xFF]);
        writers[0].log(30_001, b"\x01\0");
    });
    file(&hypervisor, Some(&guest))
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trace/golden")
}

fn assert_golden(name: &str, actual: &str) {
    let path = golden_dir().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == expected, "{} is not what is printed; UPDATE_GOLDEN=1 updates it:\n{actual}", path.display());
}

fn dir() -> tempfile::TempDir {
    let dir = run_dir(&trace());
    let elf = defmt_elf([0xAA; 20], &[(1, "info", "hello"), (2, "warn", "seven is {=u16}")]);
    std::fs::write(dir.path().join(format!("elf/{}.elf", "aa".repeat(20))), elf).unwrap();
    dir
}

#[test]
fn every_kind_of_frame_is_printed() {
    let recorded = EVENTS.iter().chain(GUEST_EVENTS).map(|(_, event)| event.kind());
    let recorded: std::collections::BTreeSet<u8> = recorded.collect();
    assert!(recorded.into_iter().eq(Event::KINDS.iter().map(|(kind, _)| *kind)), "a kind of event is missing");
    assert_golden("decode.txt", &decoded(dir().path(), &DecodeOptions::default()));
}

/// The part of the trace around a moment.
fn window(trace: &Trace, moment: &str, within: &str) -> Result<Window, MomentError> {
    Window::around(trace, moment.parse()?, within.parse()?)
}

#[test]
fn what_is_around_a_moment_is_printed_and_counted() {
    let dir = dir();
    let trace = Trace::load(dir.path()).unwrap();
    // At 2 GHz, 200 ns are 400 ticks.
    let part = window(&trace, "11_000", "200ns").unwrap();
    assert_eq!(part, Window { centre: 11_000, from: 10_600, to: 11_400 });
    assert_golden("around.txt", &decoded(dir.path(), &DecodeOptions { window: Some(part), ..Default::default() }));
    let exit = WindowCount { pcpu: 2, kind: "exit", reason: "cpuid".into(), count: 1, longest: Some(105) };
    assert!(counts(&trace, &part).contains(&exit), "{:?}", counts(&trace, &part));
    let empty = window(&trace, "6us", "50").unwrap();
    assert_eq!(counts(&trace, &empty), []);
    let text = decoded(dir.path(), &DecodeOptions { window: Some(empty), ..Default::default() });
    assert!(text.contains("\nThe hypervisor recorded no exit and no IPI.\n"), "{text}");
}

#[test]
fn a_moment_can_be_that_of_a_frame() {
    let dir = dir();
    let trace = Trace::load(dir.path()).unwrap();
    let centre = |moment: &str| window(&trace, moment, "0").map(|window| window.centre);
    let expected = [("first:exit", 10_700), ("last:exit", 20_000), ("worst:exit", 20_000), ("worst:smp-call", 11_900)];
    for (moment, time) in expected.into_iter().chain([("first:log", 10_050), ("5us", 10_000), ("worst:sample", 10_450)])
    {
        assert_eq!(centre(moment), Ok(time), "{moment}");
    }
    assert_eq!(centre("worst:mark"), Err(MomentError::NoDuration("mark")));
    assert_eq!(centre("first:unknown"), Err(MomentError::NoFrame("unknown")));
    let mut unknown = trace.clone();
    unknown.tsc_hz = None;
    assert_eq!(window(&unknown, "10_000", "1ms"), Err(MomentError::NoFrequency));
}

#[test]
fn histograms_are_drawn_and_written() {
    let dir = dir();
    let trace = Trace::load(dir.path()).unwrap();
    let (hist, notes) = histograms(&trace);
    assert_eq!(notes, Vec::<String>::new());
    assert_golden("hist.json", &(serde_json::to_string_pretty(&hist).unwrap() + "\n"));
    let mut text = chart::table(&hist, trace.tsc_hz).trim_fmt() + "\n";
    text += &format!("\n{}\n", chart::leg_table(&hist, trace.tsc_hz).unwrap().trim_fmt());
    text += &format!("{}\n", leg_frames_lines(&hist.smp_leg_frames).join("\n"));
    for source in &hist.sources {
        text += &format!("\n{}\n", chart::chart(source, trace.tsc_hz).join("\n"));
    }
    assert_golden("hist.txt", &text);
}

#[test]
fn filters_choose_frames() {
    let dir = dir();
    let lines = |options: DecodeOptions| -> Vec<String> {
        let text = decoded(dir.path(), &options);
        text.lines().skip(1).take_while(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let kinds = |names: &[&str]| names.iter().map(|name| name.parse::<KindFilter>().unwrap()).collect();
    let logs = lines(DecodeOptions { kinds: kinds(&["log"]), ..Default::default() });
    assert!(logs.len() == 4 && logs[0].contains("hello") && logs[1].contains("seven is 7"), "{logs:#?}");
    // The hypervisor's injection and the guest's claim are on the same pCPU.
    let on_3 = lines(DecodeOptions { pcpu: Some(3), kinds: kinds(&["nmi injected", "claim"]), ..Default::default() });
    assert!(on_3.len() == 2 && on_3[0].contains("claim") && on_3[1].contains("another=yes"), "{on_3:#?}");
    let all = lines(DecodeOptions::default());
    assert_eq!(lines(DecodeOptions { limit: Some(5), ..Default::default() }), all[..5]);
    assert_eq!(lines(DecodeOptions { tail: Some(5), ..Default::default() }), all[all.len() - 5..]);
    assert_eq!(lines(DecodeOptions { limit: Some(0), ..Default::default() }), [""; 0]);
}
