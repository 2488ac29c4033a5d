//! Two kicks of one CPU, or a kick and an exit, so many ticks apart: at every distance in turn, so that the second one hits
//! each instruction of the way out of the guest and back.
//!
//! CPU 0 sends CPU 1 an NMI, for which the hypervisor kicks it. The other kick is that of an SMP call which the housekeeping
//! core makes to CPU 1's pCPU a moment after one to CPU 0's own: CPU 0 notices its own by the time it takes, and sends its NMI
//! so many ticks behind that. The kicks do not heal each other at once, because the next call is far away: an NMI whose
//! kick was lost is late by that, and counted. In [`exits`] nobody calls: there a lost NMI stays away.
//!
//! When the kicks were sent is in the hypervisor's trace.

use core::arch::{asm, global_asm};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::{Error, Machine, apic, rdtsc, trace, wait_until};
use partita_trace::Event;

use crate::OPTIONS;
use crate::catch::open;
use crate::claims::Claims;
use crate::counters;
use crate::leave::Kind;
use crate::peer::{CPUS, Pair};

/// Mark at the begin of each part: the number of the state or kind, and of the bursts.
const MARK: u32 = 320;
/// Mark at the end of each part: the NMIs that came late, and the latest.
const END_MARK: u32 = 321;
/// A look at the clock takes longer than this only if the CPU was out of its guest.
const GAP_TICKS: u64 = 60;
/// From the end of the CPU's own call to its NMI, in ticks: to either side of the other's call.
const BEHIND_CALL: Range<u64> = 580..1200;
/// From the choice of an exit's time to the exit, and to the NMI: to either side of the exit, as the NMI leaves the guest first.
const EXIT_BEHIND: u64 = 700;
const NMI_BEHIND: Range<u64> = 440..840;
/// From the end of the CPU's own call to an INIT of the other: what that asks for takes longer.
const INIT_BEHIND_CALL: Range<u64> = 300..1200;
/// Where a CPU starts that only counts its starts, next to the runtime's start-up page; and where it does.
const START_PAGE: u64 = 0x9000;
const STARTS_AT: u64 = START_PAGE + 0x800;
/// Bursts in each state, and of each kind, unless the option says something else.
const BURSTS_DEFAULT: u64 = 1000;

global_asm!(
    r#"
    .section .rodata.bursts, "a", @progbits
    .code16
count_start:
    lock inc dword ptr cs:[0x800]
2:  pause
    jmp 2b
count_start_end:
    .code64
    .previous
    "#
);

unsafe extern "C" {
    static count_start: u8;
    static count_start_end: u8;
}

/// What CPU 1 does while the kicks come.
#[derive(Clone, Copy)]
enum State {
    Spin,
    Halt,
    Storm,
}

static STOP: AtomicU64 = AtomicU64::new(0);
static RUNS: AtomicU64 = AtomicU64::new(0);
/// When CPU 1 is to leave its guest, and for what.
static LEAVE_AT: AtomicU64 = AtomicU64::new(0);
static KIND: AtomicU64 = AtomicU64::new(0);

fn is_over() -> bool {
    STOP.load(Ordering::Acquire) != 0
}

fn run(turn: impl Fn()) {
    RUNS.store(1, Ordering::Release);
    while !is_over() {
        turn();
    }
    RUNS.store(0, Ordering::Release);
}

fn spin() {
    run(|| {});
}

fn halt() {
    // SAFETY: the NMI that follows the wish for an end ends it.
    run(|| unsafe { asm!("cli", "hlt", options(nomem, nostack)) });
}

fn storm() {
    run(|| Kind::Cpuid.leave(0));
}

/// One exit at each time that is set, and none else.
fn leave() {
    let (own, kind) = (apic::id(), Kind::from_number(KIND.load(Ordering::Acquire)));
    run(|| {
        let at = LEAVE_AT.load(Ordering::Acquire);
        if at != 0 && rdtsc() >= at {
            kind.leave(own);
            LEAVE_AT.store(0, Ordering::Release);
        }
    });
}

/// NMIs that came, and how late.
#[derive(Default)]
struct Lateness {
    sent: u64,
    late: u64,
    latest: u64,
}

/// Sends CPU 1 an NMI, and waits for it. If it is late, `heal` helps it.
fn send(pair: &Pair, limit: u64, lateness: &mut Lateness, heal: impl Fn()) -> Result<(), Error> {
    let before = counters::nmis(pair.peer);
    let start = rdtsc();
    // SAFETY: CPU 1 counts NMIs.
    unsafe { apic::send_nmi(pair.peer) };
    let has_come = || counters::nmis(pair.peer) != before && !counters::in_nmi(pair.peer);
    let ticks = || rdtsc().wrapping_sub(start);
    while !has_come() && ticks() <= limit {}
    if !has_come() {
        lateness.late += 1;
        heal();
        wait_until(1, has_come)?;
    }
    lateness.sent += 1;
    lateness.latest = lateness.latest.max(ticks());
    Ok(())
}

/// Waits until this CPU has been out of its guest, and gives the first time behind that.
fn await_own_call() -> u64 {
    let mut last = rdtsc();
    loop {
        let now = rdtsc();
        if now.wrapping_sub(last) > GAP_TICKS {
            return now;
        }
        last = now;
    }
}

