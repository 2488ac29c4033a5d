//! Storms of exits of every kind, on all vCPUs at once.

use core::sync::atomic::{AtomicU64, Ordering};

use partita_x86_bare::relax;

use super::exits::{KINDS, Pair, prepare};
use crate::Orders;
use crate::console::fail;
use crate::cpus::{start_other, wait_until};
use crate::gates::open;
use crate::random::Random;
use crate::tables::CPUS;
use crate::tally::{Shared, Tally};

/// Exits of one kind in a row.
const BURST: u64 = 64;
const STEPS_DEFAULT: u64 = 1000;

static SEED: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);
/// What vCPU 1 counted.
static OTHER: Shared = Shared::new();
static IDS: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];

fn storm(tally: &mut Tally, mut random: Random) {
    prepare();
    let pair = Pair::new(IDS.each_ref().map(|id| id.load(Ordering::Relaxed) as u32));
    for _ in 0..STEPS.load(Ordering::Relaxed) {
        if let Some(kind) = KINDS.get(random.below(KINDS.len() as u64) as usize) {
            for _ in 0..BURST {
                kind.try_on(pair, tally);
            }
        }
        open();
    }
}

fn storm_of_other() -> ! {
    let mut tally = Tally::default();
    storm(&mut tally, Random::new(SEED.load(Ordering::Relaxed) ^ 1));
    OTHER.publish(&tally);
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
    wait_until("vCPU 1 does not come to its end", || {
        open();
        OTHER.is_done()
    });
    OTHER.add_to(tally);
}
