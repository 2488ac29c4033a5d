//! The report on cyclictest, of a run that never was.

use partita_host::measure::{LateExit, Report, cyclictest_report};
use partita_host::system_file::SystemFile;
use partita_trace::Event;
use partita_trace::file::{Section, TraceFile};
use partita_trace::layout::{REGION_ALIGN, Region, RegionSpec, WriterKind};
use partita_trace::names::ExitReason;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::path::Path;

const SYSTEM: &str = "[system]\nname = 's'\n[report]\ncyclictest = 'rt'\nbeside = 'noise'\n\
    [[partition]]\nname = 'rt'\npcpus = [2, 3]\nmemory = '64 MiB'\nimage = { kind = 'elf', path = 'a' }\nexpect = 'finish'\n\
    [[partition]]\nname = 'noise'\npcpus = [1]\nmemory = '64 MiB'\nimage = { kind = 'elf', path = 'b' }\nexpect = 'run'\n";
const RUN: &str = r#"{"version": 1, "clock": "icount", "emulator": "QEMU", "pcpus": 4, "memory": 268435456}"#;
const CONSOLE: &str = "[ 3.3] report: alone: status 0\r\n\
    [ 3.4] report: alone: 000003 000450\t000500\r\n[ 3.4] report: alone: 000006 000050\t000000\r\n\
    [ 3.4] report: alone: # Total: 000000500 000000500\r\n[ 3.4] report: alone: # Min Latencies: 00003 00003\r\n\
    [ 3.4] report: alone: # Avg Latencies: 00003 00003\r\n[ 3.4] report: alone: # Max Latencies: 00006 00003\r\n\
    [ 3.4] report: alone: # Histogram Overflows: 00000 00000\r\n\
    [ 3.4] report: alone: worst: T: 0 Spike:       6: TS:         5000\r\n\
    [ 9.4] report: beside: status 0\r\n[ 9.4] report: beside: 000007 000500\t000499\r\n\
    [ 9.4] report: beside: 000014 000000\t000001\r\n\
    [ 9.4] report: beside: # Total: 000000500 000000500\r\n[ 9.4] report: beside: # Min Latencies: 00007 00007\r\n\
    [ 9.4] report: beside: # Avg Latencies: 00007 00007\r\n[ 9.4] report: beside: # Max Latencies: 00007 00014\r\n\
    [ 9.4] report: beside: # Histogram Overflows: 00000 00000\r\n\
    [ 9.4] report: beside: worst: T: 1 Spike:      14: TS:        20000\r\n\
    [ 9.5] report: monotonic clock: now at 29000000 nsecs\r\n";

/// Two ticks are a nanosecond.
const SPEC: RegionSpec = RegionSpec {
    writer: WriterKind::Hypervisor,
    pcpus: 4,
    ring_slots: 64,
    histograms: false,
    tsc_hz: 2_000_000_000,
    build_id: [0; 20],
};

/// An event on a pCPU, by its time in microseconds.
type Frame = (u16, u64, Event);

const fn exit(reason: ExitReason, detail16: u16, detail: u64) -> Event {
    Event::Exit { reason, detail16, ticks: 300, detail }
}

const fn mark(pcpu: u16, us: u64, byte: u64) -> Frame {
    (pcpu, us, exit(ExitReason::IoOut, 0x80, byte))
}

/// What a good run leaves. The monotonic clock is a millisecond behind the time-stamp counter, to within 10 us.
fn good() -> Vec<Frame> {
    vec![
        // A kernel that boots writes to the port, too.
        mark(2, 10, 0xC0),
        mark(2, 1_500, 0xC0),
        (2, 5_000, exit(ExitReason::Cpuid, 0, 1)),
        mark(3, 10_000, 0xC1),
        mark(1, 11_000, 0xE0),
        mark(2, 15_000, 0xC2),
        // Two while the worst wake-up was late, one of them on the other pCPU; one soon behind it, and one soon before it.
        (2, 20_900, exit(ExitReason::IcrWrite, 0, 0xFD)),
        (2, 20_990, exit(ExitReason::IcrWrite, 0, 0xFD)),
        (3, 20_992, exit(ExitReason::IcrWrite, 0, 0xFD)),
        (2, 21_500, exit(ExitReason::IcrWrite, 0, 0xFD)),
        mark(2, 25_000, 0xC3),
        mark(1, 26_000, 0xE1),
        mark(2, 29_990, 0xD0),
        mark(2, 30_010, 0xD1),
    ]
}

fn trace(frames: &[Frame]) -> Vec<u8> {
    let layout = Layout::from_size_align(SPEC.len(), REGION_ALIGN).unwrap();
    // SAFETY: the layout has a size; `init` gets all of the allocation, which is zeroed and nobody else's; it is read only
    // when nobody writes any more, and freed with the layout it was made with.
    let region = unsafe {
        let memory = alloc_zeroed(layout);
        assert!(!memory.is_null());
        let region = Region::init(memory, layout.size(), &SPEC).unwrap();
        for pcpu in 0..4 {
            let mut writer = region.ring(pcpu).unwrap().writer();
            frames.iter().filter(|frame| frame.0 == pcpu).for_each(|(_, us, event)| writer.record(2000 * us, *event));
        }
        let bytes = std::slice::from_raw_parts(memory, layout.size()).to_vec();
        dealloc(memory, layout);
        bytes
    };
    TraceFile { sections: vec![Section::new(None, 0x40_0000, &region)] }.write().unwrap()
}

