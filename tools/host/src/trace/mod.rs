//! Views of a run's trace: its frames in the order of time, and its histograms.
//!
//! - [`Trace`]: what the directory of a run has, read and checked.
//! - [`merged`]: the frames of all rings, merged by time.
//! - [`LogTables`]: log frames back to text, each by the ELF file that wrote it.
//! - [`Decoder`]: frames as lines, and what became of all frames.
//! - [`Window`]: the part around one moment, and the exits and IPIs in it.
//! - [`histograms`]: latencies, from the rings and from the histograms that are always on.
//! - [`worst_exits`]: the exits that took longest, by kind.
//! - [`chart`]: histograms in a terminal.

mod around;
pub mod chart;
mod decode;
mod format_guard;
mod hist;
mod load;
mod logs;
mod merge;
mod smp_legs;
mod summary;
mod text;
mod worst;

pub use around::{Extent, Moment, MomentError, Window, WindowCount, counts};
pub use decode::{DecodeOptions, Decoder, KindFilter, UnknownKind};
pub use hist::{Bucket, HistFile, LatencySource, Origin, histograms};
pub use load::{LoadError, Owner, Trace, TraceRegion};
pub use logs::{LogLine, LogTables};
pub use merge::{Item, Merged, merged};
pub use smp_legs::{LegFrames, LegRing, leg_frames_lines};
pub use summary::summary;
pub use text::nanoseconds;
pub use worst::{ExitRecord, WorstExit, worst_exits, worst_table};
