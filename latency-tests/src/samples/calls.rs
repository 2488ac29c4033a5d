//! What the hypervisor measured of its SMP calls, on the caller and on the targets.

use super::events::Events;
use partita_rows::Row;
use partita_trace::event::Event;
use partita_trace::names::KickKind;

/// A sample and its time.
type Timed = (u64, u64);

/// An SMP call that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// When the target left its guest.
    pub(super) exit: u64,
    kind: KickKind,
    /// Its legs, from the posting to the acknowledgement.
    legs: [u32; 4],
}

impl Served {
    /// When the caller posted it.
    fn posted(&self) -> u64 {
        let [post_to_kick, kick_to_exit, ..] = self.legs.map(u64::from);
        self.exit.saturating_sub(kick_to_exit).saturating_sub(post_to_kick)
    }
}

/// The calls that a pCPU served, whoever traced them, in the order of their exits.
pub(super) fn served_by(events: &Events, pcpu: u16) -> Vec<Served> {
    let is_target = |ring, event: &Event| event.caller_and_target(ring).is_some_and(|(_, target)| target == pcpu);
    let served = events.all.iter().filter_map(|(ring, tsc, event)| match *event {
        Event::SmpCallServed { kind, post_to_kick, kick_to_exit, exit_to_run, run_to_ack, .. }
            if is_target(*ring, event) =>
        {
            Some(Served { exit: *tsc, kind, legs: [post_to_kick, kick_to_exit, exit_to_run, run_to_ack] })
        }
        _ => None,
    });
    let mut served: Vec<Served> = served.collect();
    served.sort_by_key(|served| served.exit);
    served
}

/// The samples of a row: the last ones, after the payload has come up. `targets` are the pCPUs that the row is about.
pub(super) fn of_row(events: &Events, targets: &[u16], row: Row, wanted: u32) -> Result<Vec<u64>, String> {
    let leg = |number| targets.iter().flat_map(move |target| leg_of(events, *target, number)).collect();
    let all: Vec<Timed> = match row {
        Row::SmpCallPostKick => leg(0),
        Row::SmpCallKickExit | Row::KickNmiToExit => leg(1),
        Row::SmpCallExitRun => leg(2),
        Row::SmpCallRunAck => leg(3),
        _ => calls_to(events, targets),
    };
    let missing = || events.missing(row.name(), all.len(), wanted);
    let from = all.len().checked_sub(wanted as usize).ok_or_else(missing)?;
    let samples = all.get(from..).unwrap_or_default();
    let since = samples.first().map_or(0, |sample| sample.0);
    if let Some((pcpu, tsc, event)) = targets.iter().find_map(|target| events.unrest(*target, since, u64::MAX)) {
        return Err(format!(
            "its vCPU on pCPU {pcpu} was not at rest while {} was measured: at {tsc} it had an exit that was no kick, \
             {event:?}",
            row.name()
        ));
    }
    Ok(samples.iter().map(|sample| sample.1).collect())
}

/// One leg of the calls that came to the target by NMI.
fn leg_of(events: &Events, target: u16, number: usize) -> impl Iterator<Item = Timed> {
    let by_nmi = served_by(events, target).into_iter().filter(|served| served.kind == KickKind::Nmi);
    by_nmi.filter_map(move |served| Some((served.exit, u64::from(*served.legs.get(number)?))))
}

