//! The latency suite behind `cargo partita bench`: boots the latency payload on the bare machine and under Partita,
//! collects its samples and the hypervisor's own from the traces, and makes a table and a file of them.
//!
//! - [`suite`]: all boots, in order, and what they come to.
//! - [`boot`]: one boot and its samples.
//! - [`extent`]: how much is measured.
//! - [`systems`]: the systems that are booted.
//! - [`samples`]: samples, and exit counts, out of a trace.
//! - [`figures`]: the figures of the rows, and `bench.json`.
//! - [`table`]: the figures for people.
//! - [`costs`]: what exits cost beside instructions.
//! - [`peers`]: Partita beside KVM.
//! - [`budgets`]: what the figures may be.
//! - [`profile`]: what the hypervisor executes on the paths behind the rows.
//! - [`compare`]: the figures beside those of an earlier run.
//! - [`histogram`]: the distribution of each row.
//! - [`from_trace`]: the figures of traces that are there.
//! - [`tighten`]: budgets down to what was measured.
//! - [`hardware`]: what on a real processor makes figures worse.

#![forbid(unsafe_code)]

pub mod boot;
pub mod budgets;
pub mod compare;
pub mod costs;
mod error;
pub mod extent;
pub mod figures;
pub mod from_trace;
pub mod hardware;
pub mod histogram;
pub mod json_file;
pub mod peers;
pub mod profile;
pub mod samples;
pub mod suite;
pub mod systems;
pub mod table;
pub mod tighten;

pub use error::SuiteError;
pub use figures::{BenchFile, Figures, RowFigures};
pub use suite::{Images, SuiteOptions, run, run_some};

/// Samples of each row.
pub const SAMPLES: u32 = 2000;
/// Samples of each row of a quick run.
pub const QUICK_SAMPLES: u32 = 200;
