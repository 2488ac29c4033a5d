//! NMIs between the CPUs of a partition. The hypervisor's own, its kicks, must not show.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::{Error, Machine, apic, relax};
use partita_x86_bare::write_msr;

use crate::claims::Claims;
use crate::counters;
use crate::peer::Pair;
use crate::tables;

const ICR: u32 = 0x830;
const NMI_TO_OTHERS: u64 = 3 << 18 | 1 << 14 | 4 << 8;
const ROUNDS: u64 = 1000;

/// How CPU 1 sleeps.
static SLEEP: AtomicU64 = AtomicU64::new(AWAKE);
const AWAKE: u64 = 0;
const ASLEEP: u64 = 1;

/// Sleeps, interrupts off, until an NMI has come. A kick of the hypervisor's ends HLT, too, as it is behind the HLT that
/// AMD's CPUs leave the guest then.
fn sleep_deaf() {
    let own = apic::id();
    let before = counters::nmis(own);
    SLEEP.store(ASLEEP, Ordering::Release);
    while counters::nmis(own) == before {
        // SAFETY: an NMI ends it.
        unsafe { asm!("cli", "hlt", options(nostack)) };
    }
    SLEEP.store(AWAKE, Ordering::Release);
}

fn send(apic_id: u32) {
    // SAFETY: both CPUs have a handler for NMIs.
    unsafe { apic::send_nmi(apic_id) };
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(400);
    let pair = Pair::start(machine)?;
    let Pair { own, peer, .. } = pair;
    let counts = || (counters::nmis(own), counters::nmis(peer));

    send(peer);
    pair.wait(|| counts().1 == 1)?;
    pair.settle();
    claims.about("an NMI to the other arrives once", counts() == (0, 1), counts().0, counts().1);
    // SAFETY: as in `send`.
    unsafe { write_msr(ICR, NMI_TO_OTHERS) };
    pair.wait(|| counts().1 == 2)?;
    pair.settle();
    claims.about("an NMI to all but self arrives once", counts() == (0, 2), counts().0, counts().1);
    send(own);
    pair.wait(|| counts().0 == 1)?;
    pair.settle();
    claims.about("an NMI to oneself arrives once", counts() == (1, 2), counts().0, counts().1);
    claims.holds("CPU 0's handler has its own stack", tables::in_nmi_stack(0, counters::nmi_stack(own)));
    claims.holds("CPU 1's handler has its own stack", tables::in_nmi_stack(1, counters::nmi_stack(peer)));

    pending(&mut claims, &pair)?;
    from_sleep(&mut claims, &pair)?;
    in_a_row(&mut claims, "of a thousand NMIs to the other none is lost", &pair, own, peer)?;
    in_a_row(&mut claims, "of a thousand NMIs to oneself none is lost", &pair, peer, own)?;
    claims.equal("no handler of CPU 0 was interrupted", counters::nested_nmis(own), 0);
    claims.equal("no handler of CPU 1 was interrupted", counters::nested_nmis(peer), 0);
    Ok(())
}

/// While the handler runs, one more waits for its IRET, and only one.
fn pending(claims: &mut Claims, pair: &Pair) -> Result<(), Error> {
    for (sent, text) in [(1, "one NMI waits for the IRET"), (2, "two are one"), (5, "five are one")] {
        let before = counters::nmis(pair.peer);
        counters::hold_nmi(pair.peer, true);
        send(pair.peer);
        pair.wait(|| counters::in_nmi(pair.peer))?;
        for _ in 0..sent {
            send(pair.peer);
            pair.settle();
        }
        claims.equal("none comes before the IRET", counters::nmis(pair.peer), before + 1);
        counters::hold_nmi(pair.peer, false);
        pair.wait(|| counters::nmis(pair.peer) > before + 1)?;
        pair.settle();
        claims.equal(text, counters::nmis(pair.peer), before + 2);
    }
    Ok(())
}

fn from_sleep(claims: &mut Claims, pair: &Pair) -> Result<(), Error> {
    let before = counters::nmis(pair.peer);
    pair.begin(sleep_deaf);
    pair.wait(|| SLEEP.load(Ordering::Acquire) == ASLEEP)?;
    pair.settle();
    claims.equal("CPU 1 sleeps until an NMI comes", SLEEP.load(Ordering::Acquire), ASLEEP);
    send(pair.peer);
    pair.wait(|| SLEEP.load(Ordering::Acquire) == AWAKE)?;
    claims.equal("an NMI wakes it, interrupts off", counters::nmis(pair.peer), before + 1);
    Ok(())
}

fn in_a_row(claims: &mut Claims, text: &str, pair: &Pair, other: u32, target: u32) -> Result<(), Error> {
    let before = (counters::nmis(other), counters::nmis(target));
    for round in 1..=ROUNDS {
        send(target);
        partita_rt::wait_until(1, || {
            relax();
            counters::nmis(target) - before.1 >= round && !counters::in_nmi(target)
        })?;
    }
    pair.settle();
    claims.equal(text, counters::nmis(target) - before.1, ROUNDS);
    claims.equal("  the other has none", counters::nmis(other), before.0);
    Ok(())
}