fn report(frames: &[Frame], console: &str) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("trace.bin", &trace(frames));
    write("system.toml", SYSTEM.as_bytes());
    write("run.json", RUN.as_bytes());
    write("rt.log", console.as_bytes());
    let system = SystemFile::parse(SYSTEM, Path::new("s.toml")).unwrap();
    cyclictest_report(&system, dir.path()).map(|report| report.expect("the system asks for a report"))
}

#[test]
fn a_report_has_figures_exits_and_the_worst_wake_up() {
    let report = report(&good(), CONSOLE).unwrap();
    let [alone, beside] = report.measurements.as_slice() else { panic!("{report}") };
    assert_eq!((report.relation.offset_ns, report.relation.error_ns), (1_000_000, 10_000));
    assert_eq!((alone.exits[&ExitReason::Cpuid], beside.exits[&ExitReason::IcrWrite]), (1, 4));
    assert!(!alone.exits.contains_key(&ExitReason::IoOut), "the marks are not counted");
    assert_eq!((alone.forbidden_exits(), beside.forbidden_exits()), (0, 0));
    let (worst, calm) = (beside.worst.as_ref().unwrap(), alone.worst.as_ref().unwrap());
    // 20 ms of the guest's clock are 21 ms of the time-stamp counter.
    let late = |pcpu, us: u64| LateExit { pcpu, reason: ExitReason::IcrWrite, tsc: 2000 * us, ns: 150 };
    assert_eq!((worst.tsc, worst.pcpu, worst.exits_ns()), (42_000_000, 3, 300));
    // The IPI of the other vCPU can be why it was late.
    assert_eq!(worst.exits_while_late, [late(2, 20_990), late(3, 20_992)]);
    assert_eq!((calm.tsc, calm.pcpu, calm.exits_ns()), (12_000_000, 2, 0));
    assert_eq!(calm.exits_while_late, []);
    let text = report.to_string();
    let row = |head: &str| -> Vec<&str> {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(head));
        line.unwrap_or_else(|| panic!("{head}\n{text}")).split_whitespace().skip(1).collect()
    };
    assert_eq!(row("3"), ["450", "500", "-", "-"]);
    assert_eq!(row("14"), ["-", "-", "-", "1"]);
    assert_eq!(row("max"), ["6", "3", "7", "14"]);
    assert_eq!(row("interrupt"), ["0", "0"]);
    assert!(text.contains("--around 42000000 --within 1ms"), "{text}");
    assert!(text.contains("pCPU 2: 3 exit icr") && text.contains("pCPU 3: 1 exit icr"), "{text}");
    assert!(text.contains("None of the pCPUs of rt left the guest meanwhile"), "{text}");
    assert!(text.contains("pCPU 2: icr at 41980000 ticks, 150 ns"), "{text}");
    assert!(text.contains("on all pCPUs of rt, took at most 300 ns"), "{text}");
    assert!(text.contains("6 us while the neighbour idles, 14 us while it works") && text.contains("icount"), "{text}");
}

#[test]
fn an_exit_that_must_not_be_is_counted() {
    let mut frames = good();
    frames.insert(3, (2, 6_000, exit(ExitReason::NestedPageFault, 0, 0)));
    assert_eq!(report(&frames, CONSOLE).unwrap().measurements[0].forbidden_exits(), 1);
}

#[test]
fn what_is_missing_or_in_the_wrong_order_is_named() {
    let error = |frames: &[Frame], console: &str| format!("{:#}", report(frames, console).unwrap_err());
    let is_mark =
        |frame: &Frame, byte: u64| matches!(frame.2, Event::Exit { detail16: 0x80, detail, .. } if detail == byte);
    for (byte, what) in [(0xC1, "0xc1"), (0xC2, "0xc2"), (0xE0, "0xe0"), (0xD1, "0xd1")] {
        let frames: Vec<Frame> = good().into_iter().filter(|frame| !is_mark(frame, byte)).collect();
        assert!(error(&frames, CONSOLE).contains(what), "{}", error(&frames, CONSOLE));
    }
    let moved = |byte: u64, us: u64| -> Vec<Frame> {
        let frames =
            good().into_iter().map(|frame| if is_mark(&frame, byte) { mark(frame.0, us, byte) } else { frame });
        frames.collect()
    };
    assert!(error(&moved(0xE0, 9_000), CONSOLE).contains("before the measurement alone was over"));
    assert!(error(&moved(0xE1, 24_000), CONSOLE).contains("did not work all the time"));
    assert!(error(&good(), &CONSOLE.replace("beside: status 0", "beside: status 1")).contains("exit status 1"));
    assert!(error(&good(), &CONSOLE.replace("monotonic clock", "clock")).contains("monotonic clock"));
    // A neighbour that is still at work when the run ends is none the worse.
    let frames: Vec<Frame> = good().into_iter().filter(|frame| !is_mark(frame, 0xE1)).collect();
    assert!(report(&frames, CONSOLE).is_ok());
}

#[test]
fn a_ring_that_lost_the_beginning_is_refused() {
    let mut frames = good();
    for number in 0..100 {
        frames.insert(3, (2, 4_000 - number, exit(ExitReason::Cpuid, 0, 1)));
    }
    let text = format!("{:#}", report(&frames, CONSOLE).unwrap_err());
    assert!(text.contains("ring"), "{text}");
}
