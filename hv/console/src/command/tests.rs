use proptest::prelude::*;

use super::table::COMMANDS;
use super::*;
use crate::COLUMNS_MAX;
use crate::line::LINE_MAX;

fn error(line: &str) -> String {
    parse(line).unwrap_err().to_string()
}

fn help(command: Option<&str>) -> String {
    let mut out = String::new();
    write_help(&mut out, command).unwrap();
    out
}

fn partition(text: &str) -> PartitionName<'_> {
    PartitionName::new(text).unwrap()
}

#[test]
fn each_command_is_read() {
    for (line, expected) in [
        ("help", Command::Help(None)),
        ("help restart", Command::Help(Some("restart"))),
        ("partitions", Command::Partitions),
        ("vcpus", Command::Vcpus),
        ("exits", Command::Exits(None)),
        ("exits 3", Command::Exits(Some(3))),
        ("regs rt0.1", Command::Regs(VcpuName { partition: partition("rt0"), vcpu: 1 })),
        ("regs 0.1", Command::Regs(VcpuName { partition: partition("0"), vcpu: 1 })),
        ("regs a.b.0x1f", Command::Regs(VcpuName { partition: partition("a.b"), vcpu: 31 })),
        ("rdmsr 1 0xc000_0080", Command::Rdmsr { pcpu: 1, msr: 0xC000_0080 }),
        ("wrmsr 65535 16 0XFFFFFFFFFFFFFFFF", Command::Wrmsr { pcpu: u16::MAX, msr: 16, value: u64::MAX }),
        ("stop rt0", Command::Stop(partition("rt0"))),
        ("start my-part_1.x", Command::Start(partition("my-part_1.x"))),
        ("restart 0", Command::Restart { partition: partition("0"), times: 1 }),
        ("restart rt0 100_000", Command::Restart { partition: partition("rt0"), times: RESTARTS_MAX }),
        ("trace", Command::Trace),
        ("smp", Command::Smp),
        ("storm 1000000", Command::Storm { rounds: STORM_ROUNDS_MAX, restarted: None }),
        ("hold 2 60000", Command::Hold { pcpu: 2, milliseconds: HOLD_MILLISECONDS_MAX }),
        ("\t quit  ", Command::Quit),
    ] {
        assert_eq!(parse(line), Ok(Some(expected)), "{line}");
    }
    for line in ["", " ", "\t\r\n "] {
        assert_eq!(parse(line), Ok(None));
    }
}

