//! The person's side of the housekeeping core's console: lines, commands, tables.
//!
//! Pure code: bytes come in, text goes out to a [`core::fmt::Write`]. Nothing here touches hardware, allocates or
//! panics, whatever the bytes are. All output is ASCII; its lines end in `\n`, which the writer makes the
//! terminal's CR LF, and are at most [`COLUMNS_MAX`] wide.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod bars;
pub mod command;
pub mod line;
pub mod serial;
pub mod table;
pub mod units;

/// Widest line of any output, in columns.
pub const COLUMNS_MAX: usize = 100;
