//! The commands of the console: what a line asks for.

mod error;
mod help;
mod names;
mod nearest;
mod number;
mod quoted;
mod table;
mod words;

pub use error::{ParseError, Problem};
pub use help::write_help;
pub use names::{PartitionName, VcpuName};
pub use quoted::Quoted;

use nearest::nearest;
use words::Words;

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// What there is, or what the named command does; a name that there is.
    Help(Option<&'static str>),
    /// The partitions.
    Partitions,
    /// The vCPUs.
    Vcpus,
    /// Counts and histograms of exits, of all pCPUs or one.
    Exits(Option<u16>),
    /// The registers of a vCPU.
    Regs(VcpuName<'a>),
    /// Read an MSR.
    Rdmsr {
        /// Where.
        pcpu: u16,
        /// Its number.
        msr: u32,
    },
    /// Write an MSR.
    Wrmsr {
        /// Where.
        pcpu: u16,
        /// Its number.
        msr: u32,
        /// What it becomes.
        value: u64,
    },
    /// Stop a partition.
    Stop(PartitionName<'a>),
    /// Start a stopped partition.
    Start(PartitionName<'a>),
    /// Restart a partition.
    Restart {
        /// Which.
        partition: PartitionName<'a>,
        /// How often in a row: from 1 to [`RESTARTS_MAX`].
        times: u32,
    },
    /// Fill levels and drops of the trace.
    Trace,
    /// State and late counts of each pCPU in the SMP calls.
    Smp,
    /// All pCPUs call all others.
    Storm {
        /// How often: from 1 to [`STORM_ROUNDS_MAX`].
        rounds: u32,
        /// The partition that is restarted meanwhile, if any.
        restarted: Option<PartitionName<'a>>,
    },
    /// Keep a pCPU busy with everything held back.
    Hold {
        /// Which.
        pcpu: u16,
        /// How long: from 1 to [`HOLD_MILLISECONDS_MAX`].
        milliseconds: u32,
    },
    /// End the run.
    Quit,
}

/// Most restarts of one command.
pub const RESTARTS_MAX: u32 = 100_000;
/// Most rounds of a storm.
pub const STORM_ROUNDS_MAX: u32 = 1_000_000;
/// Longest hold, in milliseconds.
pub const HOLD_MILLISECONDS_MAX: u32 = 60_000;

/// Reads a line: nothing for a blank one. Command names are exact. Numbers are decimal or, after `0x`, hexadecimal;
/// `_` may stand between digits.
///
/// # Errors
/// What is wrong with which word; it prints as one line that ends in the cure.
pub fn parse(line: &str) -> Result<Option<Command<'_>>, ParseError<'_>> {
    let mut words = Words::new(line);
    let Some(name) = words.optional() else { return Ok(None) };
    let Some(entry) = table::find(name) else { return Err(ParseError { usage: None, problem: unknown(name) }) };
    let refused = |problem| ParseError { usage: Some(entry.usage), problem };
    let command = (entry.read)(&mut words).map_err(refused)?;
    words.finish().map_err(refused)?;
    Ok(Some(command))
}

fn unknown(word: &str) -> Problem<'_> {
    Problem::UnknownCommand { word, nearest: nearest(word, table::names()) }
}

#[cfg(test)]
mod tests;
