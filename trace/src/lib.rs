//! Partita's trace: per-pCPU rings of typed events and defmt log frames, always-on histograms, and their reader.
//!
//! The hypervisor, the bare-metal payloads and the host tool share this crate, so that each record is defined
//! once. `docs/trace-format.md` describes every byte.
//!
//! - [`layout`]: the memory region, and its self-describing header.
//! - [`ring`]: the ring of one producer and its [`ring::Writer`].
//! - [`early`]: a ring for what is logged before there is a region.
//! - [`event`]: the events. [`names`]: the enumerations in them.
//! - [`histogram`]: log-linear histograms in fixed memory.
//! - `raw`: where all that lies, for a writer in assembly.
//! - [`live`]: looks at histograms and rings that others are writing, without memory of one's own.
//! - `logger` (feature `logger`): defmt's global logger.
//! - `snapshot`, `reader` and `file` (feature `std`): decoding on the host, and the file that carries a trace out.
#![cfg_attr(not(any(test, feature = "std", loom)), no_std)]

pub mod early;
mod error;
pub mod event;
mod field;
#[cfg(any(test, feature = "std", loom))]
pub mod file;
pub mod histogram;
pub mod layout;
pub mod live;
#[cfg(feature = "logger")]
pub mod logger;
pub mod names;
#[cfg(not(loom))]
pub mod raw;
#[cfg(any(test, feature = "std", loom))]
pub mod reader;
pub mod ring;
#[cfg(any(test, feature = "std", loom))]
pub mod snapshot;
mod sync;
mod windows;

pub use event::Event;
pub use histogram::{HistogramBank, HistogramId};
pub use layout::{Region, RegionHeader, RegionSpec, WriterKind};
pub use names::{ExitReason, StopCause};
pub use ring::{Ring, Writer};
