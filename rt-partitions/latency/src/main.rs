//! The latency payload: what exits, IPIs and the timer cost, on the bare machine or in a partition of two vCPUs.
//!
//! Options: `group=exit|ipi|timer|kick|gap|broadcast|all` (default `all`), `samples=N` (default 2000). Groups `kick` and
//! `broadcast` in a partition take no samples: all vCPUs sit in `state=spin_if1|spin_if0|hlt|exit_storm|flood`, with a PAUSE
//! in their loops unless `pause=0`, while the hypervisor kicks them, and vCPU 0 ends it after `ticks=N` ticks, or never if
//! that is 0 (default). In state `flood` each sends itself interrupts and NMIs, and the run fails if one is lost or comes
//! twice. Group `gap` polls the time on vCPU 0, all others halted, until it has seen so many gaps.
//!
//! CPU 0 measures and reports; CPU 1 is the other end, and halts whenever it is not.

#![no_std]
#![no_main]

mod exits;
mod flood;
mod gap;
mod handlers;
mod ipi;
mod nmi;
mod peer;
mod record;
mod settings;
mod sit;
mod timer;

use partita_rows::Group;
use partita_rt::{Error, Machine};
use peer::Peer;
use record::Recorder;
use settings::Settings;

partita_rt::payload!("latency", measure);

fn measure(machine: &Machine) -> Result<(), Error> {
    let settings = Settings::read(machine)?;
    if settings.is_to_sit(machine) {
        return sit::sit(machine, &settings);
    }
    let mut recorder = Recorder::new(settings.samples);
    if settings.is_to_poll() {
        gap::measure(machine, &mut recorder)?;
        recorder.report();
        return Ok(());
    }
    handlers::install();
    let peer = Peer::start(machine)?;
    for group in settings.groups() {
        match group {
            Group::Exit => exits::measure(machine, &mut recorder),
            Group::Ipi => ipi::measure(&peer, &mut recorder)?,
            Group::Timer => timer::measure(machine, &mut recorder),
            Group::Kick => nmi::measure(&peer, &mut recorder)?,
            // They are runs of their own.
            Group::Gap | Group::Broadcast => {}
        }
    }
    recorder.report();
    Ok(())
}
