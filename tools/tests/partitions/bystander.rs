//! The real-time guest that must not notice what becomes of another partition (`rt-partitions/guest-tests/src/quiet.rs`): it
//! is partition 0, on pCPUs 2 and 3.

use crate::system::Left;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;

/// Its pCPUs.
pub(crate) const PCPUS: [u16; 2] = [2, 3];
/// The console's command that ends it.
pub(crate) const ENOUGH: &str = "wrmsr 2 0xc0000103 7";
/// What it prints behind its first mark.
pub(crate) const BEGUN: &str = "quiet: begun";
const CLAIMS: usize = 9;
/// Its marks, around the part in which it does not leave the guest.
const BEGIN_MARK: u32 = 300;
const END_MARK: u32 = 301;
/// How late the latest tick of each CPU's timer was, in ticks of the time-stamp counter.
const LATENESS_MARK: u32 = 302;

/// A mark of its: when, and the values of both CPUs.
fn marked(left: &Left, wanted: u32) -> (u64, [u64; 2]) {
    let is_quiet = |owner: &Owner| matches!(owner, Owner::Partition { number: 0, .. });
    let regions = left.trace.regions.iter().filter(|region| is_quiet(&region.owner));
    let frames = regions.flat_map(|region| region.dump.rings.iter()).flat_map(|ring| ring.frames());
    let mut times = frames.filter_map(|frame| match frame.body {
        Body::Event(Event::Mark { id, first, second }) if id == wanted => Some((frame.tsc, [first, second])),
        _ => None,
    });
    times.next().unwrap_or_else(|| panic!("no mark {wanted}\n{}", left.consoles()))
}

/// How many rounds both its CPUs made in its quiet part, in a million ticks.
pub(crate) fn rounds(left: &Left) -> f64 {
    let [(from, before), (to, after)] = [BEGIN_MARK, END_MARK].map(|mark| marked(left, mark));
    (after.iter().sum::<u64>() - before.iter().sum::<u64>()) as f64 / (to - from) as f64 * 1e6
}

/// Asserts that its claims hold, and that from `first` to `last` it was measuring and nothing came to its pCPUs: no exit, no
/// record, no call.
pub(crate) fn assert_untouched(left: &Left, first: u64, last: u64) {
    left.assert_claims("quiet", CLAIMS);
    let ((begin, _), (end, _)) = (marked(left, BEGIN_MARK), marked(left, END_MARK));
    println!("the real-time guest's timers: latest by {:?} ticks", marked(left, LATENESS_MARK).1);
    assert!(
        begin < first && first <= last && last < end,
        "the guest is quiet from {begin} to {end}, which is not all from {first} to {last}\n{}",
        left.consoles()
    );
    for pcpu in PCPUS {
        let events = left.events(pcpu);
        let between: Vec<_> = events.iter().filter(|(tsc, _)| (first..=last).contains(tsc)).collect();
        assert!(between.is_empty(), "pCPU {pcpu}: {between:?}");
        // The histograms count every exit, and each is in the trace: so none came in between either. At its end its pCPUs kick
        // each other down, and the run may be over amid that.
        let is_sibling = pcpu != PCPUS[0];
        for &reason in ExitReason::ALL {
            let is_it = |event: &Event| matches!(event, Event::Exit { reason: found, .. } if *found == reason);
            let traced = events.iter().filter(|(_, event)| is_it(event)).count() as u64;
            let untraced = left.count(pcpu, HistogramId::Exit(reason)).abs_diff(traced);
            let most = u64::from(is_sibling && reason == ExitReason::Kick);
            assert!(untraced <= most, "pCPU {pcpu}: {reason:?}: {untraced}");
        }
    }
    // Between its marks the only call was the one that ends it, to its first pCPU. Before and behind, its pCPUs kick each
    // other, when one starts and when it ends.
    let is_kick = |event: &Event| matches!(event, Event::Exit { reason: ExitReason::Kick, .. });
    let kicks = PCPUS.map(|pcpu| {
        let events = left.events(pcpu);
        events.iter().filter(|(tsc, event)| (begin..end).contains(tsc) && is_kick(event)).count()
    });
    assert_eq!(kicks, [1, 0], "{}", left.consoles());
}
