//! Whether a neighbour did what it was to do while the timer was measured beside it.

use super::events::Events;
use super::quiet::Span;
use partita_rows::Group;
use partita_trace::event::Event;

/// The neighbour's number.
const NEIGHBOUR: u16 = 1;

/// Checks that the neighbour of a group had been started, and disturbed at least a little. `pcpu` is that of the guest that
/// measured.
pub(super) fn check(payload: &Events, hypervisor: &Events, pcpu: u16, group: Group) -> Result<(), String> {
    let span = Span::of(payload)?;
    let is_start = |event: &Event| matches!(event, Event::PartitionStart { partition: NEIGHBOUR, .. });
    let starts: Vec<u64> =
        hypervisor.all.iter().filter(|(.., event)| is_start(event)).map(|(_, time, _)| *time).collect();
    if !starts.iter().any(|start| *start < span.begin) {
        return Err(format!("its neighbour was not started before {}, when the measuring began", span.begin));
    }
    let during = |time: &u64| (span.begin..=span.end).contains(time);
    let lives = starts.iter().filter(|start| during(start)).count();
    // What was overwritten was there, too.
    let is_neighbours = |ring: u16| ring != pcpu && ring != 0;
    let kept = hypervisor
        .all
        .iter()
        .filter(|(ring, time, event)| is_neighbours(*ring) && during(time) && matches!(event, Event::Exit { .. }));
    let exits = kept.count() as u64
        + hypervisor.lost.iter().filter(|lost| is_neighbours(lost.0)).map(|lost| lost.1).sum::<u64>();
    let (least_exits, least_lives) = match group {
        Group::BesideExits | Group::BesideHostile => (100, 0),
        Group::BesideNoise | Group::BesideResets => (10, 0),
        // Its port is its own: only the rounds that leave its guest for other things are seen.
        Group::BesideConsole => (1, 0),
        Group::BesideReboots => (2, 1),
        _ => (0, 0),
    };
    if exits < least_exits || lives < least_lives {
        return Err(format!(
            "its neighbour did not disturb: {exits} exits and {lives} starts while {} was measured, not {least_exits} and \
             {least_lives}",
            group.name()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::events::events;
    use super::*;
    use partita_rows::distribution::{BEGIN_MARK, END_MARK};
    use partita_trace::names::ExitReason;

    #[test]
    fn a_neighbour_that_does_nothing_is_named() {
        let mark = |id, time| (0, time, Event::Mark { id, first: 0, second: 0 });
        let payload = events(vec![mark(BEGIN_MARK, 1000), mark(END_MARK, 9000)]);
        let start = |time| (0, time, Event::PartitionStart { partition: 1, memory: 0, hpa: 0 });
        let exit = |time| (3, time, Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks: 9, detail: 0 });
        let check = |all, group| check(&payload, &events(all), 2, group);
        assert_eq!(check(vec![start(900)], Group::BesideSpin), Ok(()));
        assert!(check(vec![start(1001)], Group::BesideSpin).unwrap_err().contains("not started before 1000"));
        let exits: Vec<_> = (0..10).map(|number| exit(2000 + number)).chain([start(900)]).collect();
        assert_eq!(check(exits.clone(), Group::BesideNoise), Ok(()));
        let error = check(exits[1..].to_vec(), Group::BesideNoise).unwrap_err();
        assert!(error.contains("9 exits and 0 starts while beside_noise was measured, not 10 and 0"), "{error}");
        assert!(check(exits.clone(), Group::BesideReboots).is_err());
        assert_eq!(check([exits, vec![start(5000)]].concat(), Group::BesideReboots), Ok(()));
    }
}