/// One of these distances after the other, again and again.
fn nth(distances: &Range<u64>, burst: u64) -> u64 {
    distances.start + burst % (distances.end - distances.start)
}

fn await_time(time: u64) {
    while rdtsc() < time {}
}

/// Has CPU 1 run `job` while `bursts` goes on, and claims what came of that.
fn part(
    claims: &mut Claims,
    pair: &Pair,
    job: fn(),
    bursts: impl Fn(&mut Lateness) -> Result<(), Error>,
) -> Result<(), Error> {
    STOP.store(0, Ordering::Release);
    pair.begin(job);
    pair.wait(|| RUNS.load(Ordering::Acquire) == 1)?;
    pair.settle();
    let before = counters::nmis(pair.peer);
    let mut lateness = Lateness::default();
    bursts(&mut lateness)?;
    let came = counters::nmis(pair.peer) - before;
    trace::record(rdtsc(), Event::Mark { id: END_MARK, first: lateness.late, second: lateness.latest });
    claims.equal("each NMI came, and once", came, lateness.sent);
    claims.about("  none came late", lateness.late == 0, lateness.late, lateness.latest);
    STOP.store(1, Ordering::Release);
    // SAFETY: CPU 1 counts NMIs.
    unsafe { apic::send_nmi(pair.peer) };
    // Interrupts that it has sent itself come now.
    pair.wait(|| RUNS.load(Ordering::Acquire) == 0)?;
    pair.settle();
    Ok(())
}

fn mark(what: u64, bursts: u64) {
    trace::record(rdtsc(), Event::Mark { id: MARK, first: what, second: bursts });
}

/// How many bursts there are to be, and from how many ticks on an NMI is late.
fn settings(machine: &Machine) -> Result<(u64, u64), Error> {
    let options = machine.options(OPTIONS)?;
    let bursts = options.number("bursts", BURSTS_DEFAULT, 1..=1_000_000)?;
    Ok((bursts, options.number("limit", u64::MAX, 1..=u64::MAX)?))
}

/// NMIs around SMP calls: the claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let (bursts, limit) = settings(machine)?;
    let mut claims = Claims::from(4600);
    let pair = Pair::start(machine)?;
    for (state, job) in [(State::Spin, spin as fn()), (State::Halt, halt), (State::Storm, storm)] {
        part(&mut claims, &pair, job, |lateness| {
            mark(state as u64, bursts);
            for burst in 0..bursts {
                await_time(await_own_call() + nth(&BEHIND_CALL, burst));
                send(&pair, limit, lateness, open)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// NMIs around exits: the claims.
pub(crate) fn exits(machine: &Machine) -> Result<(), Error> {
    let (bursts, limit) = settings(machine)?;
    let mut claims = Claims::from(4700);
    let pair = Pair::start(machine)?;
    for kind in Kind::ALL {
        KIND.store(kind.number(), Ordering::Release);
        part(&mut claims, &pair, leave, |lateness| {
            mark(kind.number(), bursts);
            for burst in 0..bursts {
                let now = rdtsc();
                LEAVE_AT.store(now + EXIT_BEHIND, Ordering::Release);
                await_time(now + nth(&NMI_BEHIND, burst));
                send(&pair, limit, lateness, || LEAVE_AT.store(1, Ordering::Release))?;
                wait_until(1, || LEAVE_AT.load(Ordering::Acquire) == 0)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn start_count() -> u64 {
    // SAFETY: RAM that only this test uses, mapped one to one.
    u64::from(unsafe { (STARTS_AT as *const u32).read_volatile() })
}

/// INITs and start-up IPIs around SMP calls: the claims.
pub(crate) fn starts(machine: &Machine) -> Result<(), Error> {
    let (bursts, limit) = settings(machine)?;
    let mut claims = Claims::from(4800);
    let [_, peer, ..] = machine.apic_ids[..] else {
        return Err(Error::TooFewCpus { found: machine.apic_ids.len(), needed: CPUS });
    };
    let (code, end) = (&raw const count_start, &raw const count_start_end);
    // SAFETY: a page of RAM that nobody uses, mapped one to one.
    unsafe {
        core::ptr::copy_nonoverlapping(code, START_PAGE as *mut u8, end as usize - code as usize);
        (STARTS_AT as *mut u32).write_volatile(0);
    }
    let (mut late, mut latest) = (0_u64, 0);
    mark(0, bursts);
    for burst in 0..bursts {
        await_time(await_own_call() + nth(&INIT_BEHIND_CALL, burst));
        let (before, start) = (start_count(), rdtsc());
        // SAFETY: CPU 1 holds nothing that others wait for; the code is there.
        unsafe {
            apic::send_init(peer);
            apic::send_startup(peer, (START_PAGE >> 12) as u8);
        }
        wait_until(1, || start_count() != before)?;
        let ticks = rdtsc().wrapping_sub(start);
        late += u64::from(ticks > limit);
        latest = ticks.max(latest);
    }
    trace::record(rdtsc(), Event::Mark { id: END_MARK, first: late, second: latest });
    claims.equal("each start came, and once", start_count(), bursts);
    claims.about("  none came late", late == 0, late, latest);
    Ok(())
}
