//! The latency suite behind `cargo partita bench`: boots the latency payload on the bare machine and under Partita,
//! collects its samples and the hypervisor's own from the traces, and makes a table and a file of them.
//!
//! - [`suite`]: all boots, in order, and what they come to.
//! - [`boot`]: one boot and its samples.
//! - [`systems`]: the systems that are booted.
//! - [`samples`]: samples, and exit counts, out of a trace.
//! - [`figures`]: the figures of the rows, and `bench.json`.
//! - [`table`]: the figures for people.
//! - [`budgets`]: what the figures may be.

#![forbid(unsafe_code)]

pub mod boot;
pub mod budgets;
mod error;
pub mod figures;
pub mod json_file;
pub mod samples;
pub mod suite;
pub mod systems;
pub mod table;

pub use error::SuiteError;
pub use figures::{BenchFile, Figures, RowFigures};
pub use suite::{Images, SuiteOptions, run, run_some};

/// Samples of each row.
pub const SAMPLES: u32 = 2000;
/// Samples of each row of a quick run.
pub const QUICK_SAMPLES: u32 = 200;
