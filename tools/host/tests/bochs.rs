//! Runs in Bochs: verdicts, the stream of the debug port, what is refused.

mod kernels;

use kernels::{HANG, LOAD, TRIPLE_FAULT, elf};
use partita_abi::debug_port::FrameWriter;
use partita_host::cargo_build;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::run::{BareRun, RunOptions, RunReport, run_bare, run_system};
use partita_host::system_file::SystemFile;
use partita_host::trace::Trace;
use std::path::Path;
use std::time::Duration;

fn options(machine: MachineKind, dir: &Path) -> RunOptions {
    RunOptions {
        machine,
        clock: Clock::Icount,
        timeout: Duration::from_secs(120),
        out_dir: dir.join("out"),
        hypervisor: None,
        keep_ram: false,
        quiet: true,
    }
}

/// Prints a text on COM1, writes bytes to the debug port, and ends Bochs.
fn print_and_end(text: &str, stream: &[u8]) -> Vec<u8> {
    const CODE_LEN: u32 = 96;
    let at = |offset: usize| (LOAD + CODE_LEN + offset as u32).to_le_bytes();
    let shutdown = b"Shutdown";
    let mut code = vec![0x66, 0xBA, 0xFB, 0x03, 0xB0, 0x03, 0xEE]; // mov dx, 0x3fb; mov al, 3 (8 bits); out
    code.extend([0xFC, 0xBE]); // cld; mov esi, the text
    code.extend(at(0));
    code.push(0xB9); // mov ecx, its length
    code.extend((text.len() as u32).to_le_bytes());
    code.extend([0xAC, 0x88, 0xC4]); // next: lodsb; mov ah, al
    code.extend([0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x40, 0x74, 0xFB]); // mov dx, 0x3fd; wait: in; test 0x40; jz wait
    code.extend([0x66, 0xBA, 0xF8, 0x03, 0x88, 0xE0, 0xEE, 0xE2, 0xEB]); // mov dx, 0x3f8; mov al, ah; out; loop next
    code.extend([0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x40, 0x74, 0xFB]); // until it is sent
    for (port, offset, len) in
        [(0xE9u16, text.len(), stream.len()), (0x8900, text.len() + stream.len(), shutdown.len())]
    {
        code.extend([0x66, 0xBA]); // mov dx, port
        code.extend(port.to_le_bytes());
        code.push(0xBE);
        code.extend(at(offset));
        code.push(0xB9);
        code.extend((len as u32).to_le_bytes());
        code.extend([0xF3, 0x6E]); // rep outsb
    }
    code.extend([0xF4, 0xEB, 0xFD]); // hlt
    assert!(code.len() <= CODE_LEN as usize);
    code.resize(CODE_LEN as usize, 0x90);
    code.extend(text.as_bytes());
    code.extend(stream);
    code.extend(shutdown);
    code
}

/// A stream with this exit byte.
fn stream(byte: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = FrameWriter::new(0, |bytes: &[u8]| out.extend_from_slice(bytes));
    writer.memory(0x20_0000, &[7; 100]);
    writer.exit(byte);
    out
}

fn bare_in(machine: MachineKind, code: &[u8], change: impl FnOnce(&mut RunOptions)) -> (RunReport, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let kernel = dir.path().join("kernel.elf");
    std::fs::write(&kernel, elf(code)).unwrap();
    let bare =
        BareRun { kernel: &kernel, module: None, cmdline: "a=b", pcpus: 2, memory: 64 << 20, has_end_marker: true };
    let mut options = options(machine, dir.path());
    change(&mut options);
    (run_bare(&bare, &options).unwrap(), dir)
}

fn bare(code: &[u8], change: impl FnOnce(&mut RunOptions)) -> (RunReport, tempfile::TempDir) {
    bare_in(MachineKind::BOCHS_VMX, code, change)
}

#[test]
#[ignore = "needs Bochs; ci/test.sh runs it"]
fn a_run_counts_with_marker_and_exit_record_only() {
    let good = "hello\r\npayload: end: success\r\n";
    let (report, dir) = bare(&print_and_end(good, &stream(0x10)), |_| {});
    let log = std::fs::read(dir.path().join("out/payload.log"));
    assert_eq!(report.outcome, RunOutcome::Success, "{log:?}");
    let file = |name: &str| dir.path().join("out").join(name);
    assert_eq!(std::fs::read_to_string(file("payload.log")).unwrap(), good);
    for gone in ["ram.bin", "boot.iso", "debug-port.bin"] {
        assert!(!file(gone).exists(), "{gone}");
    }
    let outcome = |text: &str, stream: &[u8]| bare(&print_and_end(text, stream), |_| {}).0.outcome;
    assert_eq!(
        outcome("payload: end: claim 7\r\n", &stream(0x11)),
        RunOutcome::PartitionFailed { reason: "claim 7".into() }
    );
    let unmarked = outcome("hello\r\n", &stream(0x10));
    assert!(unmarked.to_string().contains("does not end with"), "{unmarked}");
    let unrecorded = outcome(good, b"no stream");
    assert!(unrecorded.to_string().contains("exit code 1"), "{unrecorded}");
}

