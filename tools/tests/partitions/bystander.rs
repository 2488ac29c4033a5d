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
const CLAIMS: usize = 9;
/// Its marks, around the part in which it does not leave the guest.
const BEGIN_MARK: u32 = 300;
const END_MARK: u32 = 301;

/// When it made a mark.
fn marked(left: &Left, wanted: u32) -> u64 {
    let is_quiet = |owner: &Owner| matches!(owner, Owner::Partition { number: 0, .. });
    let regions = left.trace.regions.iter().filter(|region| is_quiet(&region.owner));
    let frames = regions.flat_map(|region| region.dump.rings.iter()).flat_map(|ring| ring.frames());
    let mut times = frames.filter_map(|frame| match frame.body {
        Body::Event(Event::Mark { id, .. }) if id == wanted => Some(frame.tsc),
        _ => None,
    });
    times.next().unwrap_or_else(|| panic!("no mark {wanted}\n{}", left.consoles()))
}

/// Asserts that its claims hold, and that from `first` to `last` it was measuring and nothing came to its pCPUs: no exit, no
/// record, no call.
pub(crate) fn assert_untouched(left: &Left, first: u64, last: u64) {
    left.assert_claims("quiet", CLAIMS);
    let (begin, end) = (marked(left, BEGIN_MARK), marked(left, END_MARK));
    assert!(
        begin < first && first <= last && last < end,
        "the guest is quiet from {begin} to {end}, which is not all from {first} to {last}\n{}",
        left.consoles()
    );
    for pcpu in PCPUS {
        let events = left.events(pcpu);
        let between: Vec<_> = events.iter().filter(|(tsc, _)| (first..=last).contains(tsc)).collect();
        assert!(between.is_empty(), "pCPU {pcpu}: {between:?}");
        // The histograms count every exit, and each is in the trace: so none came in between either. The guest's end kicks
        // its other pCPU, and the run may be over amid that.
        for &reason in ExitReason::ALL {
            let is_it = |event: &Event| matches!(event, Event::Exit { reason: found, .. } if *found == reason);
            let traced = events.iter().filter(|(_, event)| is_it(event)).count() as u64;
            let untraced = left.count(pcpu, HistogramId::Exit(reason)).abs_diff(traced);
            assert!(untraced <= u64::from(reason == ExitReason::Kick), "pCPU {pcpu}: {reason:?}: {untraced}");
        }
    }
}
