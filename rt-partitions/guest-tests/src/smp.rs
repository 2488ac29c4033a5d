//! INIT and start-up of the second CPU, in whatever state it is.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::place::uses_vmmcall;
use partita_rt::{Error, Machine, apic, relax};
use partita_x86_bare::application::STARTUP_PAGE;
use partita_x86_bare::write_msr;

use crate::catch::open;
use crate::claims::Claims;
use crate::counters::{self, FIRST_VECTOR};
use crate::peer::{self, Pair};

/// Starts in each state.
const ROUNDS: u64 = 20;
const PAGE: u8 = (STARTUP_PAGE >> 12) as u8;
/// Its handler stays, without end of interrupt.
const STUCK_VECTOR: u8 = 0xE0;

/// x2APIC self-IPI.
const SELF_IPI: u32 = 0x83F;
/// An interrupt may have it, and it is an exception's in every table.
const ALIGNMENT_CHECK_VECTOR: u64 = 17;

static HEARTBEAT: AtomicU64 = AtomicU64::new(0);

fn beat() {
    HEARTBEAT.fetch_add(1, Ordering::Release);
}

fn beats() -> u64 {
    HEARTBEAT.load(Ordering::Acquire)
}

fn spin_enabled() {
    loop {
        beat();
        open();
    }
}

fn spin_disabled() {
    loop {
        beat();
        relax();
    }
}