#[test]
#[ignore = "needs Bochs; ci/test.sh runs it"]
fn a_damaged_stream_fails_the_run_and_is_kept() {
    let mut damaged = stream(0x10);
    damaged[40] ^= 1;
    let (report, dir) = bare(&print_and_end("payload: end: success\r\n", &damaged), |_| {});
    let words = report.outcome.to_string();
    assert!(words.contains("frame 0") && words.contains("100 bytes of memory at 0x200000"), "{words}");
    assert!(words.ends_with("the run itself: success") && !report.outcome.is_success(), "{words}");
    assert!(dir.path().join("out/debug-port.bin").exists());
}

#[test]
#[ignore = "needs Bochs; ci/test.sh runs it"]
fn a_machine_that_hangs_or_faults_is_told_apart() {
    let (report, _dir) = bare(&HANG, |options| options.timeout = Duration::from_secs(4));
    assert_eq!(report.outcome, RunOutcome::TimedOut { after: Duration::from_secs(4) });
    assert!(report.trace.notes[0].contains("at its end"), "{:?}", report.trace.notes);
    let (report, _dir) = bare(&TRIPLE_FAULT, |_| {});
    assert!(report.outcome.to_string().contains("exception with no resolution"), "{}", report.outcome);
}

#[test]
#[ignore = "needs Bochs; ci/test.sh runs it"]
fn a_bare_payload_leaves_its_trace() {
    for machine in [MachineKind::BOCHS_VMX, MachineKind::BOCHS_SVM] {
        let dir = tempfile::tempdir().unwrap();
        let kernel = cargo_build::payload("latency").unwrap();
        let bare = BareRun {
            kernel: &kernel,
            module: None,
            cmdline: "group=ipi samples=20",
            pcpus: 2,
            memory: 64 << 20,
            has_end_marker: true,
        };
        let report = run_bare(&bare, &options(machine, dir.path())).unwrap();
        let log = std::fs::read_to_string(report.dir.join("payload.log")).unwrap_or_default();
        assert_eq!(report.outcome, RunOutcome::Success, "{log}");
        assert!(log.ends_with("payload: end: success\r\n"), "all of it was printed: {log:?}");
        assert_eq!(report.trace.regions, 1, "{:?}", report.trace.notes);
        let trace = Trace::load(&report.dir).unwrap();
        assert!(trace.is_whole(), "{:?}", trace.damage);
        let run = trace.run.unwrap();
        assert_eq!((run.machine, run.tick.contains("Bochs")), (machine.result_name(), true));
    }
}

#[test]
fn systems_that_bochs_cannot_run_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kernel.elf"), elf(&HANG)).unwrap();
    let refusal = |machine: &str, partition: &str| {
        let text = format!(
            "[system]\nname = 's'\n{machine}\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '2 MiB'\n{partition}\n\
             image = {{ kind = 'elf', path = 'kernel.elf' }}\nexpect = 'finish'\n"
        );
        let system = SystemFile::parse(&text, &dir.path().join("s.toml")).unwrap();
        let mut options = options(MachineKind::BOCHS_VMX, dir.path());
        // It is not entered.
        options.hypervisor = Some(dir.path().join("kernel.elf"));
        options.timeout = Duration::from_millis(1);
        run_system(&system, &options).err().map(|error| format!("{error:#}"))
    };
    for (machine, partition, words) in [
        ("[machine]\npcpus = 9", "", "9 pCPUs, but Bochs has at most 8"),
        ("[machine]\nmemory = '3 GiB'", "", "3 GiB of RAM, but Bochs takes whole MiB, at most 2 GiB"),
        ("", "devices = ['edu']", "Bochs has no edu"),
        ("", "devices = ['debugcon']", "partition \"p\" owns I/O port 0xe9"),
        ("", "io_ports = ['0x88f0-0x8910']", "owns I/O port 0x8900"),
        ("", "console = 'com5'", "COM5, but Bochs has COM1 to COM4 only"),
    ] {
        let error = refusal(machine, partition).unwrap_or_else(|| panic!("{words}"));
        assert!(error.contains(words), "{error}");
    }
}
