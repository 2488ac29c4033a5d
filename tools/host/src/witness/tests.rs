//! The comparison on recorded lines, and on runs that are made up: it holds where it has to, and fails where it has to.

use super::*;
use proptest::prelude::*;

/// As QEMU writes it: with and without code, and with messages that have no end.
const RECORDED: &str = "\
vmrun! 00000000005ac000
----------------
IN: 
0x00200000:  fa                       cli      

vmexit(0000007c, 0000000000000001, 0000000000000000, 000000000020006d)!
vmrun! 00000000005ac000
vmrun! 00000000005b3000
vmexit(0000007b, 0000000000800210, 0000000000217c20, 0000000000217c1e)!
vmrun! 00000000005ac000
Injecting(0): NMIvmexit(00000074, 0000000000000000, 0000000000217c20, 0000000000201fc5)!
vmexit(00000400, 0000000100000006, 0000000080000000, 0000000000217c56)!
vmrun! 00000000005b3000
Servicing virtual hardware INT=0x30
vmrun! 00000000005ac000
vmexit(00000061, 0000000000000000, 0000000000000000, 0000000000217c76)!
";

fn read(text: &str) -> Result<WitnessLog, String> {
    WitnessLog::read(text.as_bytes()).map_err(|error| error.to_string())
}

const fn traced(tsc: u64, pcpu: u16, reason: ExitReason, detail16: u16, detail: u64) -> TracedExit {
    TracedExit { tsc, pcpu, reason, detail16, detail }
}

/// What the hypervisor traces of that. The two after the third entry are handled in the other order, and the last is not
/// traced, as its vCPU did not go on.
const TRACE: [TracedExit; 4] = [
    traced(100, 2, ExitReason::IcrWrite, 0, 0x4500),
    traced(200, 2, ExitReason::IoOut, 0x80, 0x80),
    traced(300, 3, ExitReason::NestedPageFault, 6, 0x8000_0000),
    traced(400, 2, ExitReason::NmiReturn, 0, 0x20_1FC5),
];

#[test]
fn a_recorded_log_is_read() {
    let log = read(RECORDED).unwrap();
    assert_eq!((log.steps.len(), log.exits()), (11, 5));
    assert_eq!(log.steps[2], Step::Run { vmcb: 0x5A_C000 });
    let exit = VmExit { code: 0x7B, info1: 0x80_0210, info2: 0x21_7C20, rip: 0x21_7C1E };
    assert_eq!(log.steps[4], Step::Exit(exit));
}

#[test]
fn a_recorded_run_agrees() {
    let agreement = compare(&read(RECORDED).unwrap(), &TRACE).unwrap();
    assert_eq!((agreement.exits, agreement.traced, agreement.deferred, agreement.in_guest), (5, 4, 1, 1));
    let words = "witness: 5 exits in the emulator's log, all in the trace, in the same order, but for 1 from which a \
                 vCPU never went on (NMI); 1 of 4 waited while another pCPU's was handled";
    assert_eq!(agreement.to_string(), words);
    let short: String = RECORDED.lines().take(6).flat_map(|line| [line, "\n"]).collect();
    let agreement = compare(&read(&short).unwrap(), &TRACE[..1]).unwrap();
    assert_eq!(agreement.to_string(), "witness: 1 exits in the emulator's log, all in the trace, in the same order");
    assert_eq!(compare(&WitnessLog::default(), &[]).unwrap().exits, 0);
}

/// The first difference between a log and the trace.
fn difference(log: &str, trace: &[TracedExit]) -> String {
    compare(&read(log).unwrap(), trace).unwrap_err().to_string()
}

