//! The hypervisor's console, by a script of commands: what it shows is true, and nonsense does no harm.

use crate::system::{Left, load, machine, run_with_commands};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::ExitReason;

/// Columns that an answer may have.
const COLUMNS_MAX: usize = 100;
/// The second waits until the first is over: together they pass time, in which the guests start.
const PASS_TIME: [&str; 2] = ["hold 2 100", "hold 2 1"];
/// What the guest on pCPU 1 has in its registers while it counts in RAX.
const PATTERN: [(&str, u64); 14] = [
    ("rbx", 0x1B1B_1B1B_0000_000B),
    ("rcx", 0x1C1C_1C1C_0000_000C),
    ("rdx", 0x1D1D_1D1D_0000_000D),
    ("rsi", 0x1E1E_1E1E_0000_000E),
    ("rdi", 0x1F1F_1F1F_0000_000F),
    ("rbp", 0x2020_2020_0000_0010),
    ("r8", 0x0808_0808_0000_0008),
    ("r9", 0x0909_0909_0000_0009),
    ("r10", 0x1010_1010_0000_0010),
    ("r11", 0x1111_1111_0000_0011),
    ("r12", 0x1212_1212_0000_0012),
    ("r13", 0x1313_1313_0000_0013),
    ("r14", 0x1414_1414_0000_0014),
    ("r15", 0x1515_1515_0000_0015),
];

fn run(clock: Clock, commands: &[&str]) -> Left {
    let all = [&PASS_TIME[..], commands, &["quit"]].concat();
    let left = run_with_commands(&load("console.toml", &[]), clock, 120, &all);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    let mut seen: Vec<&str> = Vec::new();
    for command in commands.iter().filter(|command| command.len() < COLUMNS_MAX && command.is_ascii()) {
        let nth = seen.iter().filter(|earlier| *earlier == command).count();
        seen.push(command);
        let answer = left.answers_to(command, nth);
        assert!(!answer.is_empty(), "{command}: no answer\n{}", left.consoles());
        assert!(answer.iter().all(|line| line.len() <= COLUMNS_MAX), "{command}: {answer:#?}");
    }
    left
}

/// The words of a table's row.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The rows of a table, whose headings are as expected.
fn table(answer: &[String], headings: &[&str]) -> Vec<Vec<String>> {
    let head = answer.iter().position(|line| words(line) == headings);
    let head = head.unwrap_or_else(|| panic!("no headings {headings:?}: {answer:#?}"));
    answer[head + 1..].iter().map(|line| words(line).into_iter().map(str::to_owned).collect()).collect()
}

