//! Whatever comes from the terminal: lines in bounds, commands in their ranges, errors and help that fit the screen.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partita_console::COLUMNS_MAX;
use partita_console::command::{Command, HOLD_MILLISECONDS_MAX, RESTARTS_MAX, STORM_ROUNDS_MAX, parse, write_help};
use partita_console::line::{Edited, LINE_MAX, LineEditor};
use partita_console::table::{Column, Table};

const TABLE: Table<2> = Table::new([Column::left("LINE", 40), Column::right("COMMAND", 58)]);

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn check(line: &str) {
    let mut out = String::new();
    match parse(line) {
        Ok(None) => assert!(line.trim_ascii().is_empty()),
        Ok(Some(command)) => {
            match command {
                Command::Help(topic) => write_help(&mut out, topic).expect("a string takes all"),
                Command::Restart { times, .. } => assert!((1..=RESTARTS_MAX).contains(&times)),
                Command::Storm { rounds, .. } => assert!((1..=STORM_ROUNDS_MAX).contains(&rounds)),
                Command::Hold { milliseconds, .. } => assert!((1..=HOLD_MILLISECONDS_MAX).contains(&milliseconds)),
                Command::Regs(vcpu) => assert_eq!(parse(&format!("regs {vcpu}")), Ok(Some(command))),
                Command::Stop(partition) | Command::Start(partition) => {
                    assert!(partition.resolve(["rt0", "1", "a.b"]).is_none_or(|number| number < 3));
                }
                _ => {}
            }
            TABLE.row(&mut out, [format_args!("{line}"), format_args!("{command:?}")]).expect("a string takes all");
        }
        Err(error) => {
            out = format!("{error}\n");
            write_help(&mut out, line.split_ascii_whitespace().next()).expect("a string takes all");
        }
    }
    for line in out.lines() {
        assert!(line.len() <= COLUMNS_MAX && is_printable(line), "{line:?}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (mut editor, mut echo) = (LineEditor::new(), String::new());
    for &byte in bytes {
        echo.clear();
        if let Edited::Line(line) = editor.push(byte, &mut echo) {
            assert!(line.len() <= LINE_MAX && is_printable(line), "{line:?}");
            check(line);
        }
        // A byte costs no more than drawing the line anew.
        assert!(echo.len() <= 2 * LINE_MAX, "{echo:?}");
    }
    // The parser alone takes any text.
    if let Ok(text) = core::str::from_utf8(bytes) {
        check(text);
    }
});
