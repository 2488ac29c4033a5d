//! The samples: raw in memory while a row is measured, in the trace after it, and summed up at the end.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use partita_rows::{Row, Summary};
use partita_rt::{claim, println, rdtsc, trace};
use partita_trace::Event;

use crate::settings::SAMPLES_MAX;

/// Room for the samples of one row.
struct Samples(UnsafeCell<[u64; SAMPLES_MAX as usize]>);

// SAFETY: only one recorder refers to it.
unsafe impl Sync for Samples {}

static SAMPLES: Samples = Samples(UnsafeCell::new([0; SAMPLES_MAX as usize]));
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Marks a sample that was not taken.
const MISSING: u64 = u64::MAX;

/// Takes the samples, row by row.
pub(crate) struct Recorder {
    samples: &'static mut [u64],
    summaries: [Option<Summary>; Row::ALL.len()],
}

impl Recorder {
    /// A recorder of `count` samples in each row. There is one.
    pub(crate) fn new(count: usize) -> Self {
        let all: &'static mut [u64] = if TAKEN.swap(true, Ordering::Relaxed) {
            &mut []
        } else {
            // SAFETY: the flag says that nobody else refers to it.
            unsafe { &mut *SAMPLES.0.get() }
        };
        Self { samples: all.get_mut(..count).unwrap_or_default(), summaries: [None; Row::ALL.len()] }
    }

    /// Samples of each row.
    pub(crate) fn count(&self) -> usize {
        self.samples.len()
    }

    /// Measures a row: `fill` takes all of its samples. They are traced only when it is done.
    pub(crate) fn row(&mut self, row: Row, fill: impl FnOnce(&mut [u64])) {
        defmt::info!("row {=str}", row.name());
        self.samples.fill(MISSING);
        fill(self.samples);
        let now = rdtsc();
        for (index, &ticks) in self.samples.iter().enumerate() {
            if ticks != MISSING {
                trace::record(now, Event::Sample { row: row.id(), ticks, index: index as u64 });
            }
        }
        self.sum_up(row);
    }

    /// Takes a row that has been measured already: times, ascending, and samples. Each sample is traced with its time.
    pub(crate) fn stamped_row(&mut self, row: Row, stamped: impl Iterator<Item = (u64, u64)>) {
        self.samples.fill(MISSING);
        for (index, (place, (time, ticks))) in self.samples.iter_mut().zip(stamped).enumerate() {
            *place = ticks;
            trace::record(time, Event::Sample { row: row.id(), ticks, index: index as u64 });
        }
        self.sum_up(row);
    }

    /// Claims that all samples of a row are there, and sums them up.
    fn sum_up(&mut self, row: Row) {
        let taken = self.samples.iter().filter(|ticks| **ticks != MISSING).count() as u64;
        let wanted = self.samples.len() as u64;
        claim(row.id(), taken == wanted && wanted > 0, row.name(), taken, wanted);
        if let Some(slot) = Row::ALL.iter().position(|r| *r == row).and_then(|place| self.summaries.get_mut(place)) {
            *slot = Summary::of(self.samples);
        }
    }

    /// As [`Self::row`], for a row whose samples are taken one by one.
    pub(crate) fn row_of<E>(&mut self, row: Row, mut sample: impl FnMut(usize) -> Result<u64, E>) -> Result<(), E> {
        let mut result = Ok(());
        self.row(row, |samples| {
            for (index, place) in samples.iter_mut().enumerate() {
                match sample(index) {
                    Ok(ticks) => *place = ticks,
                    Err(error) => {
                        result = Err(error);
                        return;
                    }
                }
            }
        });
        result
    }

    /// Prints the table.
    pub(crate) fn report(&self) {
        println!("{:28}{:>10}{:>10}{:>10}{:>10}", "row (ticks)", "min", "median", "p99", "max");
        for (row, summary) in Row::ALL.iter().zip(self.summaries) {
            if let Some(Summary { min, p50, p99, max }) = summary {
                println!("{:28}{min:>10}{p50:>10}{p99:>10}{max:>10}", row.name());
            }
        }
    }
}