#[test]
fn errors_name_the_thing_the_value_and_the_cure() {
    for (line, expected) in [
        ("partition", r#"unknown command "partition"; did you mean partitions? help lists all"#),
        ("part", r#"unknown command "part"; did you mean partitions? help lists all"#),
        ("STOP rt0", r#"unknown command "STOP"; did you mean stop? help lists all"#),
        ("hlep", r#"unknown command "hlep"; did you mean help? help lists all"#),
        ("?", r#"unknown command "?"; help lists all"#),
        ("reboot-everything-now", r#"unknown command "reboot-everything-no"...; help lists all"#),
        ("help regz", r#"unknown command "regz"; did you mean regs? help lists all"#),
        ("regs", "regs: VCPU is missing; usage: regs VCPU"),
        ("regs rt0", r#"regs: VCPU "rt0" is not PARTITION.NUMBER, as in rt0.1; usage: regs VCPU"#),
        ("regs .1", r#"regs: VCPU ".1" is not PARTITION.NUMBER, as in rt0.1; usage: regs VCPU"#),
        ("regs rt0.65536", r#"regs: VCPU "rt0.65536" is not PARTITION.NUMBER, as in rt0.1; usage: regs VCPU"#),
        ("rdmsr 1", "rdmsr: MSR is missing; usage: rdmsr PCPU MSR"),
        ("rdmsr 65536 1", r#"rdmsr: PCPU "65536" is above 0xffff; usage: rdmsr PCPU MSR"#),
        ("rdmsr 0 0x1_0000_0000", r#"rdmsr: MSR "0x1_0000_0000" is above 0xffffffff; usage: rdmsr PCPU MSR"#),
        ("rdmsr 0 efer", r#"rdmsr: MSR "efer" is not a number; usage: rdmsr PCPU MSR"#),
        (
            "wrmsr 0 1 18446744073709551616",
            r#"wrmsr: VALUE "18446744073709551616" is above 0xffffffffffffffff; usage: wrmsr PCPU MSR VALUE"#,
        ),
        ("stop a/b", r#"stop: PARTITION "a/b" is no name or number; usage: stop PARTITION"#),
        ("stop .a", r#"stop: PARTITION ".a" is no name or number; usage: stop PARTITION"#),
        ("restart a 0", r#"restart: TIMES "0" is not from 1 to 100000; usage: restart PARTITION [TIMES]"#),
        ("restart a 1 2", r#"restart: "2" is too much; usage: restart PARTITION [TIMES]"#),
        ("storm 1000001", r#"storm: ROUNDS "1000001" is not from 1 to 1000000; usage: storm ROUNDS [PARTITION]"#),
        ("hold 1 60001", r#"hold: MILLISECONDS "60001" is not from 1 to 60000; usage: hold PCPU MILLISECONDS"#),
        ("exits all", r#"exits: PCPU "all" is not a number; usage: exits [PCPU]"#),
        ("quit \"\\'\x1B\u{e9}", r#"quit: "\"\\'\u{1b}\u{e9}" is too much; usage: quit"#),
    ] {
        assert_eq!(error(line), expected, "{line:?}");
    }
}

#[test]
fn numbers_have_one_form() {
    let msr = |word: &str| match parse(&format!("rdmsr 0 {word}")) {
        Ok(Some(Command::Rdmsr { msr, .. })) => Some(msr),
        _ => None,
    };
    for (word, value) in [("0", 0), ("007", 7), ("1_000", 1000), ("1__0_", 10), ("0xff", 255), ("0Xa_B", 0xAB)] {
        assert_eq!(msr(word), Some(value), "{word}");
    }
    for word in ["_1", "0x", "0x_1", "-1", "+1", "1.0", "1e3", "0b1", "ff", "\u{0661}", "0xg", "x1"] {
        assert_eq!(msr(word), None, "{word}");
    }
}

#[test]
fn a_partition_is_found_by_name_then_by_number() {
    let names = ["rt0", "2", "linux"];
    for (text, expected) in [
        ("rt0", Some(0)),
        ("linux", Some(2)),
        ("2", Some(1)),
        ("0", Some(0)),
        ("0x2", Some(2)),
        ("3", None),
        ("rt", None),
    ] {
        assert_eq!(partition(text).resolve(names), expected, "{text}");
    }
    assert_eq!(partition("0").resolve([""; 0]), None);
    assert_eq!(partition("99999999999").number(), None);
}

#[test]
fn the_table_agrees_with_itself() {
    for entry in &COMMANDS {
        assert_eq!(entry.usage.split(' ').next(), Some(entry.name));
        assert!((1..=4).contains(&entry.more.len()), "{}", entry.name);
        let example = entry.more.last().and_then(|line| line.strip_prefix("Example: ")).unwrap();
        assert!(example == entry.name || example.starts_with(&format!("{} ", entry.name)), "{example}");
        assert!(matches!(parse(example), Ok(Some(_))), "{example}");
        assert_eq!(COMMANDS.iter().filter(|other| other.name == entry.name).count(), 1);
        // What the usage asks for is asked for, and in this order.
        if let Some(first) = entry.usage.split(' ').nth(1).filter(|argument| !argument.starts_with('[')) {
            assert_eq!(error(entry.name), format!("{}: {first} is missing; usage: {}", entry.name, entry.usage));
        }
    }
}

#[test]
fn the_limits_in_the_help_are_the_limits() {
    for (command, limit) in [("restart", RESTARTS_MAX), ("storm", STORM_ROUNDS_MAX), ("hold", HOLD_MILLISECONDS_MAX)] {
        assert!(help(Some(command)).contains(&format!("from 1 to {limit}")), "{command}");
    }
}

#[test]
fn help_lists_all_and_explains_each() {
    let list = help(None);
    for entry in &COMMANDS {
        assert!(list.contains(&format!("  {}  ", entry.usage)), "{}", entry.usage);
        let one = help(Some(entry.name));
        assert!(one.starts_with(&format!("{}: {}\n", entry.usage, entry.summary)));
        assert!((2..=5).contains(&one.lines().count()));
        for line in list.lines().chain(one.lines()) {
            assert!(line.len() <= COLUMNS_MAX && line.bytes().all(|b| matches!(b, b' '..=b'~')), "{line}");
        }
    }
    assert_eq!(help(Some("tracy")), "unknown command \"tracy\"; did you mean trace? help lists all\n");
}

/// A number in one of its forms.
fn number(value: u64, form: u8) -> String {
    match form % 4 {
        0 => format!("{value}"),
        1 => format!("{value:#x}"),
        2 => format!("0X{value:X}_"),
        _ => value.to_string().chars().flat_map(|digit| [digit, '_']).collect(),
    }
}

fn check_error(error: ParseError<'_>) -> Result<(), TestCaseError> {
    let text = error.to_string();
    prop_assert!(text.len() <= COLUMNS_MAX, "{} columns: {}", text.len(), text);
    prop_assert!(text.bytes().all(|b| matches!(b, b' '..=b'~')), "{:?}", text);
    let cure = error.usage.map_or("help lists all".to_owned(), |usage| format!("usage: {usage}"));
    prop_assert!(text.ends_with(&cure) || text.ends_with("help lists all"), "{}", text);
    Ok(())
}

proptest! {
    #[test]
    fn what_is_written_is_read(pcpu: u16, msr: u32, value: u64, form: u8, name in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,31}",
        times in 1..=RESTARTS_MAX, rounds in 1..=STORM_ROUNDS_MAX, milliseconds in 1..=HOLD_MILLISECONDS_MAX) {
        let n = |value: u64| number(value, form);
        let (p, m, v) = (n(pcpu.into()), n(msr.into()), n(value));
        let partition = partition(&name);
        for (line, expected) in [
            (format!("exits {p}"), Command::Exits(Some(pcpu))),
            (format!("regs {name}.{p}"), Command::Regs(VcpuName { partition, vcpu: pcpu })),
            (format!("regs {}", VcpuName { partition, vcpu: pcpu }), Command::Regs(VcpuName { partition, vcpu: pcpu })),
            (format!("rdmsr {p} {m}"), Command::Rdmsr { pcpu, msr }),
            (format!("wrmsr  {p}\t{m} {v} "), Command::Wrmsr { pcpu, msr, value }),
            (format!("stop {name}"), Command::Stop(partition)),
            (format!("start {partition}"), Command::Start(partition)),
            (format!("restart {name} {}", n(times.into())), Command::Restart { partition, times }),
            (format!("storm {}", n(rounds.into())), Command::Storm { rounds, restarted: None }),
            (format!("hold {p} {}", n(milliseconds.into())), Command::Hold { pcpu, milliseconds }),
        ] {
            prop_assert!(line.len() <= LINE_MAX, "{} does not fit a line", line);
            prop_assert_eq!(parse(&line), Ok(Some(expected)), "{}", line);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text: String) {
        if let Err(error) = parse(&text) {
            check_error(error)?;
        }
    }

    #[test]
    fn any_words_after_a_command_are_read_or_refused(
        index in 0..COMMANDS.len(),
        words in prop::collection::vec("[0-9x_.a-f\"\\\\'\u{e9}\u{10ffff}\u{1}-]{1,40}", 0..5),
    ) {
        let line = format!("{} {}", COMMANDS[index].name, words.join(" "));
        match parse(&line) {
            Ok(command) => prop_assert!(command.is_some()),
            Err(error) => check_error(error)?,
        }
    }
}
