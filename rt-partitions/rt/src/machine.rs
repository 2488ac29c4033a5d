//! What a payload is told about where it runs.

use heapless::Vec;
use partita_rows::Options;
use partita_x86_bare::boot_info::BootInfo;
use partita_x86_bare::discover::{self, CPUS_MAX};
use partita_x86_bare::{apic, rdtsc, relax};

use crate::clock::Clocks;
use crate::error::Error;
use crate::place::Place;

/// Where the payload runs, and with what.
#[derive(Debug)]
pub struct Machine {
    /// Bare, or a partition.
    pub place: Place,
    /// The clocks.
    pub clocks: Clocks,
    /// x2APIC IDs of the CPUs; this payload's CPU n is the n-th.
    pub apic_ids: Vec<u32, CPUS_MAX>,
    command_line: &'static str,
}

impl Machine {
    /// Looks around. The local APIC is enabled, and interrupts have their handlers.
    pub(crate) fn discover(boot: &BootInfo, place: Place) -> Result<Self, Error> {
        let (apic_ids, clocks) = match place {
            Place::Bare => {
                // SAFETY: the loader's RSDP, and the boot page tables map the low 4 GiB one to one.
                let platform = unsafe { discover::discover(boot.rsdp, apic::id()) }?;
                (platform.apic_ids, Clocks::measure(platform.pm_timer_port)?)
            }
            Place::Partition(partition) => {
                // SAFETY: as above.
                (unsafe { discover::discover_cpus(boot.rsdp, apic::id()) }?, partition.clocks)
            }
        };
        Ok(Self { place, clocks, apic_ids, command_line: boot.cmdline })
    }

    /// The options on the command line, whose keys are all among `known`.
    ///
    /// # Errors
    /// A word that is none of them.
    pub fn options(&self, known: &'static [&'static str]) -> Result<Options<'static>, Error> {
        Ok(Options::new(self.command_line, known)?)
    }
}

/// How long a CPU waits for another: ten seconds or so.
const DEADLINE_TICKS: u64 = 20_000_000_000;

/// Spins until `done`, which CPU `cpu` is to bring about.
///
/// # Errors
/// It does not within the deadline.
pub fn wait_until(cpu: usize, done: impl Fn() -> bool) -> Result<(), Error> {
    let start = rdtsc();
    while !done() {
        if rdtsc().wrapping_sub(start) > DEADLINE_TICKS {
            return Err(Error::CpuSilent { cpu });
        }
        relax();
    }
    Ok(())
}
