//! Where in a system file its values stand, for problems that are found after reading.

use std::ops::Range;

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The system as a whole.
    System,
    /// `housekeeping.pcpu`.
    HousekeepingPcpu,
    /// `housekeeping.smp_call_hz`.
    SmpCallHz,
    /// `housekeeping.smp_call_deadline_ms`.
    SmpCallDeadline,
    /// `housekeeping.smp_call_rounds`.
    SmpCallRounds,
    /// `trace.ring`.
    Ring,
    /// `machine.memory`.
    MachineMemory,
    /// A part of the partition with this number.
    Partition(usize, Part),
}

/// Which part of a partition's table a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The table as a whole.
    Whole,
    /// Its `name`.
    Name,
    /// Its `pcpus`.
    Pcpus,
    /// Its `memory`.
    Memory,
    /// Its `memory_at`.
    MemoryAt,
    /// Its `image`.
    Image,
    /// Its `console`.
    Console,
    /// Its `io_ports`, or `devices`.
    IoPorts,
    /// Its `mmio`.
    Mmio,
}

/// Byte ranges of a file's values; `None` where a default is in force.
#[derive(Clone, Debug)]
pub(super) struct Spans {
    pub(super) system: Range<usize>,
    pub(super) housekeeping_pcpu: Option<Range<usize>>,
    pub(super) smp_call_hz: Option<Range<usize>>,
    pub(super) smp_call_deadline: Option<Range<usize>>,
    pub(super) smp_call_rounds: Option<Range<usize>>,
    pub(super) ring: Option<Range<usize>>,
    pub(super) machine_memory: Option<Range<usize>>,
    pub(super) partitions: Vec<PartitionSpans>,
}

#[derive(Clone, Debug)]
pub(super) struct PartitionSpans {
    pub(super) whole: Range<usize>,
    pub(super) name: Range<usize>,
    pub(super) pcpus: Range<usize>,
    pub(super) memory: Range<usize>,
    pub(super) memory_at: Option<Range<usize>>,
    pub(super) image: Range<usize>,
    pub(super) console: Option<Range<usize>>,
    pub(super) io_ports: Option<Range<usize>>,
    pub(super) mmio: Option<Range<usize>>,
}

impl Spans {
    /// Where `place` stands; the next larger thing where it is not written.
    pub(super) fn of(&self, place: Place) -> Range<usize> {
        let span = match place {
            Place::System => None,
            Place::HousekeepingPcpu => self.housekeeping_pcpu.clone(),
            Place::SmpCallHz => self.smp_call_hz.clone(),
            Place::SmpCallDeadline => self.smp_call_deadline.clone(),
            Place::SmpCallRounds => self.smp_call_rounds.clone(),
            Place::Ring => self.ring.clone(),
            Place::MachineMemory => self.machine_memory.clone(),
            Place::Partition(number, part) => self.partitions.get(number).map(|partition| partition.of(part)),
        };
        span.unwrap_or_else(|| self.system.clone())
    }
}

impl PartitionSpans {
    fn of(&self, part: Part) -> Range<usize> {
        match part {
            Part::Whole => self.whole.clone(),
            Part::Name => self.name.clone(),
            Part::Pcpus => self.pcpus.clone(),
            Part::Memory => self.memory.clone(),
            Part::MemoryAt => self.memory_at.clone().unwrap_or_else(|| self.memory.clone()),
            Part::Image => self.image.clone(),
            Part::Console => self.console.clone().unwrap_or_else(|| self.whole.clone()),
            Part::IoPorts => self.io_ports.clone().unwrap_or_else(|| self.whole.clone()),
            Part::Mmio => self.mmio.clone().unwrap_or_else(|| self.whole.clone()),
        }
    }
}
