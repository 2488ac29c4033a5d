//! Partita, the hypervisor: boot, discover, validate, divide, start, run.

#![no_std]
#![no_main]

use core::convert::Infallible;

use partita_abi::report::{END_MARKER, HypervisorExit};
use partita_console::serial::{Serial, SerialError};
use partita_x86::cpu::{self, percpu};
use partita_x86::error::Refusal;
use partita_x86::machine::Machine;
use partita_x86::set_up::Hypervisor;
use partita_x86::system::System;
use partita_x86::{arch, console, debug_port, println, system};
use partita_x86_bare::boot_info::{BootInfo, BootInfoError};

/// The story. The entry code of whichever loader there was comes here.
#[unsafe(no_mangle)]
fn bare_main(boot: Result<BootInfo, BootInfoError>) -> ! {
    // SAFETY: first thing on the boot pCPU.
    unsafe { percpu::init_boot() };
    // What is wrong with the option is said where the console is if there is none.
    let serial = boot.as_ref().ok().and_then(|boot| boot.value("serial")).map_or(Ok(Serial::DEFAULT), Serial::parse);
    console::init(serial.unwrap_or(Serial::DEFAULT));
    println!("partita: {} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let Err(refusal) = run(boot, serial);
    println!("partita: refused to start: {refusal}");
    println!("{END_MARKER}refused");
    cpu::end_run(HypervisorExit::Refused)
}

fn run(
    boot: Result<BootInfo, BootInfoError>,
    serial: Result<Serial, SerialError<'static>>,
) -> Result<Infallible, Refusal> {
    let boot = boot?;
    serial?;
    if boot.has_option(debug_port::OPTION) {
        debug_port::enable();
    }
    // Read now: the loader's memory is not mapped any more once the hypervisor has its own page tables.
    let options =
        Options { trap_timer_count: boot.has_option("trap-timer-count"), is_attended: boot.has_option("console") };
    let machine = Machine::discover(&boot)?;
    println!("partita: {}", machine.summary());
    // SAFETY: the boot page tables are in use, and the loader's word is all there is.
    let system = unsafe { system::read(&boot, &machine) }?;
    println!("partita: system \"{}\", {} partition(s)", system.config.name, system.config.partitions.len());
    divide_and_run(machine, system, options)
}

/// What the command line says.
struct Options {
    /// Guests do not read their timers' counts.
    trap_timer_count: bool,
    /// Someone is at the console: it prompts at once.
    is_attended: bool,
}

fn divide_and_run(machine: Machine, system: System, options: Options) -> Result<Infallible, Refusal> {
    // SAFETY: this is the boot pCPU, here once, with the boot page tables in use.
    let mut hypervisor = unsafe { Hypervisor::set_up(machine, system, options.is_attended) }?;
    hypervisor.check_pcpus()?;
    hypervisor.describe_partitions(options.trap_timer_count)?;
    hypervisor.report_memory();
    hypervisor.give_all_pcpus()?;
    hypervisor.run()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    arch::stop_serving();
    console::print_fatal(format_args!("\npartita: fatal: {info}\n"));
    cpu::end_run(HypervisorExit::Fatal)
}
