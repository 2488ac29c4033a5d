//! The tests of the trace: golden numbers, rings, histograms, regions, files, damage.
#![cfg(not(loom))]

mod common;
// Sums over whole files take minutes there.
#[cfg(not(miri))]
mod file;
mod golden;
mod histogram;
mod region;
mod ring;
