//! A payload's beginning and end.

use partita_abi::debug_port::OPTION as DEBUG_PORT_OPTION;
use partita_abi::hypercall::FINISH;
use partita_abi::report::{END_SUCCESS, EXIT_FAILURE, EXIT_SUCCESS, PAYLOAD_END_MARKER};
use partita_x86_bare::boot_info::{BootInfo, BootInfoError};
use partita_x86_bare::{BootBlock, apic, debug_port, end_run, mask_legacy_controllers};

use crate::error::Error;
use crate::machine::Machine;
use crate::place::{Place, has_x2apic, hypercall};
use crate::{claims, console, cpu, interrupts, println, trace};

/// The payload: [`crate::payload!`] makes it.
#[derive(Debug)]
pub struct Payload {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub steps: fn(&Machine) -> Result<(), Error>,
}

unsafe extern "Rust" {
    safe static payload_entry: Payload;
}

#[unsafe(no_mangle)]
static boot_block: BootBlock = BootBlock::new();

/// The entry code comes here.
#[unsafe(no_mangle)]
fn bare_main(boot: Result<BootInfo, BootInfoError>) -> ! {
    cpu::init(0);
    let place = Place::detect();
    console::init(&place);
    println!("payload: {} {}", payload_entry.name, env!("CARGO_PKG_VERSION"));
    match run(boot, place) {
        Ok(()) => {
            let (held, failed) = claims::counts();
            println!("payload: {held} claim(s) held, {failed} failed");
            end(failed == 0)
        }
        Err(error) => {
            println!("payload: error: {error}");
            end(false)
        }
    }
}

fn run(boot: Result<BootInfo, BootInfoError>, place: Place) -> Result<(), Error> {
    let boot = boot?;
    if !place.is_partition() && boot.has_option(DEBUG_PORT_OPTION) {
        debug_port::enable();
    }
    if !has_x2apic() {
        return Err(Error::NoX2apic);
    }
    if !place.is_partition() {
        mask_legacy_controllers();
    }
    interrupts::init();
    apic::enable();
    let machine = Machine::discover(&boot, place)?;
    match place {
        Place::Bare => println!("payload: on the bare machine, {} CPU(s)", machine.apic_ids.len()),
        Place::Partition(own) => println!("payload: partition {}, {} vCPU(s)", own.number, own.vcpus),
    }
    println!("payload: TSC {} Hz, local APIC timer {} Hz", machine.clocks.tsc_hz, machine.clocks.lapic_hz);
    trace::init(&machine)?;
    defmt::info!("payload {=str} on {=usize} CPU(s)", payload_entry.name, machine.apic_ids.len());
    (payload_entry.steps)(&machine)
}

/// Ends the run of the machine, or of the partition.
pub fn end(success: bool) -> ! {
    console::print_fatal(format_args!("{PAYLOAD_END_MARKER}{}\n", if success { END_SUCCESS } else { "failure" }));
    if Place::detect().is_partition() {
        // SAFETY: the call only ends the partition.
        unsafe { hypercall(FINISH, u64::from(!success), 0) };
    }
    end_run(if success { EXIT_SUCCESS } else { EXIT_FAILURE })
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    console::print_fatal(format_args!("\npayload: fatal: {info}\n"));
    end(false)
}
