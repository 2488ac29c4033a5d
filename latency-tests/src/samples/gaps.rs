//! What a guest that polls the time saw of the SMP calls to its pCPU: exactly one gap for each, and no other.

use super::calls::served_by;
use super::events::{Entry, Events};
use super::payload;
use crate::systems::SPARE_GAPS;
use partita_rows::Row;
use partita_trace::event::Event;
use partita_trace::names::ExitReason;

/// A gap that the payload saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    /// How long it was, in ticks.
    ticks: u64,
    /// What of it came after the hypervisor's first stamp behind #VMEXIT, in ticks.
    after_exit: u64,
}

/// The samples of a row of gaps: `wanted` of them.
pub(super) fn of_row(
    payload: &Events,
    hypervisor: &Events,
    target: u16,
    row: Row,
    wanted: u32,
) -> Result<Vec<u64>, String> {
    let gaps = all(payload, hypervisor, target, wanted)?;
    let sample = |gap: Gap| if row == Row::SmpCallStolen { gap.after_exit } else { gap.ticks };
    Ok(gaps.into_iter().map(sample).collect())
}

/// The same where more than the hypervisor takes a pCPU from its guest, as the host's interrupts do under KVM: the gaps in which the
/// pCPU left its guest by a kick, however many. The others are not Partita's.
pub(super) fn of_host_row(
    payload: &Events,
    hypervisor: &Events,
    target: u16,
    row: Row,
    wanted: u32,
) -> Result<Vec<u64>, String> {
    let gaps = payload::with_times(payload, Row::SmpCallGapSeen, wanted.saturating_add(SPARE_GAPS))?;
    no_unrest(&gaps, hypervisor, target)?;
    let kicks: Vec<u64> = hypervisor.of_ring(target).filter_map(kick).collect();
    let seen: Vec<u64> = gaps
        .iter()
        .filter_map(|gap| gap_with(*gap, &kicks))
        .map(|gap| if row == Row::SmpCallStolen { gap.after_exit } else { gap.ticks })
        .collect();
    if seen.is_empty() { Err(hypervisor.missing(row.name(), 0, wanted)) } else { Ok(seen) }
}

/// The gaps that the payload saw: the first `wanted` of them, but for one that was cut. Each must hold exactly one call that
/// pCPU `target` served, and each call in their time must lie in one. For each gap the pCPU must have left its guest, and for
/// nothing but kicks.
fn all(payload: &Events, hypervisor: &Events, target: u16, wanted: u32) -> Result<Vec<Gap>, String> {
    let mut gaps = payload::with_times(payload, Row::SmpCallGapSeen, wanted.saturating_add(SPARE_GAPS))?;
    let mut exits: Vec<u64> = served_by(hypervisor, target).iter().map(|served| served.exit).collect();
    if let Some((gap, call)) = cut_in_two(&gaps, &exits) {
        gaps.remove(gap);
        exits.remove(call);
    }
    gaps.truncate(wanted as usize);
    check(&gaps, &exits, target).map_err(|problem| match hypervisor.overwritten {
        0 => problem,
        lost => format!("{problem}; {lost} frames were overwritten: a larger ring (trace.ring) would help"),
    })?;
    no_unrest(&gaps, hypervisor, target)?;
    // What a call's own record says is when it was noticed. Its pCPU may have been out of its guest by then.
    let kicks: Vec<u64> = hypervisor.of_ring(target).filter_map(kick).collect();
    let gap = |gap: (u64, u64)| {
        gap_with(gap, &kicks).ok_or_else(|| {
            let (from, to, lost) = (gap.0.saturating_sub(gap.1), gap.0, hypervisor.overwritten);
            format!(
                "the gap from {from} to {to} holds no exit by a kick of pCPU {target}; {lost} frames were overwritten"
            )
        })
    };
    gaps.into_iter().map(gap).collect()
}

