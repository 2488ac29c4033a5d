//! The tests of the trace: golden numbers, rings, histograms, live looks, regions, files, damage.
#![cfg(not(loom))]

mod common;
// Sums over whole files take minutes there.
#[cfg(not(miri))]
mod file;
mod golden;
mod histogram;
mod live;
mod region;
mod ring;
