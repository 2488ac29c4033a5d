//! The init program of a Linux under which the latency payload runs as a guest of KVM: it loads KVM's modules, makes a
//! machine of the kind that the payload expects of bare hardware, runs it, and leaves its trace where the host looks for it.
//!
//! The host tool (`tools/host/src/peers`) puts this program into an initial RAM disk, beside it `/guest`, a file for each
//! piece of the guest's memory, named by its address, and `/modules`. The words behind `--` on the kernel's command line are
//! this program's: see [`settings::Settings`].

mod console;
mod devices;
mod guest;
mod linux;
mod settings;
mod vcpu;

use devices::Devices;
use partita_abi::report::EXIT_FAILURE;
use settings::Settings;
use std::sync::Arc;

fn main() {
    let byte = run().unwrap_or_else(|error| {
        println!("peer: error: {error:#}");
        EXIT_FAILURE
    });
    linux::end_machine(byte);
}

/// Runs the guest; returns what it wrote to its exit port.
fn run() -> anyhow::Result<u8> {
    linux::mount_devices()?;
    let settings = Settings::read(std::env::args().skip(1))?;
    linux::load_modules("/modules")?;
    let guest = guest::Guest::new(&settings)?;
    let devices = Arc::new(Devices::new(settings.trace_at));
    let byte = vcpu::run_all(guest.vcpus, &devices)?;
    if let Some(region) = devices.trace_region() {
        linux::write_physical(settings.trace_at, guest.memory.region(region, settings.trace_len)?)?;
    }
    Ok(byte)
}