#[test]
fn a_line_that_is_missing_is_found() {
    for (gone, next) in [
        ("vmexit(0000007c", "exit 0: icr on pCPU 2 at 100"),
        ("vmexit(0000007b", "exit 1: out on pCPU 2 at 200"),
        ("Injecting(0)", "exit 3: nmi_return on pCPU 2 at 400"),
        ("vmexit(00000400", "exit 2: nested_page_fault on pCPU 3 at 300"),
    ] {
        let log: String = RECORDED.lines().filter(|line| !line.starts_with(gone)).flat_map(|l| [l, "\n"]).collect();
        let words = difference(&log, &TRACE);
        assert!(words.contains(next), "{gone}: {words}");
    }
    let words = difference(&RECORDED.replacen("vmexit(0000007c", "vm_xit(0000007c", 1), &TRACE);
    let expected = "log and trace differ, at an entry by VMCB 0x5ac000: the emulator's log has no exit that is not in the \
                    trace; the trace has exit 0: icr on pCPU 2 at 100 (detail16 0x0, detail 0x4500)";
    assert_eq!(words, expected);
}

#[test]
fn a_line_that_is_changed_is_found() {
    for (old, new, logged) in [
        ("vmexit(0000007c, 0000000000000001", "vmexit(0000007c, 0000000000000000", "exit 0: RDMSR (code 0x7c"),
        ("vmexit(0000007c", "vmexit(00000072", "exit 0: CPUID (code 0x72"),
        ("0000000000800210", "0000000000810210", "exit 1: OUT port 0x81"),
        ("0000000000800210", "0000000000800211", "exit 1: IN port 0x80"),
        ("0000000000201fc5", "0000000000201fc6", "exit 2: IRET (code 0x74"),
        ("0000000080000000", "0000000080000001", "exit 3: nested page fault at 0x80000001"),
        ("0000000100000006", "0000000100000004", "exit 3: nested page fault at 0x80000000"),
    ] {
        let words = difference(&RECORDED.replacen(old, new, 1), &TRACE);
        assert!(words.contains(logged), "{new}: {words}");
    }
}

#[test]
fn a_frame_that_is_missing_or_too_much_is_found() {
    for gone in 0..TRACE.len() {
        let mut trace = TRACE.to_vec();
        trace.remove(gone);
        let words = difference(RECORDED, &trace);
        assert!(words.contains("the emulator's log has exit "), "{gone}: {words}");
    }
    let mut trace = TRACE.to_vec();
    trace.push(traced(500, 3, ExitReason::Cpuid, 0, 0));
    assert!(difference(RECORDED, &trace).contains("exit 4: cpuid on pCPU 3 at 500"));
    // A pCPU that has entered no guest.
    trace[4] = traced(500, 4, ExitReason::Kick, 0, 0);
    assert!(difference(RECORDED, &trace).contains("exit 4: kick on pCPU 4 at 500"));
}

#[test]
fn another_order_is_found() {
    let mut trace = TRACE.to_vec();
    trace.swap(0, 1);
    assert!(difference(RECORDED, &trace).contains("exit 0: out on pCPU 2 at 200"));
    // pCPU 3 went on before: what the trace has before that has to be in the log by then.
    let mut trace = TRACE.to_vec();
    trace.swap(2, 3);
    let log = RECORDED.replacen("Injecting(0): NMIvmexit(00000074", "xvmexit(00000072", 1);
    assert!(difference(&log, &trace).contains("nmi_return on pCPU 2"));
}

#[test]
fn lines_are_known_or_refused() {
    let refused = VmExit { code: u64::MAX, info1: 0, info2: 0, rip: 0 };
    assert_eq!(read("vmexit(ffffffff, 0, 0, 0)!\n").unwrap().steps, [Step::Exit(refused)]);
    // What was being written when the emulator was ended.
    assert_eq!(read("vmrun! 1000\nvmexit(0000").unwrap().steps, [Step::Run { vmcb: 0x1000 }]);
    for line in ["vmrun! x\n", "vmexit(00000072, 0, 0)!\n", "vmexit(00000072, 0, 0, 0)\n", "vmexit(7x, 0, 0, 0)!\n"] {
        let error = read(&["\n", line].concat()).unwrap_err();
        assert!(error.starts_with("line 2 is not one that is known: \"vm"), "{error}");
    }
    assert_eq!(read(&"x".repeat(5000)).unwrap().steps, []);
}

