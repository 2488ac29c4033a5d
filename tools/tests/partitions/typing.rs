//! Consoles of partitions: what is typed at one arrives there, whole and nowhere else, and one that is flooded is complete
//! and slows nobody down.

use crate::bystander::{ENOUGH, assert_untouched, rounds};
use crate::system::{Left, is_long, load, run_in};
use partita_host::dialogue::Dialogue;
use partita_host::emulator::{Clock, ConsoleInput};
use partita_host::outcome::RunOutcome;
use partita_host::run::Session;
use partita_trace::Event;
use std::path::Path;

const CLOCKS: [Clock; 2] = [Clock::Icount, Clock::Host];

fn named(name: &str, dialogue: Dialogue) -> (String, Dialogue) {
    (name.to_owned(), dialogue)
}

/// Two guests, one of which is slow, with a dialogue each, and commands for the hypervisor, too.
fn talk(clock: Clock, first: Dialogue, second: Dialogue, commands: &[&str]) -> Left {
    let lines = commands.iter().map(|command| (*command).to_owned()).collect();
    let input = if commands.is_empty() { ConsoleInput::None } else { ConsoleInput::Script(lines) };
    let dialogues = vec![named("first", first), named("second", second)];
    run_in(&load("talk.toml", &[]), clock, 60, &Session { input, dialogues, ..Session::default() })
}

/// What a guest makes of a line, as `rt-partitions/devices/src/talk.rs` does.
fn answer(line: &str) -> String {
    let sum = line.bytes().fold(0u64, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte));
    format!("{} bytes, checksum {sum}", line.len())
}

fn bye(dialogue: Dialogue) -> Dialogue {
    dialogue.expect("> ").send("bye")
}

#[test]
#[ignore = "boots an emulator"]
fn each_partition_can_be_typed_to() {
    // Far longer than the FIFO of the port.
    let long: String = (0..2000u32).map(|n| char::from(b'!' + (n * 7 % 94) as u8)).collect();
    for clock in CLOCKS {
        let first = Dialogue::new().expect("> ").send("one").expect(&answer("one"));
        let first = first.expect("> ").send(&long).expect(&answer(&long));
        let first = first.expect("> ").send_raw(b"half\x03").expect("^C").expect("> ").send("").expect(&answer(""));
        let second = Dialogue::new().expect("> ").send("second").expect(&answer("second"));
        let second = second.expect("> ").send(&long).expect(&answer(&long));
        let left = talk(clock, bye(first), bye(second), &["partitions", "vcpus"]);
        let consoles = left.consoles();
        assert_eq!(left.outcome, RunOutcome::Success, "{consoles}");
        assert!(left.answers("partitions").iter().any(|line| line.contains("second")), "{consoles}");
        let (first, second) = (left.console("first"), left.console("second"));
        assert!(first.contains("> one") && !first.contains("second"), "{consoles}");
        assert!(second.contains("> second") && !second.contains("> one"), "{consoles}");
        left.assert_claims("first", 1);
        left.assert_claims("second", 1);
    }
}

