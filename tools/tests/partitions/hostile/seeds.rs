//! A run of the same seed tries the same, one after the other, and is refused the same; of another seed, others.

use super::survivors::run_exactly;
use super::{Attack, events, lines, seed};
use partita_trace::Event;

/// What an attacker said, but for when it began, and what it was refused, in the order of the trace.
#[derive(Debug, PartialEq)]
struct Run {
    said: Vec<String>,
    refusals: Vec<Event>,
}

fn run(attack: &Attack<'_>) -> Run {
    let (left, _) = run_exactly(attack);
    // Its start waits for what the console is told, which comes when the host has time for it.
    let said = lines(&left).into_iter().filter(|line| !line.contains(": begins at ")).collect();
    let is_refusal = |event: &Event| matches!(event, Event::PolicyRefused { .. } | Event::IcrRefused { .. });
    let refusals = events(&left).map(|(_, event)| event).filter(is_refusal).collect();
    Run { said, refusals }
}

#[test]
#[ignore = "boots an emulator"]
fn a_seed_repeats_its_run() {
    for attack in [Attack::new("attack=hypercalls steps=3000"), Attack::pair("attack=icr count=2 steps=500")] {
        let first = run(&attack);
        assert!(first.refusals.len() > 100, "{}", first.refusals.len());
        assert!(first == run(&attack), "{:?} is not repeated by {} refusals", first.said, first.refusals.len());
        let other = run(&Attack { seed: seed() ^ 1, ..attack });
        assert_ne!(first.refusals, other.refusals);
    }
}
