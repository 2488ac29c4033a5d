//! What became of all frames of a trace.

use super::load::Trace;
use super::text::plain_table;
use comfy_table::Table;

/// A table of all rings: what is there, and what is missing for which reason.
pub fn summary(trace: &Trace) -> Table {
    let header = ["ring", "frames", "overwritten", "damaged", "too long", "nested", "early", "lost"];
    let mut table = plain_table(&header, 1);
    for region in &trace.regions {
        for ring in &region.dump.rings {
            let (counts, _) = ring.summary();
            // What is not exactly known is a lower bound.
            let exact = |n: u64| if counts.exact { n.to_string() } else { format!(">= {n}") };
            let lost =
                [counts.overwritten, counts.damaged, counts.dropped_long, counts.dropped_nested, counts.lost_early]
                    .into_iter()
                    .fold(0, u64::saturating_add);
            table.add_row([
                region.owner.ring_name(ring.ring),
                counts.frames.to_string(),
                exact(counts.overwritten),
                exact(counts.damaged),
                counts.dropped_long.to_string(),
                counts.dropped_nested.to_string(),
                counts.lost_early.to_string(),
                exact(lost),
            ]);
        }
    }
    table
}
