//! INITs and start-up IPIs to the other vCPU, over and over: amid its start, amid its exits, interrupts and NMIs. What it does
//! is taken or is an exception of its own, so that no count depends on when it is cut short; the other attacker tries
//! everything meanwhile.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_x86_bare::application::STARTUP_PAGE;
use partita_x86_bare::{apic, relax};

use super::exits::{KINDS, Kind, Pair, prepare};
use crate::Orders;
use crate::console::fail;
use crate::cpus::{start_other, starts};
use crate::gates::open;
use crate::random::Random;
use crate::tables::CPUS;
use crate::tally::Tally;

const STEPS_DEFAULT: u64 = 5000;
/// Where it starts.
const PAGE: u8 = (STARTUP_PAGE >> 12) as u8;
/// IPIs of a step, at most, and the longest time between two, in looks at nothing.
const IPIS_MAX: u64 = 4;
const PAUSE_MAX: u64 = 3000;
/// After one step in so many it waits for the life to begin; or so many looks, if the IPIs met none that waits.
const SEEN_ONE_IN: u64 = 8;
const LOOKS_MAX: u64 = 100_000;

static IDS: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
static SEED: AtomicU64 = AtomicU64::new(0);
/// Things that lives of vCPU 1 tried, and those that gave a wrong answer.
static TRIED: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);

fn any_kind(random: &mut Random) -> Option<&'static Kind> {
    KINDS.get(random.below(KINDS.len() as u64) as usize)
}

fn pair() -> Pair {
    Pair::new(IDS.each_ref().map(|id| id.load(Ordering::Relaxed) as u32))
}

/// A life of vCPU 1: each has other things to do.
fn live() -> ! {
    prepare();
    let pair = pair();
    let mut random = Random::new(SEED.load(Ordering::Relaxed) ^ starts() << 32);
    loop {
        if let Some(kind) = any_kind(&mut random).filter(|kind| kind.is_uncounted()) {
            let is_right = kind.is_right(pair);
            TRIED.fetch_add(1, Ordering::Relaxed);
            WRONG.fetch_add(u64::from(!is_right), Ordering::Relaxed);
        }
        open();
    }
}

fn rest() -> ! {
    loop {
        open();
        relax();
    }
}

/// `steps` times some IPIs.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let [own, other] = orders.ids[..] else { fail(format_args!("the attack needs two vCPUs")) };
    for (place, id) in IDS.iter().zip([own, other]) {
        place.store(id.into(), Ordering::Relaxed);
    }
    SEED.store(orders.seed, Ordering::Relaxed);
    prepare();
    let (mut random, pair) = (orders.random(), pair());
    let (mut inits, mut startups) = (0, 0);
    start_other(other, live);
    for _ in 0..orders.steps_or(STEPS_DEFAULT) {
        for _ in 0..=random.below(IPIS_MAX) {
            // SAFETY: vCPU 1 begins anew whatever it does, on its own stack; its start-up page was filled before.
            unsafe {
                if random.below(2) == 0 {
                    apic::send_init(other);
                    inits += 1;
                } else {
                    apic::send_startup(other, PAGE);
                    startups += 1;
                }
            }
            (0..random.below(PAUSE_MAX)).for_each(|look| {
                black_box(look);
            });
        }
        if random.below(SEEN_ONE_IN) == 0 {
            let before = starts();
            // SAFETY: as above.
            unsafe {
                apic::send_init(other);
                apic::send_startup(other, PAGE);
            }
            (inits, startups) = (inits + 1, startups + 1);
            for _ in (0..LOOKS_MAX).take_while(|_| starts() == before) {
                relax();
            }
        }
        if let Some(kind) = any_kind(&mut random) {
            kind.try_on(pair, tally);
        }
        open();
    }
    // It is itself again.
    start_other(other, rest);
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    tally.check(load(&WRONG) == 0, format_args!("vCPU 1 had {} wrong answers", load(&WRONG)));
    orders.count(format_args!(
        "{inits} INITs, {startups} start-up IPIs, {} lives, {} tries in them",
        starts(),
        load(&TRIED)
    ));
}