/// A gap with the first of these kicks that lies in it, if one does.
fn gap_with((to, ticks): (u64, u64), kicks: &[u64]) -> Option<Gap> {
    let from = to.saturating_sub(ticks);
    let exit = kicks.get(kicks.partition_point(|exit| *exit <= from)).filter(|exit| **exit <= to)?;
    Some(Gap { ticks, after_exit: to - exit })
}

/// Looks whether the guest left its pCPU for nothing but kicks, from the first gap to the last.
fn no_unrest(gaps: &[(u64, u64)], hypervisor: &Events, target: u16) -> Result<(), String> {
    if let (Some((since, _)), Some((until, _))) = (gaps.first(), gaps.last())
        && let Some((_, tsc, event)) = hypervisor.unrest(target, *since, *until)
    {
        return Err(format!("the polling guest had an exit at {tsc} that was no kick, {event:?}"));
    }
    Ok(())
}

/// When this exit was, if it was by a kick.
fn kick((_, tsc, event): &Entry) -> Option<u64> {
    matches!(event, Event::Exit { reason: ExitReason::Kick, .. }).then_some(*tsc)
}

/// The places of the gap and of the call, if there are any, that belong together although the gap does not hold the call:
/// the emulator passed the caller's turn on before its kick. So the guest got a look at the time, and a gap without a call
/// before it; and the call came behind that, within a gap's time, while the guest waited for all to be quiet again.
fn cut_in_two(gaps: &[(u64, u64)], exits: &[u64]) -> Option<(usize, usize)> {
    let longest = gaps.iter().map(|(_, ticks)| *ticks).max()?;
    let begin = |(to, ticks): &(u64, u64)| to.saturating_sub(*ticks);
    let next_call = |tsc: u64| exits.partition_point(|exit| *exit <= tsc);
    gaps.iter().enumerate().find_map(|(number, gap)| {
        let call = next_call(gap.0);
        let exit = *exits.get(call)?;
        let is_empty = next_call(begin(gap)) == call;
        let is_unseen = gaps.get(number + 1).is_none_or(|next| exit <= begin(next));
        (is_empty && is_unseen && exit - gap.0 <= longest).then_some((number, call))
    })
}

/// Compares gaps (when each was over, and how long it was) with the calls that pCPU `target` left its guest for at
/// `exits`, ascending.
fn check(gaps: &[(u64, u64)], exits: &[u64], target: u16) -> Result<(), String> {
    let begin = |(to, ticks): &(u64, u64)| to.saturating_sub(*ticks);
    let (Some(since), Some(until)) = (gaps.first().map(begin), gaps.last().map(|(to, _)| *to)) else {
        return Ok(());
    };
    // A call of the gap's first tick came before the look at the time that it begins with.
    let between = |from: u64, to: u64| {
        let place = |tsc| exits.partition_point(|exit| *exit <= tsc);
        exits.get(place(from)..place(to)).unwrap_or_default()
    };
    let calls = between(since, until).len();
    if calls != gaps.len() {
        return Err(format!(
            "the guest on pCPU {target} saw {} gaps from {since} to {until}, but its pCPU served {calls} SMP calls in \
             that time{}",
            gaps.len(),
            first_misfit(gaps, exits, since, until).map_or(String::new(), |misfit| format!(": {misfit}")),
        ));
    }
    match gaps.iter().find(|gap| between(begin(gap), gap.0).len() != 1) {
        Some(gap) => Err(format!(
            "the guest on pCPU {target} saw a gap from {} to {}, but its pCPU served {} SMP calls in it, not one",
            begin(gap),
            gap.0,
            between(begin(gap), gap.0).len()
        )),
        None => Ok(()),
    }
}

