//! What a guest printed of a run of cyclictest.

use std::collections::BTreeMap;

/// What a line of the report begins with, behind the kernel's time stamp.
const PREFIX: &str = "report: ";

/// Why there are no figures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FiguresError {
    /// There is no line about it.
    #[error("the console has no figures of the measurement {0:?}; look at the partition's log")]
    Missing(String),
    /// It failed.
    #[error("cyclictest failed in the measurement {name:?}: exit status {status}; look at the partition's log")]
    Failed {
        /// The measurement.
        name: String,
        /// What it returned.
        status: String,
    },
    /// A line cannot be read.
    #[error("the figures of the measurement {name:?} are not cyclictest's: {line:?}")]
    BadLine {
        /// The measurement.
        name: String,
        /// The line.
        line: String,
    },
}

/// The wake-up that came latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorstWakeUp {
    /// The thread, which runs on the vCPU of the same number.
    pub thread: usize,
    /// How late it was, in microseconds.
    pub late_us: u64,
    /// When it woke up, by the guest's monotonic clock, in microseconds.
    pub monotonic_us: u64,
}

/// The figures of one measurement, thread by thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many wake-ups were so many microseconds late.
    pub rows: BTreeMap<u64, Vec<u64>>,
    /// Wake-ups in the histogram.
    pub total: Vec<u64>,
    /// The shortest latency in microseconds.
    pub min: Vec<u64>,
    /// The average.
    pub avg: Vec<u64>,
    /// The longest.
    pub max: Vec<u64>,
    /// Wake-ups too late for the histogram.
    pub overflows: Vec<u64>,
    /// The latest one, if any was later than a microsecond.
    pub worst: Option<WorstWakeUp>,
}

impl Figures {
    /// The figures of the measurement `name` on a console.
    ///
    /// # Errors
    /// They are not there, or say that it failed.
    pub fn parse(console: &str, name: &str) -> Result<Self, FiguresError> {
        let missing = || FiguresError::Missing(name.to_owned());
        let mine = format!("{name}: ");
        let mut figures = Self::default();
        let mut status = None;
        for line in console.lines() {
            let Some(line) = line.split_once(PREFIX).and_then(|(_, line)| line.strip_prefix(&mine)) else { continue };
            let line = line.trim();
            match line.strip_prefix("status ") {
                Some(text) => status = Some(text.to_owned()),
                None => figures
                    .add(line)
                    .ok_or_else(|| FiguresError::BadLine { name: name.to_owned(), line: line.to_owned() })?,
            }
        }
        match status {
            None => Err(missing()),
            Some(status) if status != "0" => Err(FiguresError::Failed { name: name.to_owned(), status }),
            Some(_) if figures.max.is_empty() => Err(missing()),
            Some(_) => Ok(figures),
        }
    }

    /// Threads that measured.
    pub const fn threads(&self) -> usize {
        self.max.len()
    }

    /// The longest latency of all threads, in microseconds.
    pub fn longest(&self) -> u64 {
        self.max.iter().copied().max().unwrap_or(0)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        if let Some(worst) = line.strip_prefix("worst:") {
            self.worst = if worst.trim().is_empty() { None } else { Some(parse_worst(worst)?) };
            return Some(());
        }
        if let Some((title, values)) = line.strip_prefix("# ").and_then(|line| line.split_once(':')) {
            let place = match title {
                "Total" => &mut self.total,
                "Min Latencies" => &mut self.min,
                "Avg Latencies" => &mut self.avg,
                "Max Latencies" => &mut self.max,
                "Histogram Overflows" => &mut self.overflows,
                _ => return None,
            };
            *place = numbers(values)?;
            return Some(());
        }
        let values = numbers(line)?;
        let (us, counts) = values.split_first()?;
        self.rows.insert(*us, counts.to_vec());
        Some(())
    }
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split_whitespace().map(|word| word.parse().ok()).collect()
}

/// `T: 1 Spike:      10: TS:      7904053`, in microseconds.
fn parse_worst(text: &str) -> Option<WorstWakeUp> {
    let mut fields = text.split(':').map(|field| field.split_whitespace().next());
    let (tag, thread) = (fields.next()??, fields.next()??);
    let (late, _, monotonic) = (fields.next()??, fields.next()??, fields.next()??);
    let parsed = WorstWakeUp {
        thread: thread.parse().ok()?,
        late_us: late.parse().ok()?,
        monotonic_us: monotonic.parse().ok()?,
    };
    (tag == "T").then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[    2.7] report: Linux 6.1, 2 vCPUs\r\n\
        [    3.3] report: alone: status 0\r\n\
        [    3.4] report: alone: 000003 000128\t000152\r\n\
        [    3.4] some other message\r\n\
        [    3.4] report: alone: 000031 000001\t000000\r\n\
        [    3.4] report: alone: # Total: 000000129 000000152\r\n\
        [    3.4] report: alone: # Min Latencies: 00003 00003\r\n\
        [    3.4] report: alone: # Avg Latencies: 00006 00004\r\n\
        [    3.4] report: alone: # Max Latencies: 00031 00003\r\n\
        [    3.4] report: alone: # Histogram Overflows: 00000 00000\r\n\
        [    3.4] report: alone: worst: T: 0 Spike:      31: TS:      2800018\r\n\
        [    9.4] report: beside: status 1\r\n";

    #[test]
    fn figures_are_read() {
        let figures = Figures::parse(CONSOLE, "alone").unwrap();
        assert_eq!(figures.rows, [(3, vec![128, 152]), (31, vec![1, 0])].into());
        assert_eq!((figures.threads(), figures.longest()), (2, 31));
        assert_eq!((&figures.total[..], &figures.avg[..]), (&[129, 152][..], &[6, 4][..]));
        assert_eq!(figures.worst, Some(WorstWakeUp { thread: 0, late_us: 31, monotonic_us: 2_800_018 }));
        let none = CONSOLE.replace("worst: T: 0 Spike:      31: TS:      2800018", "worst: ");
        assert_eq!(Figures::parse(&none, "alone").unwrap().worst, None);
    }

    #[test]
    fn figures_that_are_none_are_named() {
        let error = |console: &str, name| Figures::parse(console, name).unwrap_err();
        assert_eq!(error(CONSOLE, "other"), FiguresError::Missing("other".into()));
        assert_eq!(error(CONSOLE, "beside"), FiguresError::Failed { name: "beside".into(), status: "1".into() });
        for (good, bad) in
            [("000128\t", "many\t"), ("# Total", "# Sum"), ("Spike:      31", "Spike:"), ("T: 0", "U: 0")]
        {
            let error = error(&CONSOLE.replace(good, bad), "alone");
            assert!(matches!(error, FiguresError::BadLine { .. }), "{error}");
        }
    }
}
