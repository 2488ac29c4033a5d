//! Single steps and NMIs: neither loses the other, and what the hypervisor steps over by itself does not show.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::{Error, apic};

use crate::claims::Claims;
use crate::counters;
use crate::peer::Pair;
use crate::trap::{self, DEBUG, DR6_CLEAR};

/// Iterations that are stepped one by one.
const STEPS: u64 = 20_000;
/// NMIs that come in between.
const NMIS: u64 = 40;

static TRAPS: AtomicU64 = AtomicU64::new(0);
static DR6: AtomicU64 = AtomicU64::new(0);

fn send_nmi(pair: &Pair) {
    // SAFETY: CPU 1 counts NMIs.
    unsafe { apic::send_nmi(pair.peer) };
}

fn clear_dr6() {
    // SAFETY: nobody waits for what it says.
    unsafe { asm!("mov dr6, {}", in(reg) DR6_CLEAR, options(nomem, nostack, preserves_flags)) };
}

fn read_dr6() {
    let dr6: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack, preserves_flags)) };
    DR6.store(dr6, Ordering::Release);
}

fn step() {
    trap::begin();
    trap::go_on_after(DEBUG);
    // SAFETY: each #DB goes on.
    unsafe {
        asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "2: pause", "loop 2b",
            "pushfq", "and qword ptr [rsp], -0x101", "popfq", inout("rcx") STEPS => _);
    }
    let count = trap::count();
    trap::end();
    TRAPS.store(count, Ordering::Release);
}

/// The claims, about CPU 1.
pub(crate) fn test(claims: &mut Claims, pair: &Pair) -> Result<(), Error> {
    pair.call(clear_dr6)?;
    let before = counters::nmis(pair.peer);
    counters::hold_nmi(pair.peer, true);
    send_nmi(pair);
    pair.wait(|| counters::in_nmi(pair.peer))?;
    send_nmi(pair);
    pair.settle();
    counters::hold_nmi(pair.peer, false);
    pair.wait(|| counters::nmis(pair.peer) == before + 2)?;
    pair.settle();
    pair.call(read_dr6)?;
    claims.equal("an NMI right behind another leaves nothing in DR6", DR6.load(Ordering::Acquire), DR6_CLEAR);

    let before = counters::nmis(pair.peer);
    pair.begin(step);
    let mut inside = 0;
    for sent in 1..=NMIS {
        send_nmi(pair);
        pair.wait(|| counters::nmis(pair.peer) == before + sent)?;
        inside += u64::from(TRAPS.load(Ordering::Acquire) == 0);
    }
    pair.wait(|| TRAPS.load(Ordering::Acquire) != 0)?;
    claims.about("NMIs come amid single steps", inside > 0, inside, NMIS);
    // PUSHFQ, AND and POPFQ are stepped over, too.
    claims.equal("  and no step is lost, or there twice", TRAPS.load(Ordering::Acquire), STEPS * 2 + 3);
    Ok(())
}