/// The SMP calls that all `targets`, and no others, served and answered in time: when each was made, and its round trip.
fn calls_to(events: &Events, targets: &[u16]) -> Vec<Timed> {
    // A call does not say whom it went to; that of each target says when it was posted.
    let posts_to = |target: &u16| {
        let mut posts: Vec<u64> = served_by(events, *target).iter().map(Served::posted).collect();
        posts.sort_unstable();
        posts
    };
    let posts: Vec<Vec<u64>> = targets.iter().map(posts_to).collect();
    let was_served = |from: u64, ticks: u64| {
        posts.iter().all(|posts| {
            let next = posts.partition_point(|posted| *posted < from);
            posts.get(next).is_some_and(|posted| *posted <= from.saturating_add(ticks))
        })
    };
    let calls = events.all.iter().filter_map(|(_, tsc, event)| match *event {
        Event::SmpCall { targets: count, late: 0, ticks, .. }
            if usize::from(count) == targets.len() && was_served(*tsc, ticks) =>
        {
            Some((*tsc, ticks))
        }
        _ => None,
    });
    calls.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::events::{Entry, events};
    use super::*;
    use partita_trace::names::ExitReason;

    /// How `pcpu` serves a call that pCPU 0 posted at `posted`, waits for and traces; it keeps `pcpu` out of its guest for
    /// 50 ticks.
    pub(crate) fn serve(pcpu: u16, posted: u64, legs: [u32; 4]) -> [Entry; 2] {
        let [post_to_kick, kick_to_exit, exit_to_run, run_to_ack] = legs;
        let exit = posted + u64::from(post_to_kick) + u64::from(kick_to_exit);
        let (peer, kind, by_caller) = (pcpu, KickKind::Nmi, true);
        let served =
            Event::SmpCallServed { peer, kind, by_caller, post_to_kick, kick_to_exit, exit_to_run, run_to_ack };
        [(0, exit, served), (pcpu, exit, Event::Exit { reason: ExitReason::Kick, detail16: 0, ticks: 50, detail: 0 })]
    }

    fn call(start: u64, targets: u16, ticks: u64) -> Entry {
        (0, start, Event::SmpCall { targets, late: 0, ticks, first_late: u64::MAX })
    }

    /// A round: pCPU 0 calls pCPU 1, then pCPU 2.
    fn round(start: u64, ticks: u64) -> Vec<Entry> {
        [(1, start, ticks), (2, start + 10_000, ticks + 500)]
            .into_iter()
            .flat_map(|(pcpu, start, ticks)| {
                let legs = [10, ticks as u32 / 10, 20, 5 + ticks as u32 % 100];
                serve(pcpu, start + 50, legs).into_iter().chain([call(start, 1, ticks)])
            })
            .collect()
    }

    #[test]
    fn only_the_targets_last_kicks_and_calls_count() {
        let all = [round(0, 9000), round(100_000, 400), round(200_000, 410)].concat();
        let of = |target, row| of_row(&events(all.clone()), &[target], row, 2);
        assert_eq!(of(1, Row::SmpCallRoundtrip), Ok(vec![400, 410]));
        assert_eq!(of(1, Row::KickNmiToExit), Ok(vec![40, 41]));
        assert_eq!(of(1, Row::SmpCallPostKick), Ok(vec![10, 10]));
        assert_eq!(of(1, Row::SmpCallKickExit), Ok(vec![40, 41]));
        assert_eq!(of(1, Row::SmpCallExitRun), Ok(vec![20, 20]));
        assert_eq!(of(1, Row::SmpCallRunAck), Ok(vec![5, 15]));
        assert_eq!(of(2, Row::SmpCallRoundtrip), Ok(vec![900, 910]));
        assert!(of(3, Row::KickNmiToExit).unwrap_err().contains("0 of 2"));
        assert!(
            of(1, Row::SmpCallBroadcast3).is_ok_and(|calls| calls.len() == 2),
            "the row does not choose the targets"
        );
    }

    #[test]
    fn missing_calls_are_counted_and_explained() {
        for row in [Row::KickNmiToExit, Row::SmpCallRoundtrip, Row::SmpCallRunAck, Row::SmpCallBroadcast3] {
            let error = of_row(&events(Vec::new()), &[1], row, 2).unwrap_err();
            let expected = format!("0 of 2 samples of {} are there; no frame was overwritten", row.name());
            assert!(error.starts_with(&expected) && error.contains("never taken"), "{error}");
        }
    }

    #[test]
    fn a_kick_by_vector_is_no_sample_of_a_leg() {
        let mut all = [round(0, 400), round(100_000, 400)].concat();
        for (.., event) in all.iter_mut().take(1) {
            if let Event::SmpCallServed { kind, .. } = event {
                *kind = KickKind::Vector;
            }
        }
        assert_eq!(of_row(&events(all.clone()), &[1], Row::KickNmiToExit, 1), Ok(vec![40]));
        assert!(of_row(&events(all), &[1], Row::KickNmiToExit, 2).unwrap_err().contains("1 of 2"));
    }

    #[test]
    fn calls_count_for_their_target_whoever_traced_them() {
        let mut all = [round(0, 400), round(100_000, 410), round(200_000, 420)].concat();
        // The first is one that nobody waited for, the second one of pCPU 2's. So the rings are not in the order of time.
        let mut of_target_1 = all.iter_mut().filter(|entry| entry.2.caller_and_target(0) == Some((0, 1)));
        for (writer, pcpu, caller_wrote) in [(1, 0, false), (2, 1, true)] {
            let (ring, _, event) = of_target_1.next().unwrap();
            *ring = writer;
            if let Event::SmpCallServed { peer, by_caller, .. } = event {
                (*peer, *by_caller) = (pcpu, caller_wrote);
            }
        }
        all.sort_by_key(|(ring, ..)| *ring);
        assert_eq!(of_row(&events(all.clone()), &[1], Row::KickNmiToExit, 3), Ok(vec![40, 41, 42]));
        assert_eq!(of_row(&events(all.clone()), &[2], Row::KickNmiToExit, 3), Ok(vec![90, 91, 92]));
        assert!(of_row(&events(all), &[0], Row::KickNmiToExit, 1).is_err(), "a caller is no target");
    }

    #[test]
    fn a_broadcast_is_one_call_that_every_target_served() {
        let broadcast = |start: u64, ticks, served: &[u16]| {
            let served = served.iter().flat_map(|&pcpu| serve(pcpu, start + 9 * u64::from(pcpu), [4, 60, 20, 9]));
            served.chain([call(start, 3, ticks)]).collect::<Vec<Entry>>()
        };
        let all = [broadcast(0, 900, &[1, 2, 3]), broadcast(10_000, 901, &[1, 2, 3]), round(20_000, 400)].concat();
        let of = |all: &Vec<Entry>, wanted| of_row(&events(all.clone()), &[1, 2, 3], Row::SmpCallBroadcast3, wanted);
        assert_eq!(of(&all, 2), Ok(vec![900, 901]));
        // One that a target did not serve does not count.
        let partly = [all, broadcast(50_000, 902, &[1, 3])].concat();
        assert!(of(&partly, 3).unwrap_err().contains("2 of 3 samples of smp_call.broadcast_3"));
        assert_eq!(of(&partly, 2), Ok(vec![900, 901]));
    }

    #[test]
    fn a_late_call_is_no_sample() {
        let mut all = [round(0, 400), round(100_000, 400)].concat();
        for (.., event) in &mut all {
            if let Event::SmpCall { late, .. } = event {
                *late = 1;
            }
        }
        assert!(of_row(&events(all), &[1], Row::SmpCallRoundtrip, 1).is_err());
    }

    #[test]
    fn a_target_that_is_busy_spoils_the_samples() {
        let busy = |tsc| (1, tsc, Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks: 80, detail: 0 });
        let with = |extra| events([round(0, 400), round(100_000, 400), vec![extra]].concat());
        assert_eq!(of_row(&with(busy(50_000)), &[1], Row::KickNmiToExit, 1), Ok(vec![40]));
        let error = of_row(&with(busy(150_000)), &[1], Row::KickNmiToExit, 1).unwrap_err();
        assert!(error.contains("its vCPU on pCPU 1 was not at rest while kick.nmi_to_exit"), "{error}");
        // Of several targets any one counts.
        assert!(of_row(&with(busy(150_000)), &[2, 1], Row::SmpCallRunAck, 1).is_err());
    }
}
