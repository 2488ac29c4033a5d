//! Storms of exits of every kind, on all vCPUs at once.

use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_abi::hypercall::NOP;
use partita_x86_bare::{apic, relax, write_msr};
use partita_x86_policy::icr::ICR_MSR;

use super::hypercalls::hypercall;
use crate::Orders;
use crate::console::fail;
use crate::cpus::{start_other, wait_until};
use crate::gates::{DB, GP, NOTHING, UD, attempt, guard, open, read_msr};
use crate::random::Random;
use crate::tables::CPUS;
use crate::tally::Tally;

/// Exits of one kind in a row.
const BURST: u64 = 64;
const STEPS_DEFAULT: u64 = 1000;
const SMI: u64 = 1 << 14 | 2 << 8;
/// A vector of which the real-time guest counts each interrupt.
const FIXED: u64 = 1 << 14 | 0x51;
const MCG_STATUS: u32 = 0x17A;
const ABSENT: u32 = 0xC001_0114;
const UNOWNED: u16 = 0x1234;
const KINDS: u64 = 16;

static SEED: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);
/// What vCPU 1 has: tries, faults, accesses, IPIs, and whether it is done.
static OTHER: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
static IDS: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];

fn id(number: usize) -> u64 {
    IDS.get(number).map_or(0, |id| id.load(Ordering::Relaxed))
}

fn icr(value: u64) -> u64 {
    crate::gates::write_msr(ICR_MSR, value)
}

/// One exit of a kind: whether it gave what it had to, and how many accesses and IPIs it was refused.
fn exit(kind: u64) -> (bool, u64, u64) {
    let (own, all) = (u64::from(apic::id()) << 32, [id(0) << 32, id(1) << 32]);
    let other = if own == all[0] { all[1] } else { all[0] };
    match kind {
        0 => (__cpuid(0).eax >= 1, 0, 0),
        1 => (read_msr(MCG_STATUS) == Ok(0), 0, 0),
        2 => (read_msr(ABSENT) == Err(GP), 1, 0),
        3 => (crate::gates::write_msr(MCG_STATUS, 1) == NOTHING, 1, 0),
        4 => (crate::gates::write_msr(ABSENT, 1) == GP, 1, 0),
        5 => {
            let (value, caught): (u32, u64);
            caught = attempt!(["in eax, dx"], in("dx") UNOWNED, out("eax") value);
            (caught == NOTHING && value == u32::MAX, 1, 0)
        }
        6 => (attempt!(["out dx, al"], in("dx") UNOWNED, in("al") 1u8) == NOTHING, 1, 0),
        7 => {
            (attempt!(["rep outsb"], in("dx") UNOWNED, inout("rcx") 9u64 => _, inout("rsi") 0x1000u64 => _) == GP, 1, 0)
        }
        8 => (hypercall(NOP.into(), 0, 0) == Ok(0), 0, 0),
        9 => (hypercall(0x1234, 0, 0) == Ok(u64::MAX), 1, 0),
        10 => (icr(own | FIXED) == NOTHING, 0, 0),
        11 => (icr(other | FIXED) == NOTHING, 0, 0),
        12 => (icr(other | SMI) == NOTHING, 0, 1),
        13 => {
            // SAFETY: both vCPUs have a handler for NMIs.
            unsafe { write_msr(ICR_MSR, other | 1 << 14 | 4 << 8) };
            (true, 0, 0)
        }
        14 => (attempt!(["vmrun rax"], in("rax") 0u64) == UD, 1, 0),
        _ => (attempt!([".byte 0xF1"]) == DB, 0, 0),
    }
}

fn storm(tally: &mut Tally, mut random: Random) {
    for _ in 0..STEPS.load(Ordering::Relaxed) {
        let kind = random.below(KINDS);
        for _ in 0..BURST {
            let before = guard().nmis();
            let (is_right, accesses, ipis) = exit(kind);
            tally.tries += 1;
            tally.accesses += accesses;
            tally.ipis += ipis;
            tally.check(is_right, format_args!("kind {kind}, {} NMIs meanwhile", guard().nmis() - before));
        }
        open();
    }
}

fn storm_of_other() -> ! {
    let mut tally = Tally::default();
    storm(&mut tally, Random::new(SEED.load(Ordering::Relaxed) ^ 1));
    let counts = [tally.tries, tally.faults, tally.accesses, tally.ipis, 1 + u64::from(!tally.is_clean())];
    for (place, count) in OTHER.iter().zip(counts) {
        place.store(count, Ordering::Release);
    }
    loop {
        open();
        relax();
    }
}

/// `steps` bursts on each vCPU.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let [own, other] = orders.ids[..] else { fail(format_args!("the attack needs two vCPUs")) };
    for (place, id) in IDS.iter().zip([own, other]) {
        place.store(id.into(), Ordering::Relaxed);
    }
    SEED.store(orders.seed, Ordering::Relaxed);
    STEPS.store(orders.steps_or(STEPS_DEFAULT), Ordering::Relaxed);
    start_other(other, storm_of_other);
    storm(tally, orders.random());
    let [tries, faults, accesses, ipis, done] = OTHER.each_ref();
    wait_until("vCPU 1 does not come to its end", || {
        open();
        done.load(Ordering::Acquire) != 0
    });
    let load = |count: &AtomicU64| count.load(Ordering::Acquire);
    tally.tries += load(tries);
    tally.faults += load(faults);
    tally.accesses += load(accesses);
    tally.ipis += load(ipis);
    tally.check(load(done) == 1, format_args!("vCPU 1 had wrong answers"));
}
