//! What the payloads and the host's latency suite agree on.
//!
//! - [`row`]: the rows of the suite, by name and by number.
//! - [`options`]: the words of a payload's command line.
//! - [`distribution`]: the marks of rows that are counted, and of what else the suite needs to know.
//! - [`summary`]: a row's samples in four figures.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod distribution;
pub mod options;
pub mod row;
pub mod summary;

pub use options::{OptionError, Options};
pub use row::{Group, Row};
pub use summary::Summary;