#[test]
#[ignore = "boots an emulator"]
fn each_of_seven_partitions_has_its_own_console() {
    let names: Vec<String> = (1..=7).map(|number| format!("p{number}")).collect();
    let asked = |name: &str| format!("this is {name}");
    let dialogue = |name: &String| {
        let text = asked(name);
        named(name, bye(Dialogue::new().expect("> ").send(&text).expect(&answer(&text))))
    };
    let dialogues = names.iter().map(dialogue).collect();
    let left = run_in(&load("consoles.toml", &[]), Clock::Icount, 60, &Session { dialogues, ..Session::default() });
    let consoles = left.consoles();
    assert_eq!(left.outcome, RunOutcome::Success, "{consoles}");
    for name in &names {
        let expected = format!("> {}\n{}\n> bye\n", asked(name), answer(&asked(name)));
        assert!(left.console(name).replace('\r', "").contains(&expected), "{consoles}");
        assert_eq!(left.console(name).matches("this is").count(), 1, "{consoles}");
        left.assert_claims(name, 1);
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_dialogue_from_a_file_that_is_not_through_fails_the_run_by_its_line() {
    let dialogue =
        Dialogue::parse("# a comment\nexpect \"> \"\nsend bye\n\nexpect login:", Path::new("d.txt")).unwrap();
    let left = talk(Clock::Icount, dialogue, bye(Dialogue::new()), &[]);
    let words = "failed: the console of first did not print what the dialogue says (d.txt:5, step 3 of 3): expect login:; \
                 the run itself: success";
    assert_eq!((left.outcome.to_string().as_str(), left.outcome.exit_code()), (words, 1), "{}", left.consoles());
}

#[test]
#[ignore = "boots an emulator"]
fn a_console_that_is_not_there_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let session = Session { dialogues: vec![named("third", bye(Dialogue::new()))], ..Session::default() };
    let options = crate::system::options(Clock::Icount, 60, dir.path());
    let error = partita_host::run::run_system_in(&load("talk.toml", &[]), &options, &session).unwrap_err().to_string();
    assert_eq!(error, "no partition with a console is called \"third\", there are: hypervisor, first, second");
}

/// The pCPU of the guest that is typed to.
const TALKER: u16 = 4;
/// Runs the real-time guest and a talker beside a neighbour.
fn beside(neighbour: &str, clock: Clock) -> Left {
    let ms = if is_long() { 2000 } else { 100 };
    // Each waits until the one before is over: they pass time.
    let holds = [50, ms, 1].map(|ms| format!("hold {TALKER} {ms}"));
    let talk = Dialogue::new().expect("> ").send("is anybody there?").expect(&answer("is anybody there?"));
    let session = Session {
        input: ConsoleInput::Script(holds.into_iter().chain([ENOUGH.to_owned()]).collect()),
        dialogues: vec![named("talker", bye(talk))],
        ..Session::default()
    };
    let left = run_in(&load("flood.toml", &[("console=flood", neighbour)]), clock, 240, &session);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.console("hypervisor"));
    left.assert_claims("talker", 1);
    let is_to_talker = |event: &Event| matches!(event, Event::SmpCallServed { peer: TALKER, .. });
    let calls: Vec<u64> =
        left.events(0).into_iter().filter(|(_, event)| is_to_talker(event)).map(|(tsc, _)| tsc).collect();
    let [.., first, last] = calls[..] else { panic!("{calls:?}") };
    assert!(last - first > ms * 1_000_000 * 9 / 10, "the second hold lasts from {first} to {last}");
    assert_untouched(&left, first, last);
    left
}

/// How many whole lines the log of a flood has, whose lines are numbered; panics if one is missing or spoiled.
fn whole_lines(log: &str) -> usize {
    let start = log.find("flood 0\r\n").unwrap_or_else(|| panic!("no flood: {:?}", log.get(..200)));
    let flood = &log[start..];
    let whole = &flood[..flood.rfind('\n').map_or(0, |end| end + 1)];
    let lines = whole.lines().enumerate();
    lines.inspect(|(number, line)| assert_eq!(*line, format!("flood {number}"))).count()
}

fn a_flood_is_nobody_elses(clock: Clock) {
    let flooded = beside("console=flood", clock);
    let lines = whole_lines(&flooded.console("noisy"));
    let with = rounds(&flooded);
    println!("{lines} lines; {with:.3} rounds of the real-time guest in a million ticks");
    // Threads share one lock in the emulator, for which a flood waits with the others.
    let least = if clock == Clock::Icount { 10_000 } else { 100 };
    assert!(lines > least, "{lines}");
    if clock == Clock::Icount {
        // A neighbour that computes instead of printing leaves it as much of the emulator's time.
        let without = rounds(&beside("console=still", clock));
        println!("{without:.3} beside no flood");
        assert!(with > 0.95 * without, "{with} {without}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_flooded_console_is_complete_and_slows_nobody_by_instruction_count() {
    a_flood_is_nobody_elses(Clock::Icount);
}

#[test]
#[ignore = "boots an emulator"]
fn a_flooded_console_is_complete_and_slows_nobody_by_threads() {
    a_flood_is_nobody_elses(Clock::Host);
}