/// The first gap without a call, or call without a gap.
fn first_misfit(gaps: &[(u64, u64)], exits: &[u64], since: u64, until: u64) -> Option<String> {
    let holds = |(to, ticks): &(u64, u64), exit: u64| to.saturating_sub(*ticks) < exit && exit <= *to;
    let unseen = exits.iter().filter(|exit| since < **exit && **exit <= until);
    let unseen = unseen.copied().find(|exit| !gaps.iter().any(|gap| holds(gap, *exit)));
    let unexplained = gaps.iter().find(|gap| !exits.iter().any(|exit| holds(gap, *exit)));
    match (unseen, unexplained) {
        (Some(exit), _) => Some(format!("the call that took it out of its guest at {exit} made no gap")),
        (None, Some((to, ticks))) => Some(format!("the gap of {ticks} ticks until {to} holds no call")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::tests::serve;
    use super::super::events::events;
    use super::*;

    /// Calls to pCPU 1 that take it out of its guest at 1,000, 2,000, 3,000 and 4,000.
    fn calls() -> Vec<Entry> {
        (1..=4).flat_map(|round| serve(1, round * 1000 - 50, [10, 40, 20, 5])).collect()
    }

    fn gap(index: u64, to: u64, ticks: u64) -> Entry {
        (0, to, Event::Sample { row: Row::SmpCallGapSeen.id(), ticks, index })
    }

    /// These gaps, and the spare one behind them all.
    fn with_spare(gaps: &[Entry]) -> Events {
        events([gaps, &[gap(gaps.len() as u64, 1_000_000, 77)]].concat())
    }

    fn of(gaps: &[Entry], calls: Vec<Entry>) -> Result<Vec<(u64, u64)>, String> {
        let (payload, hypervisor, wanted) = (with_spare(gaps), events(calls), gaps.len() as u32);
        let of = |row| of_row(&payload, &hypervisor, 1, row, wanted);
        let (seen, stolen) = (of(Row::SmpCallGapSeen)?, of(Row::SmpCallStolen)?);
        assert_eq!((seen.len(), stolen.len()), (gaps.len(), gaps.len()));
        Ok(seen.into_iter().zip(stolen).collect())
    }

    #[test]
    fn each_call_is_one_gap() {
        let gaps = [gap(0, 2100, 150), gap(1, 3110, 160)];
        // Those before the first gap came before the guest polled, those behind the last when it was done.
        assert_eq!(of(&gaps, calls()), Ok(vec![(150, 100), (160, 110)]));
        assert_eq!(of(&[], calls()), Ok(vec![]));
        let lost = all(&events(gaps.to_vec()), &events(calls()), 1, 2).unwrap_err();
        assert!(lost.starts_with("2 of 3 samples of smp_call.gap_seen are there"), "{lost}");
    }

    #[test]
    fn what_is_stolen_begins_with_the_exit() {
        // The call came while its pCPU was out of its guest already.
        let early =
            |(pcpu, tsc, event): Entry| (pcpu, if kick(&(pcpu, tsc, event)).is_some() { tsc - 9 } else { tsc }, event);
        let gaps = [gap(0, 2100, 150), gap(1, 3110, 160)];
        assert_eq!(of(&gaps, calls().into_iter().map(early).collect()), Ok(vec![(150, 109), (160, 119)]));
        let without = calls().into_iter().filter(|entry| kick(entry) != Some(3000)).collect();
        let error = of(&gaps, without).unwrap_err();
        assert_eq!(error, "the gap from 2950 to 3110 holds no exit by a kick of pCPU 1; 0 frames were overwritten");
    }

    #[test]
    fn a_call_that_the_guest_did_not_see_is_named() {
        let error = of(&[gap(0, 1100, 150), gap(1, 3100, 150)], calls()).unwrap_err();
        let expected = "the guest on pCPU 1 saw 2 gaps from 950 to 3100, but its pCPU served 3 SMP calls in that time: \
                        the call that took it out of its guest at 2000 made no gap";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_gap_without_a_call_is_named() {
        let error = of(&[gap(0, 1100, 150), gap(1, 1500, 77), gap(2, 2100, 150)], calls()).unwrap_err();
        let expected = "the guest on pCPU 1 saw 3 gaps from 950 to 2100, but its pCPU served 2 SMP calls in that time: \
                        the gap of 77 ticks until 1500 holds no call";
        assert_eq!(error, expected);
        // Another pCPU's calls explain nothing.
        let others = (1..=2).flat_map(|round| serve(2, round * 1000 - 50, [10, 40, 20, 5])).collect();
        assert!(of(&[gap(0, 1100, 150)], others).unwrap_err().contains("served 0 SMP calls"));
    }

    #[test]
    fn one_call_may_be_cut_in_two() {
        // The guest looked while the caller was about to make the call of 2,000.
        let gaps = [gap(0, 1100, 150), gap(1, 1950, 77), gap(2, 3100, 150), gap(3, 4100, 160)];
        let of = |gaps: &[Entry]| {
            let (payload, hypervisor) = (events(gaps.to_vec()), events(calls()));
            of_row(&payload, &hypervisor, 1, Row::SmpCallGapSeen, gaps.len() as u32 - 1)
        };
        assert_eq!(of(&gaps), Ok(vec![150, 150, 160]));
        assert_eq!(of(&gaps[..2]), Ok(vec![150]), "the spare one may be the one");
        // Too early, and twice.
        let early = [gap(0, 1100, 150), gap(1, 1839, 77), gap(2, 3100, 150), gap(3, 4100, 160)];
        let error = of(&early).unwrap_err();
        assert!(error.contains("saw a gap from 1762 to 1839, but its pCPU served 0 SMP calls in it"), "{error}");
        let twice = [gap(0, 1100, 150), gap(1, 1950, 77), gap(2, 2950, 77), gap(3, 4100, 160), gap(4, 5100, 160)];
        assert!(of(&twice).unwrap_err().contains("the call that took it out of its guest at 3000 made no gap"));
    }

    #[test]
    fn gaps_that_the_host_makes_are_not_partitas() {
        // A gap without a call; one with two, as the host was there meanwhile; and a call that made none.
        let gaps = with_spare(&[gap(0, 1100, 150), gap(1, 1500, 77), gap(2, 3100, 1200)]);
        let of = |row, calls| of_host_row(&gaps, &events(calls), 1, row, 3);
        assert_eq!(of(Row::SmpCallGapSeen, calls()), Ok(vec![150, 1200]));
        assert_eq!(of(Row::SmpCallStolen, calls()), Ok(vec![100, 1100]));
        assert!(
            of_row(&gaps, &events(calls()), 1, Row::SmpCallGapSeen, 3).is_err(),
            "which is an error in an emulator"
        );
        let none = of(Row::SmpCallGapSeen, Vec::new()).unwrap_err();
        assert!(none.starts_with("0 of 3 samples of smp_call.gap_seen are there"), "{none}");
        // What the hypervisor does is an error still.
        let cpuid = (1, 1500, Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks: 80, detail: 0 });
        let error = of(Row::SmpCallGapSeen, [calls(), vec![cpuid]].concat()).unwrap_err();
        assert!(error.starts_with("the polling guest had an exit at 1500 that was no kick"), "{error}");
    }

    #[test]
    fn equal_numbers_are_not_enough() {
        let error = of(&[gap(0, 2100, 1150), gap(1, 2500, 80), gap(2, 3100, 150)], calls()).unwrap_err();
        let expected = "the guest on pCPU 1 saw a gap from 950 to 2100, but its pCPU served 2 SMP calls in it, not one";
        assert_eq!(error, expected);
    }

    #[test]
    fn overwritten_frames_and_other_exits_are_named() {
        let gaps = with_spare(&[gap(0, 1100, 150), gap(1, 2100, 150)]);
        let lost = Events { overwritten: 9, ..events(calls().split_off(2)) };
        assert!(
            all(&gaps, &lost, 1, 2)
                .unwrap_err()
                .ends_with("9 frames were overwritten: a larger ring (trace.ring) would help")
        );
        let cpuid = (1, 1500, Event::Exit { reason: ExitReason::Cpuid, detail16: 0, ticks: 80, detail: 0 });
        let error = all(&gaps, &events([calls(), vec![cpuid]].concat()), 1, 2).unwrap_err();
        assert!(error.starts_with("the polling guest had an exit at 1500 that was no kick"), "{error}");
    }
}
