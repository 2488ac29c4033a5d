//! What a payload is told about where it runs.

use core::sync::atomic::{AtomicU64, Ordering};

use heapless::Vec;
use partita_abi::debug_port::OPTION as DEBUG_PORT_OPTION;
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
        let told = match place {
            Place::Bare => Clocks::told(),
            Place::Partition(partition) => Some(partition.clocks),
        };
        let (apic_ids, clocks) = match told {
            None => {
                // SAFETY: the loader's RSDP, and the boot page tables map the low 4 GiB one to one.
                let platform = unsafe { discover::discover(boot.rsdp, apic::id(), None) }?;
                (platform.apic_ids, Clocks::measure(platform.pm_timer_port)?)
            }
            // SAFETY: as above.
            Some(clocks) => (unsafe { discover::discover_cpus(boot.rsdp, apic::id()) }?, clocks),
        };
        DEADLINE_TICKS.store(clocks.tsc_hz.saturating_mul(DEADLINE_SECONDS), Ordering::Relaxed);
        // That word is the runtime's, and always the last one.
        let command_line = boot.cmdline.trim_end();
        let command_line = command_line.strip_suffix(DEBUG_PORT_OPTION).unwrap_or(command_line);
        Ok(Self { place, clocks, apic_ids, command_line })
    }

    /// The options on the command line, whose keys are all among `known`.
    ///
    /// # Errors
    /// A word that is none of them.
    pub fn options(&self, known: &'static [&'static str]) -> Result<Options<'static>, Error> {
        Ok(Options::new(self.command_line, known)?)
    }
}

/// How long a CPU waits for another, in seconds.
const DEADLINE_SECONDS: u64 = 10;

/// The same in ticks of the time-stamp counter.
static DEADLINE_TICKS: AtomicU64 = AtomicU64::new(0);

/// Spins until `done`, which CPU `cpu` is to bring about.
///
/// # Errors
/// It does not within the deadline.
pub fn wait_until(cpu: usize, done: impl Fn() -> bool) -> Result<(), Error> {
    let (start, deadline) = (rdtsc(), DEADLINE_TICKS.load(Ordering::Relaxed));
    while !done() {
        if rdtsc().wrapping_sub(start) > deadline {
            return Err(Error::CpuSilent { cpu });
        }
        relax();
    }
    Ok(())
}