fn number(text: &str) -> u64 {
    text.replace(',', "").parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn one_line(left: &Left, command: &str) -> String {
    let [line] = &left.answers(command)[..] else { panic!("{command}: {:?}", left.answers(command)) };
    line.clone()
}

/// A register in a dump.
fn register(dump: &[String], name: &str) -> u64 {
    let words: Vec<&str> = dump.iter().skip(1).flat_map(|line| words(line)).collect();
    let value = words.windows(2).find(|pair| pair[0] == name).unwrap_or_else(|| panic!("no {name}: {dump:?}"))[1];
    u64::from_str_radix(value, 16).unwrap()
}

#[test]
#[ignore = "boots an emulator"]
fn commands_are_answered_one_by_one() {
    for clock in [Clock::Icount, Clock::Host] {
        // The guest never ends, nor do the kicks: the last command ends the run.
        let system = load("kicks.toml", &[("smp_call_rounds = 1000", "smp_call_rounds = 0")]);
        let left = run_with_commands(&system, clock, 120, &["help", "no such thing", "partitions", "help", "quit"]);
        assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
        let help = left.answers("help");
        assert!(help.iter().any(|line| line.contains("partitions")), "{}", left.consoles());
        assert_eq!(help, left.answers_to("help", 1), "{}", left.consoles());
        assert!(!left.answers("no such thing").is_empty(), "{}", left.consoles());
        assert!(left.answers("partitions").iter().any(|line| line.contains("target")), "{}", left.consoles());
    }
}

#[test]
#[ignore = "boots an emulator"]
fn tables_show_what_is() {
    let commands = ["help", "help hold", "partitions", "smp", "exits", "vcpus", "exits 1", "exits 99", "trace"];
    let left = run(Clock::Icount, &commands);
    let partitions = left.answers("partitions");
    assert!(words(&partitions[0]).starts_with(&["NO", "NAME", "STATE", "VCPUS", "MEMORY"]), "{partitions:#?}");
    assert_eq!(words(&partitions[1]).join(" "), "0 pattern still running 1 16 MiB 1 0");
    assert_eq!(words(&partitions[2]).join(" "), "1 pulse still running 1 2 MiB 1 0");

    let smp = left.answers("smp");
    let rows: Vec<String> = smp.iter().skip(1).map(|line| words(line).join(" ")).collect();
    assert_eq!(words(&smp[0]).join(" "), "PCPU APIC ID STATE DOES KICKED BY LATE ANSWERS IN");
    assert!(rows[0].starts_with("0 0 online keeps house vector 0 ") && rows[0].ends_with(" ticks"), "{rows:#?}");
    for (pcpu, row) in rows.iter().enumerate().take(3).skip(1) {
        assert!(row.starts_with(&format!("{pcpu} {pcpu} online runs its guest NMI 0 ")), "{rows:#?}");
        let ticks = number(words(row).iter().nth_back(1).unwrap());
        assert!(row.ends_with(" ticks") && (50..100_000).contains(&ticks), "{rows:#?}");
    }
    // Nobody's: it was parked.
    assert_eq!(rows[3..], ["3 3 parked sleeps for good vector 0 is not asked"]);

    // Each was asked for its time at boot.
    let clocks = left.events(0).into_iter().filter_map(|(_, event)| match event {
        Event::PcpuClock { pcpu, ahead, behind } => Some((pcpu, ahead + behind)),
        _ => None,
    });
    let clocks: Vec<_> = clocks.collect();
    assert_eq!(clocks.iter().map(|clock| clock.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(clocks.iter().all(|clock| (1..10_000).contains(&clock.1)), "{clocks:?}");

    // Nothing exits between these commands, and after them, as the guests only spin and halt and are not called.
    let exits = left.answers("exits");
    let khz = if machine() == MachineKind::Qemu { 1_000_000 } else { 50_000 };
    assert!(exits[0].starts_with(&format!("durations in ticks of {khz} kHz")), "{exits:#?}");
    let exits = table(&exits, &["PCPU", "EXIT", "COUNT", "MIN", "MEAN", "P50", "P99", "MAX"]);
    let vcpus = left.answers("vcpus");
    assert_eq!(words(&vcpus[0]).join(" "), "VCPU PCPU APIC ID STATE EXITS KICKS KICKED BY");
    // Where the trace leaves by the debug port, the end of the run stops what runs still: by a kick.
    let at_end = u64::from(machine() != MachineKind::Qemu);
    for (pcpu, name) in [(1_u16, "pattern.0"), (2, "pulse.0")] {
        let rows: Vec<_> = exits.iter().filter(|row| row[0] == pcpu.to_string()).collect();
        for &reason in ExitReason::ALL {
            let shown = rows.iter().find(|row| row[1] == reason.name()).map_or(0, |row| number(&row[2]));
            let at_end = if reason == ExitReason::Kick { at_end } else { 0 };
            assert_eq!(shown + at_end, left.count(pcpu, HistogramId::Exit(reason)), "pCPU {pcpu}: {}", reason.name());
        }
        let total: u64 = rows.iter().map(|row| number(&row[2])).sum();
        let kicks = left.count(pcpu, HistogramId::Exit(ExitReason::Kick)) - at_end;
        let row = words(&vcpus[usize::from(pcpu)]).join(" ");
        assert_eq!(row, format!("{name} {pcpu} {pcpu} runs its guest {total} {kicks} NMI"));
        assert!(total > kicks && kicks > 0, "{row}");
    }
    let bars = left.answers("exits 1");
    assert!(bars.iter().any(|line| line == "cpuid on pCPU 1, ticks:"), "{bars:#?}");
    assert!(bars.iter().any(|line| line.ends_with('#')), "{bars:#?}");
    assert_eq!(one_line(&left, "exits 99"), "no pCPU 99; the machine has 4, from 0 on");

    let trace = left.answers("trace");
    assert_eq!(words(&trace[0]).join(" "), "PCPU RING USED FRAMES OVERWRITTEN DROPPED");
    let hypervisor = left.trace.regions.iter().find(|region| region.owner == Owner::Hypervisor).unwrap();
    for pcpu in 1..4_u16 {
        let ring = hypervisor.dump.rings.iter().find(|ring| ring.ring == pcpu).unwrap();
        let row = words(&trace[usize::from(pcpu) + 1]);
        let frames = number(row[5]);
        assert_eq!(row.join(" "), format!("{pcpu} 256 KiB 0 % {frames} 0 0"));
        // The end has a few of its own.
        let later = ring.frames().count() as u64 - frames;
        assert!(later <= 4 * at_end, "pCPU {pcpu}: {later} more than {frames}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn registers_are_those_of_the_running_guest() {
    for clock in [Clock::Icount, Clock::Host] {
        let commands = ["regs pattern.0", "regs 0.0", "regs pattern.1", "regs nobody.0", "regs pattern.0"];
        let left = run(clock, &commands);
        let dumps = [("regs pattern.0", 0), ("regs 0.0", 0), ("regs pattern.0", 1)];
        let mut counted = 0;
        for (command, nth) in dumps {
            let dump = left.answers_to(command, nth);
            assert_eq!(dump[0], "vCPU pattern.0 on pCPU 1:");
            for (name, value) in PATTERN {
                assert_eq!(register(&dump, name), value, "{name}: {dump:#?}");
            }
            // Protected mode and paging; long mode active, and no-execute.
            assert_eq!(register(&dump, "cr0") & 0x8000_0001, 0x8000_0001, "{dump:#?}");
            assert_eq!(register(&dump, "efer") & 0xD00, 0xD00, "{dump:#?}");
            let image = 0x20_0000..0x40_0000;
            let of_image = ["rip", "rsp", "cr3"].map(|name| register(&dump, name));
            assert!(of_image.iter().all(|address| image.contains(address)), "{dump:#?}");
            assert_eq!((register(&dump, "cr3") & 0xFFF, register(&dump, "cs")), (0, 8), "{dump:#?}");
            // It went on.
            let counts = register(&dump, "rax");
            assert!(counts > counted, "{counted} {counts}");
            counted = counts;
        }
        assert_eq!(one_line(&left, "regs pattern.1"), "partition pattern has no vCPU 1; it has 1, from 0 on");
        assert_eq!(one_line(&left, "regs nobody.0"), "no partition nobody; `partitions` lists them");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn registers_are_read_and_written_or_it_is_said_why_not() {
    const AUX: &str = "0xc0000103";
    const ABSENT: &str = "#GP: the CPU has no such register, or it cannot be read";
    let expected = [
        ("wrmsr 1 0xC000_0103 0x1234", format!("wrmsr {AUX} on pCPU 1: 0x0000000000001234 written")),
        ("rdmsr 1 0xc0000103", format!("rdmsr {AUX} on pCPU 1: 0x0000000000001234 (4660)")),
        ("rdmsr 2 0xc0000103", format!("rdmsr {AUX} on pCPU 2: 0x0000000004040404 (67372036)")),
        ("rdmsr 1 0x804", format!("rdmsr 0x804 on pCPU 1: {ABSENT}")),
        ("rdmsr 0 0x804", format!("rdmsr 0x804 on pCPU 0: {ABSENT}")),
        ("rdmsr 1 0x802", "rdmsr 0x802 on pCPU 1: 0x0000000000000001 (1)".into()),
        (
            "wrmsr 1 0x6e1 0x100000000",
            "wrmsr 0x6e1 on pCPU 1: #GP: the CPU has no such register, or does not take 0x100000000".into(),
        ),
        ("wrmsr 1 0x1b 0", "wrmsr 0x1b: refused: the local APIC has to stay in x2APIC mode".into()),
        ("wrmsr 1 0x830 0", "wrmsr 0x830: refused: an interrupt of this kind could hit any pCPU".into()),
        ("wrmsr 1 0x83f 0x50", "wrmsr 0x83f: refused: an interrupt of this kind could hit any pCPU".into()),
        ("wrmsr 9 0xc0000103 0", "no pCPU 9; the machine has 4 pCPUs, from 0 on".into()),
        ("rdmsr 4 0x10", "SMP call to pCPU 4, but the machine has 4 pCPUs; name one below 4".into()),
        ("rdmsr 3 0x10", "pCPU 3 serves no calls; `smp` shows its state".into()),
        ("wrmsr 3 0xc0000103 1", "pCPU 3 serves no calls; `smp` shows its state".into()),
        ("hold 0 10", "pCPU 0 is this console's own; hold another".into()),
        ("rdmsr 1 0xC0000103", format!("rdmsr {AUX} on pCPU 1: 0x0000000000001234 (4660)")),
    ];
    for clock in [Clock::Icount, Clock::Host] {
        let left = run(clock, &expected.each_ref().map(|(command, _)| *command));
        for (command, answer) in &expected {
            assert_eq!(one_line(&left, command), *answer, "{clock:?}");
        }
    }
}

#[test]
#[ignore = "boots an emulator"]
fn nonsense_gets_help_and_does_no_harm() {
    let long = "x".repeat(200);
    // What is kept of the long one, and of the bytes that are no text.
    let (kept, text) = (&long[..96], "zzz");
    let bytes = format!("\0\u{1}\u{7}\u{e9}\u{ff}\u{fffd}\u{1b}[5~{text}");
    let unknown = "help lists all";
    let nonsense = [
        ("frobnicate", "unknown command \"frobnicate\"; help lists all"),
        ("REGS pattern.0", "unknown command \"REGS\"; did you mean regs? help lists all"),
        (&bytes, "unknown command \"zzz\"; help lists all"),
        (&long, "unknown command \"xxxxxxxxxxxxxxxxxxxx\"...; help lists all"),
        ("help me", unknown),
        ("rdmsr 1 99999999999999999999999999", "is above 0xffffffff; usage: rdmsr PCPU MSR"),
        ("rdmsr 65536 1", "is above 0xffff; usage: rdmsr PCPU MSR"),
        ("wrmsr 1 0xc0000103 0x1_0000_0000_0000_0000", "usage: wrmsr PCPU MSR VALUE"),
        ("wrmsr 1 2", "wrmsr: VALUE is missing; usage: wrmsr PCPU MSR VALUE"),
        ("rdmsr 1 efer", "is not a number; usage: rdmsr PCPU MSR"),
        ("rdmsr -1 0", "is not a number; usage: rdmsr PCPU MSR"),
        ("regs pulse", "is not PARTITION.NUMBER"),
        ("stop a/b", "is no name or number; usage: stop PARTITION"),
        ("restart pulse 0", "is not from 1 to 100000"),
        ("restart pulse 100001", "is not from 1 to 100000"),
        ("storm 0", "is not from 1 to 1000000"),
        ("hold 1 60001", "is not from 1 to 60000"),
        ("exits 1 2", "\"2\" is too much"),
        (";%n'\"\\`$(x)", unknown),
    ];
    for clock in [Clock::Icount, Clock::Host] {
        let commands: Vec<&str> = nonsense.iter().flat_map(|(command, _)| [*command, "partitions"]).collect();
        let left = run(clock, &commands);
        for (nth, (command, expected)) in nonsense.iter().enumerate() {
            let shown = if *command == long { kept } else { command.strip_prefix('\0').map_or(*command, |_| text) };
            let answer = one_line(&left, shown);
            assert!(answer.contains(expected) && answer.len() <= COLUMNS_MAX, "{shown}: {answer}");
            assert_eq!(left.answers_to("partitions", nth), left.answers("partitions"), "after {shown}");
        }
    }
}

/// With threads, because time passes there while everyone waits.
#[test]
#[ignore = "boots an emulator"]
fn a_stuck_pcpu_is_named_and_answers_again() {
    // The second `hold` is answered when the first is over.
    let commands = ["smp", "wrmsr 1 0xc0000103 5", "hold 1 2500", "rdmsr 1 0xc0000103", "hold 1 1", "smp"];
    let again = ["rdmsr 1 0xC0000103", "regs pattern.0"];
    let left = run(Clock::Host, &[&commands[..], &again].concat());
    assert_eq!(one_line(&left, "hold 1 2500"), "pCPU 1 is held for 2500 ms");
    let late = "pCPU 1 did not answer within its deadline; the call is withdrawn";
    assert_eq!(one_line(&left, "rdmsr 1 0xc0000103"), late);
    let [before, after] = [0, 1].map(|nth| {
        let smp = left.answers_to("smp", nth);
        let served = &smp[1..4];
        assert!(served.iter().all(|line| line.ends_with(" ticks")), "{smp:#?}");
        let late: Vec<u64> = served.iter().map(|line| number(words(line).iter().nth_back(2).unwrap())).collect();
        late
    });
    assert_eq!(after[1], before[1] + 1, "{}", left.consoles());
    assert_eq!((after[0], &after[2..]), (before[0], &before[2..]), "{}", left.consoles());
    assert_eq!(one_line(&left, "rdmsr 1 0xC0000103"), "rdmsr 0xc0000103 on pCPU 1: 0x0000000000000005 (5)");
    assert_eq!(register(&left.answers("regs pattern.0"), "r15"), PATTERN[13].1);
}
