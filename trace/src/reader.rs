//! A dumped region, decoded: its header, rings, histograms and windows, and what of them is damaged.

use core::ops::Range;

use crate::histogram::{HISTOGRAM_LEN, HistogramId, HistogramSnapshot};
use crate::layout::{HEADER_LEN, LayoutError, Region, RegionHeader, Window, windows};
use crate::ring::RING_HEAD_LEN;
use crate::snapshot::{RingSnapshot, SlotDamage};

/// A decoded region.
#[derive(Clone, Debug)]
pub struct RegionDump {
    /// Its header.
    pub header: RegionHeader,
    /// Its rings, in the order of their numbers.
    pub rings: Vec<RingSnapshot>,
    /// Its histograms that are not empty.
    pub histograms: Vec<PcpuHistogram>,
    /// The guests' windows.
    pub windows: Vec<Window>,
    /// What could not be read.
    pub damage: Vec<RegionDamage>,
}

/// A histogram of a pCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcpuHistogram {
    /// Number of the pCPU.
    pub pcpu: u16,
    /// The histogram.
    pub histogram: HistogramSnapshot,
}

/// Something in a region that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionDamage {
    /// The region's header; a copy of it was used.
    Header,
    /// Part of the window table: windows may be missing.
    Windows,
    /// A ring's head: its counters are lost, and the newest frames.
    RingHead {
        /// Number of the ring.
        ring: u16,
        /// Where it lies, in bytes from the start of the region.
        offset: usize,
    },
    /// Slots of a ring. Their offset counts from the ring's head.
    Slots(SlotDamage),
    /// A histogram.
    Histogram {
        /// Number of the pCPU.
        pcpu: u16,
        /// Which.
        id: HistogramId,
        /// Where it lies, in bytes from the start of the region.
        offset: usize,
    },
}

impl core::fmt::Display for RegionDamage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Header => write!(f, "the header at offset 0 is damaged: its copy in the file was used"),
            Self::Windows => write!(f, "the window table is damaged: regions of guests may be missing"),
            Self::RingHead { ring, offset } => {
                write!(f, "the head of ring {ring} at offset {offset:#x} is damaged: its newest frames are not shown")
            }
            Self::Slots(SlotDamage { ring, slots, offset }) => {
                let Range { start, end } = slots;
                write!(
                    f,
                    "slots {start} to {} of ring {ring} are damaged, from offset {offset:#x} of the ring on",
                    end - 1
                )
            }
            Self::Histogram { pcpu, id, offset } => {
                write!(f, "histogram {}.{} of pCPU {pcpu} at offset {offset:#x} is damaged", id.kind(), id.name())
            }
        }
    }
}

impl RegionDump {
    /// Decodes the bytes of a region. `damaged` are the ranges known to be bad, sorted; bytes missing at the end
    /// count as damaged. `header_copy` stands in if the region's own header is damaged.
    ///
    /// # Errors
    /// There is no usable header.
    pub fn parse(
        bytes: &[u8],
        damaged: &[Range<usize>],
        header_copy: Option<&RegionHeader>,
    ) -> Result<Self, LayoutError> {
        let mut damage = Vec::new();
        let header = match (RegionHeader::parse(bytes), header_copy) {
            (Ok(header), None) => header,
            (Ok(header), Some(copy)) if header == *copy => header,
            (_, Some(copy)) => {
                damage.push(RegionDamage::Header);
                *copy
            }
            (Err(error), None) => return Err(error),
        };
        let bad = |range: Range<usize>| {
            range.end > bytes.len() || damaged.iter().any(|d| d.start < range.end && range.start < d.end)
        };
        let mut found = Vec::new();
        let table_bad = bad(0..HEADER_LEN);
        for window in windows(bytes) {
            match window {
                Ok(window) => found.push(window),
                Err(_) if !table_bad => damage.push(RegionDamage::Windows),
                Err(_) => {}
            }
        }
        if table_bad {
            damage.push(RegionDamage::Windows);
        }
        let mut rings = Vec::new();
        for (ring, offset) in (0..header.spec.pcpus).filter_map(|r| Some((r, header.ring_offset(r)?))) {
            let end = (offset + header.spec.ring_stride()).min(bytes.len());
            let inner: Vec<_> = damaged
                .iter()
                .filter(|d| d.start < end && offset < d.end)
                .map(|d| d.start.saturating_sub(offset)..d.end - offset)
                .collect();
            let slots = header.spec.ring_slots;
            let snapshot = RingSnapshot::from_bytes(ring, slots, bytes.get(offset..end).unwrap_or(&[]), &inner);
            if bad(offset..offset + RING_HEAD_LEN) || !snapshot.has_head() {
                damage.push(RegionDamage::RingHead { ring, offset });
            }
            damage.extend(snapshot.summary().1.into_iter().map(RegionDamage::Slots));
            rings.push(snapshot);
        }
        let mut histograms = Vec::new();
        for pcpu in 0..header.spec.pcpus {
            let Some(bank) = header.bank_offset(pcpu) else { break };
            for id in (0..HistogramId::COUNT).filter_map(HistogramId::from_index) {
                let offset = bank + id.as_index() * HISTOGRAM_LEN;
                let read = |id: HistogramId| {
                    let offset = bank + id.as_index() * HISTOGRAM_LEN;
                    let range = offset..offset + HISTOGRAM_LEN;
                    let good = bytes.get(range.clone()).filter(|_| !bad(range));
                    good.and_then(|bytes| HistogramSnapshot::from_bytes(id, bytes))
                };
                // A damaged part is told by its own name.
                let part = id.part().and_then(read);
                match read(id).map(|own| part.iter().fold(own, HistogramSnapshot::with)) {
                    Some(histogram) if histogram.count != 0 => histograms.push(PcpuHistogram { pcpu, histogram }),
                    Some(_) => {}
                    None => damage.push(RegionDamage::Histogram { pcpu, id, offset }),
                }
            }
        }
        Ok(Self { header, rings, histograms, windows: found, damage })
    }

    /// Copies a live region. Its windows are not read.
    pub fn live(region: &Region<'_>) -> Self {
        let header = *region.header();
        let pcpus = 0..header.spec.pcpus;
        let rings = pcpus.clone().filter_map(|ring| Some(region.ring(ring)?.snapshot(0))).collect();
        let banks = pcpus.filter_map(|pcpu| Some((pcpu, region.histograms(pcpu)?)));
        let histograms = banks
            .flat_map(|(pcpu, bank)| {
                let ids = (0..HistogramId::COUNT).filter_map(HistogramId::from_index);
                ids.map(move |id| PcpuHistogram { pcpu, histogram: bank.snapshot(id) })
            })
            .filter(|h| h.histogram.count != 0)
            .collect();
        Self { header, rings, histograms, windows: Vec::new(), damage: Vec::new() }
    }
}
