//! `partita trace` as a user meets it.

use partita_trace::event::Event;
use partita_trace::file::{Section, TraceFile};
use partita_trace::layout::{REGION_ALIGN, Region, RegionSpec, WriterKind};
use partita_trace::names::{ExitReason, KickKind};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const SLOTS: u32 = 1 << 14;

/// A trace file with a full ring of exits.
fn trace_file() -> Vec<u8> {
    trace_file_of(SLOTS, |i| Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks: 100 + i % 10, detail: i })
}

/// A trace file with a ring of so many of these events.
fn trace_file_of(count: u32, event: impl Fn(u64) -> Event) -> Vec<u8> {
    let spec = RegionSpec {
        writer: WriterKind::Hypervisor,
        pcpus: 1,
        ring_slots: SLOTS,
        histograms: true,
        tsc_hz: 1_000_000_000,
        build_id: [7; 20],
    };
    let layout = Layout::from_size_align(spec.len(), REGION_ALIGN).unwrap();
    // SAFETY: the layout has a size; `init` gets all of the allocation, which is zeroed and nobody else's; it is
    // read only when nobody writes any more, and freed with the layout it was made with.
    unsafe {
        let memory = alloc_zeroed(layout);
        assert!(!memory.is_null());
        let mut writer = Region::init(memory, layout.size(), &spec).unwrap().ring(0).unwrap().writer();
        for i in 0..count.into() {
            writer.record(1000 * i, event(i));
        }
        let section = Section::new(None, 0x40_0000, std::slice::from_raw_parts(memory, layout.size()));
        let bytes = TraceFile { sections: vec![section] }.write().unwrap();
        dealloc(memory, layout);
        bytes
    }
}

fn run_dir(trace: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("trace.bin"), trace).unwrap();
    std::fs::write(
        dir.path().join("run.json"),
        r#"{"version": 1, "clock": "icount", "emulator": "QEMU", "pcpus": 1, "memory": 1048576}"#,
    )
    .unwrap();
    dir
}

fn partita(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
    command.arg("trace").args(args).arg(dir);
    command
}

