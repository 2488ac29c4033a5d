//! The latency payload: what exits, IPIs and the timer cost, on the bare machine or in a partition of two vCPUs.
//!
//! Options: `group=exit|ipi|timer|kick|all` (default `all`), `samples=N` (default 2000). Group `kick` in a partition
//! takes no samples: its vCPUs, one or two, sit in `state=spin_if1|spin_if0|hlt|exit_storm`, with a PAUSE in their loops unless
//! `pause=0`, while the hypervisor kicks them, and vCPU 0 ends it after `ticks=N` ticks, or never if that is 0 (default).
//!
//! CPU 0 measures and reports; CPU 1 is the other end, and halts whenever it is not.

#![no_std]
#![no_main]

mod exits;
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
    handlers::install();
    let peer = Peer::start(machine)?;
    let mut recorder = Recorder::new(settings.samples);
    for group in settings.groups() {
        match group {
            Group::Exit => exits::measure(machine, &mut recorder),
            Group::Ipi => ipi::measure(&peer, &mut recorder)?,
            Group::Timer => timer::measure(machine, &mut recorder),
            Group::Kick => nmi::measure(&peer, &mut recorder)?,
        }
    }
    recorder.report();
    Ok(())
}
