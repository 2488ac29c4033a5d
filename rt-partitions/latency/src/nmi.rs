//! The row of kicks on the bare machine: an NMI to the other CPU's handler.

use partita_rows::Row;
use partita_rt::Error;

use crate::ipi::{one_way, send_spinning};
use crate::peer::{Peer, Role};
use crate::record::Recorder;

/// ICR bits of an NMI.
const NMI: u64 = 1 << 14 | 0b100 << 8;

/// Measures the row.
pub(crate) fn measure(peer: &Peer, recorder: &mut Recorder) -> Result<(), Error> {
    let nmi = u64::from(peer.apic_id) << 32 | NMI;
    one_way(Row::KickNmiToExit, peer, recorder, Role::StampSpinning, |round| send_spinning(nmi, round))
}