/// Exit code, standard output, standard error.
fn result(args: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = partita(args, dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn exit_codes_tell_what_was_met() {
    let bytes = trace_file();
    let whole = run_dir(&bytes);
    let damaged = run_dir(&bytes[..bytes.len() - 100]);
    let empty = tempfile::tempdir().unwrap();
    let garbage = run_dir(b"garbage");
    for view in ["decode", "hist"] {
        let (code, out, err) = result(&[view], whole.path());
        assert!(code == Some(0) && out.contains("exit") && err.is_empty(), "{view}: {code:?} {err}");
        let (code, out, _) = result(&[view], damaged.path());
        assert!(code == Some(1) && out.contains("the file ends after"), "{view}: {code:?} {out}");
        for (dir, expected) in [
            (empty.path(), "pass the output directory of a run"),
            (&empty.path().join("no"), "is not a directory"),
            (garbage.path(), "run the system again"),
        ] {
            let (code, out, err) = result(&[view], dir);
            assert!(code == Some(2) && out.is_empty() && err.contains(expected), "{view}: {code:?} {err}");
        }
    }
}

#[test]
fn bad_arguments_are_refused_before_any_work() {
    let dir = run_dir(&trace_file());
    let inside = dir.path().join("no/hist.json").to_string_lossy().into_owned();
    let itself = dir.path().to_string_lossy().into_owned();
    for (args, expected) in [
        (&["decode", "--kind", "fly"][..], "there is no kind of frame"),
        (&["decode", "--limit", "1", "--tail", "1"], "cannot be used with"),
        (&["decode", "--pcpu", "99999"], "invalid value"),
        (&["hist", "--json", &inside], "is no directory"),
        (&["hist", "--json", &itself], "choose a file with --json"),
    ] {
        let (code, out, err) = result(args, dir.path());
        assert!(code == Some(2) && out.is_empty() && err.contains(expected), "{args:?}: {code:?} {err}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = run_dir(&trace_file());
    let mut child = partita(&["decode"], dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 100];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    // The output is far longer than what a pipe holds.
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn histograms_are_written_as_json() {
    let dir = run_dir(&trace_file());
    let path = dir.path().join("hist.json");
    let (code, out, _) = result(&["hist", "--json", &path.to_string_lossy()], dir.path());
    assert!(code == Some(0) && out.contains("Latencies in ticks of the icount clock, 1000.000 MHz"), "{out}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(json["clock"], "icount");
    let source = &json["sources"][0];
    assert_eq!((&source["name"], &source["min"], &source["max"]), (&"cpuid".into(), &100.into(), &109.into()));
}

#[test]
fn the_clock_is_named_by_whose_it_is() {
    let dir = run_dir(&trace_file());
    let bochs = r#"{"version": 1, "clock": "icount", "tick": "1 tick = 1", "emulator": "Bochs", "pcpus": 1, "memory": 1048576}"#;
    std::fs::write(dir.path().join("run.json"), bochs).unwrap();
    let (code, out, _) = result(&["hist"], dir.path());
    assert!(
        code == Some(0) && out.starts_with("Latencies in ticks of Bochs' clock, 1000.000 MHz\n1 tick = 1\n"),
        "{out}"
    );
}

#[test]
fn the_legs_of_smp_calls_are_shown_and_written() {
    let served = |i| Event::SmpCallServed {
        peer: 2,
        kind: KickKind::Nmi,
        by_caller: true,
        post_to_kick: 10,
        kick_to_exit: 40 + i as u32 % 2,
        exit_to_run: 70,
        run_to_ack: 5,
    };
    let dir = run_dir(&trace_file_of(100, served));
    let path = dir.path().join("hist.json");
    let (code, out, _) = result(&["hist", "--json", &path.to_string_lossy()], dir.path());
    assert!(code == Some(0) && out.contains("\nLegs of SMP calls, by target and kick\n"), "{out}");
    for expected in [
        "pCPU 2 nmi  post->kick   100  10  10  10  10\n",
        "pCPU 2 nmi  kick->exit   100  40  40  41  41\n",
        "\n100 of 0 served calls are counted\n",
        "\npCPU 0 wrote 100 of them; 0 frames of its ring are overwritten, 0 damaged\n",
        "smp_leg exit->run, kick by nmi, pCPU 2, ring: 100 samples\n",
    ] {
        assert!(out.contains(expected), "no {expected:?} in\n{out}");
    }
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let legs: Vec<_> = json["sources"].as_array().unwrap().iter().filter(|s| s["kind"] == "smp_leg").collect();
    let names: Vec<_> = legs.iter().map(|s| (s["pcpu"].as_u64(), s["kick"].as_str(), s["name"].as_str())).collect();
    let expected = ["post_kick", "kick_exit", "exit_run", "run_ack"].map(|leg| (Some(2), Some("nmi"), Some(leg)));
    assert_eq!(names, expected);
    let (code, out, _) = result(&["decode", "--kind", "smp-call-served", "--limit", "1"], dir.path());
    let fields = "peer=2 kind=nmi by_caller=yes post_to_kick=10 (10 ns) kick_to_exit=40 (40 ns) exit_to_run=70 (70 ns)";
    assert!(code == Some(0) && out.contains(fields), "{out}");
}

#[test]
fn frames_around_a_moment_are_chosen() {
    // Of more exits than the ring has slots, one every 1000 ticks (1 us) the last ones are there.
    let dir = run_dir(&trace_file_of(2 * SLOTS, |i| Event::Exit {
        reason: ExitReason::Cpuid,
        detail16: 0,
        ticks: if i == 30_000 { 5000 } else { 100 },
        detail: i,
    }));
    let shown = |args: &[&str]| {
        let (code, out, err) = result(&[&["decode"], args].concat(), dir.path());
        assert!(code == Some(0) && err.is_empty(), "{args:?}: {code:?} {err}");
        (out.lines().filter(|line| line.contains("reason=")).count(), out)
    };
    let (count, out) = shown(&["--around", "worst:exit", "--within", "10us"]);
    assert!(count == 21 && out.contains("From 29990000 (29990000 ns) to 30010000"), "{out}");
    let words: Vec<&str> = out.split_whitespace().collect();
    assert!(words.join(" ").contains("pCPU 0 exit cpuid 21 5000 (5.00 us)"), "{out}");
    assert!(!out.contains("begins at"), "{out}");
    // The worst one reaches into this.
    assert_eq!(shown(&["--around", "30_003_500", "--within", "100"]).0, 1);
    let (count, out) = shown(&["--around", "last:exit"]);
    assert!(count == 1001, "{count}: the default is 1 ms\n{out}");
    let (_, out) = shown(&["--around", "1ms"]);
    assert!(out.contains("note: the ring of pCPU 0 begins at") && out.contains("recorded no exit and no IPI"), "{out}");
    let (code, out, err) = result(&["decode", "--around", "first:mark"], dir.path());
    assert!(code == Some(2) && out.is_empty() && err.contains("no frame of the kind \"mark\""), "{code:?} {err}");
}

#[test]
fn help_tells_the_exit_codes() {
    let (code, out, _) = result(&["decode", "--help"], Path::new("."));
    assert!(code == Some(0) && out.contains("Exit codes:") && out.contains("--tail"), "{out}");
}