/// A kind of exit: what QEMU logs, and what the hypervisor traces.
const KINDS: [(u64, u64, ExitReason, u16, u64); 5] = [
    (0x72, 0, ExitReason::Cpuid, 0, 0),
    (0x7C, 1, ExitReason::MsrWrite, 0, 0x832),
    (0x7C, 1, ExitReason::IcrWrite, 0, 0x4500),
    (0x61, 0, ExitReason::Kick, 0, 0),
    (0x7B, 0x80_0210, ExitReason::IoOut, 0x80, 0x80),
];

/// A run of some vCPUs: at each step one of them goes on. It is entered, leaves its guest, is stamped, or is traced; so
/// exits happen and are stamped in any order, and a vCPU waits before its stamp as long as it likes.
fn made_up(vcpus: u16, steps: &[(u16, usize)]) -> (WitnessLog, Vec<TracedExit>) {
    let mut log = WitnessLog::default();
    let mut trace = Vec::new();
    let mut states = vec![(0, 0); usize::from(vcpus)];
    let mut go_on = |now: usize, vcpu: u16, kind: usize| {
        let (stage, current) = &mut states[usize::from(vcpu)];
        match *stage {
            0 => log.steps.push(Step::Run { vmcb: 0x1000 * u64::from(vcpus - vcpu) }),
            1 => {
                *current = kind % KINDS.len();
                let (code, info1, ..) = KINDS[*current];
                log.steps.push(Step::Exit(VmExit { code, info1, info2: 0, rip: 0 }));
            }
            _ => {
                let (_, _, reason, detail16, detail) = KINDS[*current];
                trace.push(TracedExit { tsc: now as u64, pcpu: vcpu + 1, reason, detail16, detail });
            }
        }
        *stage = (*stage + 1) % 3;
        *stage
    };
    for (now, (vcpu, kind)) in steps.iter().enumerate() {
        go_on(now, vcpu % vcpus, *kind);
    }
    // At the end all are in their guests.
    for vcpu in 0..vcpus {
        while go_on(steps.len() + usize::from(vcpu), vcpu, 0) != 1 {}
    }
    (log, trace)
}

fn steps() -> impl Strategy<Value = Vec<(u16, usize)>> {
    proptest::collection::vec((any::<u16>(), any::<usize>()), 0..120)
}

proptest! {
    #[test]
    fn any_run_agrees_with_its_trace(vcpus in 1_u16..5, steps in steps()) {
        let (log, trace) = made_up(vcpus, &steps);
        let agreement = compare(&log, &trace).unwrap();
        prop_assert_eq!((agreement.exits, agreement.traced), (log.exits(), trace.len()));
        prop_assert_eq!((agreement.unfinished.len(), agreement.in_guest), (0, usize::from(vcpus)));
    }

    #[test]
    fn no_run_agrees_with_anything_less(vcpus in 1_u16..5, steps in steps(), at: prop::sample::Index) {
        let (log, trace) = made_up(vcpus, &steps);
        prop_assume!(!trace.is_empty());
        let mut less = trace.clone();
        less.remove(at.index(trace.len()));
        prop_assert!(compare(&log, &less).is_err());
        let mut other = trace.clone();
        other[at.index(trace.len())].reason = ExitReason::Hypercall;
        prop_assert!(compare(&log, &other).is_err());
        let mut less = log.clone();
        less.steps.remove(at.index(log.steps.len()));
        let removed = log.steps[at.index(log.steps.len())];
        // That a vCPU was entered for the last time is told by nothing that follows.
        if matches!(removed, Step::Exit(_)) {
            prop_assert!(compare(&less, &trace).is_err());
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(vmrun! [0-9a-fx]{0,18}\n|vmexit\\([0-9a-f, ]{0,80}\\)?!?\n|[a-z(!]{0,12}\n?){0,20}") {
        if let Ok(log) = read(&text) {
            let _ = compare(&log, &TRACE);
        }
    }
}
