//! A partition that is restarted a thousand times in a row, beside a real-time guest that must not notice it.

use crate::bystander::{ENOUGH, assert_untouched};
use crate::system::{Left, load, machine, run_with_commands};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_trace::Event;
use partita_trace::names::StopCause;

/// What a life of the pulse says if it finds everything fresh.
const FRESH: &str = "pulse: fresh\r\n";
const HOUSEKEEPING: u16 = 0;
const PULSE: u16 = 1;

fn times(left: &Left, pcpu: u16, is_it: impl Fn(&Event) -> bool) -> Vec<u64> {
    left.events(pcpu).into_iter().filter(|(_, event)| is_it(event)).map(|(tsc, _)| tsc).collect()
}

/// Takes the pulse's console for lives one after the other: how many told that they are fresh, if each said that or, as
/// its end came before, a part of it; panics if one said something else.
fn whole_lives(console: &str) -> usize {
    let mut rest = console;
    let mut whole = 0;
    while !rest.is_empty() {
        let common = rest.bytes().zip(FRESH.bytes()).take_while(|(a, b)| a == b).count();
        assert!(common > 0, "a life said {:?}", rest.lines().next());
        whole += usize::from(common == FRESH.len());
        rest = &rest[common..];
    }
    whole
}

/// Restarts the partition so often in a row, and then some times by commands of their own, which gives the lives more time.
fn a_guest_beside_restarts_notices_nothing(clock: Clock, in_a_row: usize, singly: usize) {
    let restarts = in_a_row + singly;
    let system = load("restart.toml", &[]);
    let command = format!("restart pulse {in_a_row}");
    let mut commands = vec!["hold 1 300", "hold 1 1", command.as_str()];
    commands.extend(std::iter::repeat_n("restart pulse", singly));
    commands.extend(["vcpus", "trace", "exits", ENOUGH]);
    let left = run_with_commands(&system, clock, 300, &commands);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    let answer = left.answers(&command).join("\n");
    assert!(answer.starts_with("partition pulse was restarted 1,000 times; each took "), "{answer}");
    println!("{answer}");
    for nth in 0..singly {
        let answer = left.answers_to("restart pulse", nth).join("\n");
        assert!(answer.starts_with("partition pulse was restarted; it took "), "{answer}");
    }

    let starts = times(&left, HOUSEKEEPING, |event| matches!(event, Event::PartitionStart { partition: 1, .. }));
    let stops = times(&left, HOUSEKEEPING, |event| {
        matches!(event, Event::PartitionStop { partition: 1, cause: StopCause::Housekeeping, .. })
    });
    let loads = times(
        &left,
        PULSE,
        |event| matches!(event, Event::PartitionLoaded { partition: 1, bytes, .. } if *bytes == 2 << 20),
    );
    // Where the trace leaves by the debug port, the end of the run stops what runs still.
    let at_end = usize::from(machine() != MachineKind::Qemu);
    let expected = (restarts + 1, restarts + at_end, restarts + 1);
    assert_eq!((starts.len(), stops.len(), loads.len()), expected, "{}", left.consoles());

    let (Some(first), Some(last)) = (stops.first().copied(), starts.last().copied()) else { panic!() };
    assert_untouched(&left, first, last);

    let console = left.console("pulse");
    let whole = whole_lives(&console);
    println!("{whole} of {} lives were long enough to tell", restarts + 1);
    match clock {
        Clock::Icount if machine() == MachineKind::Qemu => assert_eq!(whole, restarts + 1, "{console}"),
        // Bochs' serial ports are as slow as real ones: a life of a millisecond prints a word or two.
        Clock::Icount => assert!(whole > 0, "{console}"),
        // In a row a life has a millisecond, in which its thread may have to wait for the host.
        Clock::Host => assert!(whole > singly / 2, "{whole} {console}"),
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_thousand_restarts_are_not_noticed_by_instruction_count() {
    a_guest_beside_restarts_notices_nothing(Clock::Icount, 1000, 0);
}

#[test]
#[ignore = "boots an emulator"]
fn a_thousand_restarts_are_not_noticed_by_threads() {
    a_guest_beside_restarts_notices_nothing(Clock::Host, 1000, 30);
}
