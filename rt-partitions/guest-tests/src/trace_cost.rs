//! What a record costs: a typed event against a defmt frame with the same content. Typed events are what the exit path
//! writes, because they are cheaper; this claims that they are.

use partita_rt::{Error, Machine, println, rdtsc, trace};
use partita_trace::Event;

use crate::claims::Claims;

const SAMPLES: u64 = 200;

/// The fewest ticks between two time-stamps around `operation`.
fn fewest(mut operation: impl FnMut(u64)) -> u64 {
    (0..SAMPLES)
        .map(|sample| {
            let start = rdtsc();
            operation(sample);
            rdtsc().wrapping_sub(start)
        })
        .min()
        .unwrap_or(0)
}

/// Measures both.
pub(crate) fn test(_machine: &Machine) -> Result<(), Error> {
    let nothing = fewest(|sample| {
        core::hint::black_box(sample);
    });
    let event = fewest(|sample| trace::record(sample, Event::Mark { id: 1, first: sample, second: sample }));
    let frame = fewest(|sample| defmt::info!("mark {=u32} {=u64} {=u64}", 1, sample, sample));
    println!("payload: trace cost: nothing {nothing}, event {event}, defmt frame {frame} ticks");
    Claims::from(1000).about("a typed event is cheaper than a defmt frame", event < frame, event, frame);
    Ok(())
}