fn halted() {
    loop {
        beat();
        // SAFETY: only an INIT ends it.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

fn exit_storm() {
    loop {
        beat();
        // Leaf 0 is handled by the quick way through an exit, leaf 1 by the other.
        core::hint::black_box(__cpuid(beats() as u32 & 1));
        relax();
    }
}

fn in_interrupt() {
    beat();
    // SAFETY: the interrupt's handler does not return.
    unsafe {
        apic::send_fixed(apic::id(), STUCK_VECTOR);
        asm!("sti", "2: pause", "jmp 2b", options(noreturn));
    }
}

fn exception_vector_pending() {
    // SAFETY: interrupts are off, and stay so until an INIT takes the vector away.
    unsafe { write_msr(SELF_IPI, ALIGNMENT_CHECK_VECTOR) };
    spin_disabled();
}

const STATES: [(fn(), &str); 6] = [
    (spin_enabled, "spinning, interrupts on"),
    (spin_disabled, "spinning, interrupts off"),
    (halted, "halted for ever"),
    (exit_storm, "in an exit storm"),
    (in_interrupt, "in an interrupt handler"),
    (exception_vector_pending, "with an exception's vector pending as an interrupt"),
];

fn init(pair: &Pair) {
    // SAFETY: CPU 1 holds nothing that others wait for.
    unsafe { apic::send_init(pair.peer) };
}

fn startup(pair: &Pair) {
    // SAFETY: the runtime left the start-up code there, with CPU 1's stack and entry.
    unsafe { apic::send_startup(pair.peer, PAGE) };
}

static SERVED: AtomicU64 = AtomicU64::new(0);

fn serve_once() {
    SERVED.fetch_add(1, Ordering::Release);
}

fn served() -> u64 {
    SERVED.load(Ordering::Acquire)
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(200);
    let pair = Pair::start(machine)?;
    claims.equal("INIT and SIPI start CPU 1 once", peer::starts(), 1);
    startup(&pair);
    pair.settle();
    pair.call(serve_once)?;
    claims.equal("a SIPI without INIT is ignored", peer::starts(), 1);
    claims.equal("CPU 1 goes on", served(), 1);

    // SAFETY: the handler saves nothing and does not return; only CPU 1 takes it, which is started anew then.
    unsafe { partita_rt::interrupts::set_handler(STUCK_VECTOR, stuck as *const u8) };
    for (state, text) in STATES {
        let before = peer::starts();
        for round in 1..=ROUNDS {
            let beating = beats();
            pair.begin(state);
            pair.wait(|| beats() > beating)?;
            init(&pair);
            startup(&pair);
            pair.wait(|| peer::starts() == before + round)?;
        }
        pair.settle();
        claims.equal(text, peer::starts() - before, ROUNDS);
        let (calls, interrupts) = (served(), counters::count(FIRST_VECTOR, pair.peer));
        pair.call(serve_once)?;
        claims.equal("  it serves after that", served() - calls, 1);
        // SAFETY: CPU 1 has a handler for the vector.
        unsafe { apic::send_fixed(pair.peer, FIRST_VECTOR) };
        pair.wait(|| counters::count(FIRST_VECTOR, pair.peer) > interrupts)?;
        pair.settle();
        claims.equal("  it takes interrupts", counters::count(FIRST_VECTOR, pair.peer) - interrupts, 1);
    }
    waiting(&mut claims, &pair)?;
    nmi_blocked(&mut claims, &pair)?;
    claims.equal("no NMI but those that were sent", counters::all_nmis(), counters::nmis(pair.peer));
    Ok(())
}

/// Between INIT and SIPI it does nothing, and nothing that is sent to it counts.
fn waiting(claims: &mut Claims, pair: &Pair) -> Result<(), Error> {
    let (starts, nmis) = (peer::starts(), counters::nmis(pair.peer));
    let beating = beats();
    pair.begin(spin_disabled);
    pair.wait(|| beats() > beating)?;
    init(pair);
    pair.settle();
    let beating = beats();
    pair.settle();
    claims.equal("after INIT CPU 1 does nothing", beats(), beating);
    // SAFETY: it has a handler for NMIs.
    unsafe { apic::send_nmi(pair.peer) };
    pair.settle();
    claims.equal("an NMI before the SIPI does not start it", peer::starts(), starts);
    init(pair);
    init(pair);
    startup(pair);
    startup(pair);
    pair.wait(|| peer::starts() > starts)?;
    pair.settle();
    claims.equal("two INITs and two SIPIs start it once", peer::starts(), starts + 1);
    claims.equal("the NMI was dropped", counters::nmis(pair.peer), nmis);
    Ok(())
}

/// An INIT ends the blocking of NMIs, too.
fn nmi_blocked(claims: &mut Claims, pair: &Pair) -> Result<(), Error> {
    let (starts, nmis) = (peer::starts(), counters::nmis(pair.peer));
    counters::hold_nmi(pair.peer, true);
    // SAFETY: CPU 1 has a handler for NMIs.
    unsafe { apic::send_nmi(pair.peer) };
    pair.wait(|| counters::in_nmi(pair.peer))?;
    init(pair);
    startup(pair);
    pair.wait(|| peer::starts() > starts)?;
    counters::hold_nmi(pair.peer, false);
    counters::forget_nmi(pair.peer);
    if !uses_vmmcall() {
        // Bochs 2.7 forgets at a VM entry that the guest's NMIs are blocked no longer: only an IRET tells it.
        pair.call(return_nowhere)?;
    }
    // SAFETY: as above.
    unsafe { apic::send_nmi(pair.peer) };
    pair.wait(|| counters::nmis(pair.peer) > nmis + 1)?;
    pair.settle();
    claims.equal("after an INIT in the NMI handler NMIs come", counters::nmis(pair.peer), nmis + 2);
    Ok(())
}

/// IRET to the next instruction.
fn return_nowhere() {
    // SAFETY: with the same stack, flags and segments.
    unsafe {
        asm!("mov {0}, rsp", "push 0x10", "push {0}", "pushfq", "push 0x08", "lea {0}, [rip + 2f]", "push {0}", "iretq", "2:",
            out(reg) _);
    }
}

#[unsafe(naked)]
extern "C" fn stuck() {
    core::arch::naked_asm!("lock inc qword ptr [rip + {heartbeat}]", "2: pause", "jmp 2b", heartbeat = sym HEARTBEAT)
}
