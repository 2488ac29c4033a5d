//! Views of traces, from the directory of a run to text and histograms.

mod common;
mod damage;
mod golden;
mod hist;
mod logs;
