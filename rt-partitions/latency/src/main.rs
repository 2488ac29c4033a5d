//! The latency payload: what exits, IPIs and the timer cost, on the bare machine or in a partition of two vCPUs.
//!
//! Options: `group=`[`Group::NAMES`] or `all` (default), which is those of exits, IPIs, timer and, on the bare machine, kicks;
//! `samples=N` (default 2000); `periods=N`, of the row that counts them (default 2000); `hypercalls=0|1`, whether there is a
//! hypervisor to call (default 1 in a partition, else 0). Groups `kick` and
//! `broadcast` in a partition take no samples: all vCPUs sit in `state=spin_if1|spin_if0|hlt|exit_storm|flood`, with a PAUSE
//! in their loops unless `pause=0`, while the hypervisor kicks them, and vCPU 0 ends it after `ticks=N` ticks, or never if
//! that is 0 (default). In state `flood` each sends itself interrupts and NMIs, and the run fails if one is lost or comes
//! twice. Group `gap` polls the time on vCPU 0, all others halted, until it has seen so many gaps; group `quiet` for `ticks=N`
//! ticks (default 0: a second). Group `restart` reboots `samples` times. Group `untraced` has rows of exits and IPIs once more,
//! groups `beside_*` have the timer beside a neighbour.
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
mod periodic;
mod quiet;
mod reboot;
mod record;
mod settings;
mod sit;
mod timer;

use partita_rows::{Group, Row};
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
    handlers::install();
    // The other CPU halts whenever it takes no part.
    let peer = if settings.groups().any(has_peer) { Some(Peer::start(machine)?) } else { None };
    for group in settings.groups() {
        match (group, &peer) {
            (Group::Exit, _) => exits::measure(settings.hypercalls, &mut recorder),
            (Group::Ipi, Some(peer)) => ipi::measure(peer, &mut recorder)?,
            (Group::Timer, _) => {
                timer::measure(machine, &mut recorder);
                periodic::measure(machine, settings.periods);
            }
            (Group::Kick, Some(peer)) => nmi::measure(peer, &mut recorder)?,
            (Group::Gap, _) => gap::measure(machine, &mut recorder)?,
            (Group::Quiet, _) => quiet::measure(machine, settings.ticks)?,
            (Group::Restart, _) => reboot::measure(machine, settings.samples)?,
            (Group::Untraced, _) => {
                exits::measure_untraced(&mut recorder);
                ipi::measure_self(Row::UntracedIpiSelf, &mut recorder);
            }
            (group, _) if group.is_beside() => timer::measure_beside(group, machine, &mut recorder),
            // It sits, see above.
            _ => {}
        }
    }
    recorder.report();
    Ok(())
}

/// Whether CPU 1 takes part in a group, or stands by.
const fn has_peer(group: Group) -> bool {
    matches!(group, Group::Exit | Group::Ipi | Group::Timer | Group::Kick)
}
