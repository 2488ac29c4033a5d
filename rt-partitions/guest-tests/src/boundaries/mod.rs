//! What is behind an instruction: the hypervisor that executes it for its guest ends it as a CPU does. An interrupt, a single step, or a
//! breakpoint comes at its boundary, once; the registers are as it leaves them, and nothing else has changed.
//!
//! On the bare machine the same holds, so that what is expected can be compared with what CPUs do.

mod enter;
mod events;
mod instruction;
mod noted;
mod prefixes;
mod registers;

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use instruction::Instruction;
use partita_rt::{Error, Machine, apic, println};

use crate::claims::Claims;
use crate::peer::Pair;
use crate::{catch, counters, sse, trap};

/// Looks within which an interrupt arrives at the other CPU.
const LOOKS: u32 = 1000;
/// CR4.OSXSAVE.
const CR4_XSAVE: u64 = 1 << 18;
/// The bit of ECX that CPUID 1 tells of it by.
const OSXSAVE: u32 = 27;

fn has_xsave() -> bool {
    __cpuid(1).ecx >> 26 & 1 == 1
}

fn switch_on_xsave() {
    if has_xsave() {
        // SAFETY: lets the kernel execute XGETBV and XSETBV.
        unsafe { asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, in(reg) CR4_XSAVE, options(nostack)) };
    }
}

fn switch_off_xsave() {
    // SAFETY: nothing here uses what XSAVE has to be on for.
    unsafe { asm!("mov {0}, cr4", "and {0}, {1}", "mov cr4, {0}", out(reg) _, in(reg) !CR4_XSAVE, options(nostack)) };
}

/// CPUID tells whether CR4.OSXSAVE is set, each time that it changes. Leaves it set.
fn xsave_shows(claims: &mut Claims) {
    if !has_xsave() {
        return;
    }
    let mut wrong = 0;
    for _ in 0..2 {
        switch_off_xsave();
        wrong += u64::from(__cpuid(1).ecx >> OSXSAVE & 1);
        switch_on_xsave();
        wrong += u64::from(!__cpuid(1).ecx >> OSXSAVE & 1);
    }
    claims.equal("CPUID 1 follows CR4.OSXSAVE", wrong, 0);
}

/// What the second CPU has to know: the first one's x2APIC ID, and whether they are a partition's.
static OTHER: AtomicU32 = AtomicU32::new(0);
/// See [`OTHER`].
static IN_PARTITION: AtomicBool = AtomicBool::new(false);

fn prepare() {
    noted::watch();
    sse::switch_on();
    switch_on_xsave();
    trap::begin();
    enter::prepare();
    events::prepare();
}

/// All claims about one instruction; `other` is the x2APIC ID of the other CPU.
fn claim(claims: &mut Claims, instruction: &Instruction, other: u32, in_partition: bool) {
    println!("{}", instruction.text);
    let arrived = || counters::count(counters::FIRST_VECTOR, other);
    let before = arrived();
    let nmis = || counters::nmis(apic::id());
    let nmis_before = nmis();
    let executed = events::claim(claims, instruction) + registers::claim(claims, instruction);
    if instruction.sends_to_other() {
        // Two of them can be one at the other CPU.
        let has_all = (0..LOOKS).any(|_| {
            catch::open();
            arrived() == before + executed
        });
        let count = arrived() - before;
        claims.about("  it arrives at the other CPU", has_all || (1..executed).contains(&count), count, executed);
    }
    if instruction.sends_nmi() {
        claims.equal("  the NMI comes once", nmis() - nmis_before, executed);
    }
    if !in_partition || instruction.tells_its_end() {
        prefixes::claim(claims, instruction);
    }
}

/// Of the second CPU: what depends on which CPU it is.
fn on_second() {
    let (other, in_partition) = (OTHER.load(Ordering::Relaxed), IN_PARTITION.load(Ordering::Relaxed));
    let mut claims = Claims::from(4800);
    prepare();
    let all = instruction::all(in_partition, apic::id(), other);
    for instruction in all.filter(Instruction::depends_on_cpu) {
        claim(&mut claims, &instruction, other, in_partition);
    }
    trap::end();
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(4000);
    let in_partition = machine.place.is_partition();
    OTHER.store(apic::id(), Ordering::Relaxed);
    IN_PARTITION.store(in_partition, Ordering::Relaxed);
    noted::install();
    let pair = Pair::start(machine)?;
    prepare();
    xsave_shows(&mut claims);
    for instruction in instruction::all(in_partition, pair.own, pair.peer) {
        claim(&mut claims, &instruction, pair.peer, in_partition);
    }
    trap::end();
    pair.call(on_second)
}
