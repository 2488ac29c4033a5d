//! Reads and writes every model-specific register, and compares with the policy.

use core::arch::x86_64::__cpuid;
use core::ops::RangeInclusive;

use partita_x86_policy::msr::{MsrPolicy, MsrRead, MsrWrite, TIMER_COUNT_MSR};
use partita_x86_policy::msr_values::{
    ApicBaseWrite, apic_base_read, apic_base_write, efer_writable, efer_write, lvt_timer_write, lvt_write,
};

use crate::Orders;
use crate::gates::{self, GP, NOTHING};
use crate::random::Random;
use crate::tally::Tally;
use crate::vendor::backend;

const EFER: u32 = 0xC000_0080;
const LEAF_EXTENDED_FEATURES: u32 = 0x8000_0001;
/// The ranges that SVM's permission map knows; the policy is about them.
const RANGES: [RangeInclusive<u32>; 3] = [0..=0x1FFF, 0xC000_0000..=0xC000_1FFF, 0xC001_0000..=0xC001_1FFF];
/// An ICR command that is refused whatever the partition: an SMI.
const SMI: u64 = 1 << 14 | 2 << 8;
/// Registers outside of the ranges, if nothing was said.
const ANY_DEFAULT: u64 = 4096;

/// What a write is to give: the exception, and whether it is counted as refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    caught: u64,
    refused: bool,
}

const TAKEN: Expected = Expected { caught: NOTHING, refused: false };
const IGNORED: Expected = Expected { caught: NOTHING, refused: true };
const REFUSED: Expected = Expected { caught: GP, refused: true };

const fn taken_or_refused(is_taken: bool) -> Expected {
    if is_taken { TAKEN } else { REFUSED }
}

/// The hypervisor's, for this CPU.
fn policy() -> MsrPolicy {
    MsrPolicy::new(true).on(backend())
}

/// What a write is to give, `None` if that is the CPU's matter, or would stop the partition.
fn expected(msr: u32, value: u64, old: u64) -> Option<Expected> {
    Some(match policy().write(msr) {
        MsrWrite::Pass | MsrWrite::Icr => return None,
        MsrWrite::Zero if value == 0 => return None,
        MsrWrite::Gp | MsrWrite::Zero => REFUSED,
        MsrWrite::Ignore => IGNORED,
        MsrWrite::Lvt => lvt_write(value).map_or(REFUSED, |lvt| if lvt.refused { IGNORED } else { TAKEN }),
        MsrWrite::LvtTimer => taken_or_refused(lvt_timer_write(value).is_ok()),
        MsrWrite::ApicBase => match apic_base_write(value) {
            ApicBaseWrite::Same => TAKEN,
            ApicBaseWrite::Gp => REFUSED,
            ApicBaseWrite::LeavesX2apic | ApicBaseWrite::MovesPage => return None,
        },
        MsrWrite::Efer => {
            let features = __cpuid(LEAF_EXTENDED_FEATURES);
            taken_or_refused(efer_write(old, value, true, efer_writable(features.ecx, features.edx)).is_ok())
        }
    })
}

fn read(tally: &mut Tally, msr: u32) -> u64 {
    let found = gates::read_msr(msr);
    tally.tries += 1;
    tally.faults += u64::from(found.is_err());
    let rule = policy().read(msr);
    let is_right = match rule {
        MsrRead::Gp => found == Err(GP) && gates::guard().error_code() == 0,
        MsrRead::Value(value) => found == Ok(value),
        MsrRead::ApicBase => found == Ok(apic_base_read(0)),
        MsrRead::Efer => found.is_ok(),
        MsrRead::Pass | MsrRead::TimerCount => true,
    };
    tally.accesses += u64::from(rule == MsrRead::Gp);
    tally.check(is_right, format_args!("RDMSR {msr:#x} gave {found:x?}, by the policy {rule:?}"));
    found.unwrap_or(0)
}

/// Tries of each kind.
#[derive(Default)]
struct Counts {
    reads: u64,
    writes: u64,
    /// Writes that would stop the partition.
    left_out: u64,
    icr: u64,
}

fn write(tally: &mut Tally, counts: &mut Counts, msr: u32, value: u64, old: u64) {
    let rule = policy().write(msr);
    let expected = expected(msr, value, old);
    if expected.is_none() && rule != MsrWrite::Pass {
        counts.left_out += 1;
        return;
    }
    counts.writes += 1;
    let caught = gates::write_msr(msr, value);
    tally.tries += 1;
    tally.faults += u64::from(caught != NOTHING);
    let Some(expected) = expected else { return };
    tally.accesses += u64::from(expected.refused);
    tally.check(
        caught == expected.caught,
        format_args!("WRMSR {msr:#x} of {value:#x} gave exception {caught}, by the policy {rule:?}"),
    );
    if rule == MsrWrite::Efer && caught == NOTHING {
        let shown = gates::read_msr(EFER);
        tally.check(shown == Ok(value | 1 << 10), format_args!("EFER shows {shown:x?} after a write of {value:#x}"));
    }
}

fn both(tally: &mut Tally, counts: &mut Counts, random: &mut Random, msr: u32) {
    let old = read(tally, msr);
    counts.reads += 1;
    if policy().write(msr) == MsrWrite::Icr {
        let caught = gates::write_msr(msr, SMI);
        tally.check(caught == NOTHING, format_args!("an SMI by the ICR gave exception {caught}"));
        tally.tries += 1;
        tally.ipis += 1;
        counts.icr += 1;
        return;
    }
    for value in [random.next(), random.any(), 0, u64::MAX, old ^ 1 << random.below(64)] {
        write(tally, counts, msr, value, old);
    }
    // What it can write it writes back: the attack goes on with it.
    write(tally, counts, msr, old, old);
}

/// All that the permission map knows, and any others. Interrupts stay off: self-IPIs of any vector are among it.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let mut random = orders.random();
    let (mut listed, mut others) = (Counts::default(), Counts::default());
    for msr in RANGES.into_iter().flatten() {
        // By instruction count an emulator aborts at it unless it is trapped.
        if msr != TIMER_COUNT_MSR {
            both(tally, &mut listed, &mut random, msr);
        }
    }
    let is_known = |msr: u32| RANGES.iter().any(|range| range.contains(&msr));
    for _ in 0..orders.steps_or(ANY_DEFAULT) {
        let msr = random.any() as u32;
        if !is_known(msr) {
            both(tally, &mut others, &mut random, msr);
        }
    }
    let Counts { reads, writes, left_out, icr } = listed;
    orders.count(format_args!(
        "{reads} reads, {writes} writes, {left_out} left out, {icr} by the ICR; of others: {} reads, {} writes",
        others.reads, others.writes
    ));
}
