//! A guest that leaves its local APIC as it should not be found: with interrupts pending whose vectors are those of the CPU's
//! exceptions, or of spurious interrupts, and a sibling that goes on sending such until it is stopped.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use partita_abi::hypercall::FINISH;
use partita_rt::{Error, Machine, hypercall};
use partita_x86_bare::write_msr;

use crate::claims::Claims;
use crate::peer::Pair;

const ICR: u32 = 0x830;
const SELF_IPI: u32 = 0x83F;

/// What the sibling sends: the classes of the exceptions, the hypervisor's own kick and timer, and the spurious vector.
const SENT: [u64; 8] = [0x10, 0x11, 0x1E, 0x1F, 0x40, 0x41, 0x50, 0xFF];
/// What is left pending: in QEMU even vectors below 16.
const LEFT: [u64; 6] = [0xFF, 0x1E, 0x12, 14, 13, 8];

static TARGET: AtomicU32 = AtomicU32::new(0);

fn send_for_ever() {
    let target = u64::from(TARGET.load(Ordering::Relaxed)) << 32;
    loop {
        for vector in SENT {
            // SAFETY: to the other CPU, which takes no interrupts any more.
            unsafe { write_msr(ICR, target | 1 << 14 | vector) };
        }
        core::hint::spin_loop();
    }
}

/// Ends the partition in the middle of it all.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(1);
    let pair = Pair::start(machine)?;
    TARGET.store(pair.own, Ordering::Relaxed);
    // SAFETY: takes no interrupts any more.
    unsafe { asm!("cli", options(nomem, nostack)) };
    claims.holds("about to leave with interrupts pending", true);
    pair.begin(send_for_ever);
    for vector in LEFT {
        // SAFETY: interrupts are off, and stay so.
        unsafe { write_msr(SELF_IPI, vector) };
    }
    // SAFETY: ends the partition.
    unsafe { hypercall(FINISH, 0, 0) };
    claims.holds("the partition has ended before this", false);
    Ok(())
}
