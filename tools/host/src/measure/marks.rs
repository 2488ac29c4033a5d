//! Marks that guests without a trace of their own leave in the hypervisor's: bytes written to I/O port 0x80, which no guest
//! owns and which does nothing. Each is an exit, with its time.

use crate::trace::{Owner, Trace};
use partita_trace::Event;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;

/// The port.
const PORT: u16 = 0x80;

/// A kind of mark: the byte that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The byte.
    pub(super) byte: u8,
    /// What it means.
    pub(super) name: &'static str,
}

/// The measurement without a neighbour begins.
pub(super) const ALONE_BEGINS: Mark = Mark { byte: 0xC0, name: "the measurement alone begins" };
/// It is over.
pub(super) const ALONE_ENDS: Mark = Mark { byte: 0xC1, name: "the measurement alone ends" };
/// The measurement beside the neighbour begins.
pub(super) const BESIDE_BEGINS: Mark = Mark { byte: 0xC2, name: "the measurement beside the neighbour begins" };
/// It is over.
pub(super) const BESIDE_ENDS: Mark = Mark { byte: 0xC3, name: "the measurement beside the neighbour ends" };
/// Right behind it the monotonic clock is read.
pub(super) const BEFORE_CLOCK: Mark = Mark { byte: 0xD0, name: "the monotonic clock is about to be read" };
/// Right before it the monotonic clock was read.
pub(super) const AFTER_CLOCK: Mark = Mark { byte: 0xD1, name: "the monotonic clock was read" };
/// The neighbour's work begins.
pub(super) const WORK_BEGINS: Mark = Mark { byte: 0xE0, name: "the neighbour's work begins" };
/// It is over.
pub(super) const WORK_ENDS: Mark = Mark { byte: 0xE1, name: "the neighbour's work ends" };

/// An exit of a pCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// When it began, in ticks.
    pub(super) tsc: u64,
    /// Why.
    pub(super) reason: ExitReason,
    /// How long it took, in ticks.
    pub(super) ticks: u64,
    /// The byte, if it is a mark.
    pub(super) mark: Option<u8>,
}

/// The exits of some pCPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exits {
    /// By pCPU, in the order of its ring.
    by_pcpu: Vec<(u16, Vec<Exit>)>,
    /// From when on no exit is missing, in ticks.
    pub(super) complete_from: u64,
}

impl Exits {
    /// The exits of these pCPUs, as far as the rings still have them.
    pub(super) fn of(trace: &Trace, pcpus: &[u16]) -> Self {
        let rings = trace.regions.iter().filter(|region| region.owner == Owner::Hypervisor);
        let mut exits = Self { by_pcpu: Vec::new(), complete_from: 0 };
        for ring in rings.flat_map(|region| &region.dump.rings).filter(|ring| pcpus.contains(&ring.ring)) {
            if ring.summary().0.overwritten > 0 {
                let first = ring.frames().next().map_or(u64::MAX, |frame| frame.tsc);
                exits.complete_from = exits.complete_from.max(first);
            }
            let of_ring = ring.frames().filter_map(|frame| match frame.body {
                Body::Event(Event::Exit { reason, detail16, ticks, detail }) => {
                    let is_mark = reason == ExitReason::IoOut && detail16 == PORT;
                    Some(Exit { tsc: frame.tsc, reason, ticks, mark: is_mark.then_some(detail as u8) })
                }
                _ => None,
            });
            exits.by_pcpu.push((ring.ring, of_ring.collect()));
        }
        exits
    }

    /// Exits, with their pCPU.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, Exit)> {
        self.by_pcpu.iter().flat_map(|(pcpu, exits)| exits.iter().map(|exit| (*pcpu, *exit)))
    }

    /// When a mark was made, in ticks: the last time, as kernels write to the port while they boot.
    pub(super) fn mark(&self, mark: Mark) -> Option<u64> {
        self.iter().filter(|(_, exit)| exit.mark == Some(mark.byte)).map(|(_, exit)| exit.tsc).max()
    }
}
