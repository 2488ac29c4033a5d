//! Entries of the local vector table in every mode, forbidden and reserved ones among them, on a local APIC that is switched
//! on and off meanwhile.

use partita_x86_bare::write_msr;
use partita_x86_policy::msr_values::{lvt_timer_write, lvt_write};

use crate::Orders;
use crate::gates::{self, GP, NOTHING, open};
use crate::tally::Tally;
use crate::vendor::here;

const CMCI: u32 = 0x82F;
const TIMER: u32 = 0x832;
const ENTRIES: [u32; 5] = [0x833, 0x834, 0x835, 0x836, 0x837];
/// LINT0 and LINT1.
const LINES: [u32; 2] = [0x835, 0x836];
const TIMER_INITIAL: u32 = 0x838;
const SPURIOUS: u32 = 0x80F;
const SELF_IPI: u32 = 0x83F;
const TPR: u32 = 0x808;
const MODE: u64 = 7 << 8;
const MASKED: u64 = 1 << 16;
/// What a local APIC sets by itself: delivery status, remote IRR.
const STATUS: u64 = 1 << 12 | 1 << 14;
/// Polarity and trigger mode.
const LINE: u64 = 1 << 13 | 1 << 15;
const APIC_ON: u64 = 1 << 8 | 0xFF;
const APIC_OFF: u64 = 0xFF;
/// Vectors that hardware does not send; some of the real-time guest's, and of the hypervisor's; the last.
const VECTORS: [u64; 9] = [0, 2, 15, 16, 0x41, 0x50, 0x51, 0xF0, 0xFF];
const STEPS_DEFAULT: u64 = 20_000;
/// In ticks; so that even an emulator gets on between two interrupts.
const TIMER_MIN: u64 = 20_000;

fn entry(tally: &mut Tally, msr: u32, value: u64) {
    let caught = gates::write_msr(msr, value);
    let allowed = if msr == TIMER {
        lvt_timer_write(value).map(|value| (value, false))
    } else {
        lvt_write(value).map(|lvt| (lvt.value, lvt.refused))
    };
    tally.tries += 1;
    tally.faults += u64::from(caught != NOTHING);
    let (expected, refused) = allowed.map_or((GP, true), |(_, refused)| (NOTHING, refused));
    tally.accesses += u64::from(refused);
    tally.check(caught == expected, format_args!("LVT {msr:#x} of {value:#x}: exception {caught}"));
    let shown = gates::read_msr(msr).unwrap_or(u64::MAX);
    // The timer has its mode where the others have nothing, and no delivery mode.
    tally.check(shown & MODE == 0, format_args!("LVT {msr:#x} of {value:#x} shows {shown:#x}"));
    if let Ok((written, _)) = allowed {
        // Only lines have a polarity and a trigger mode; Bochs keeps those bits elsewhere, too.
        let free = if LINES.contains(&msr) { STATUS } else { here([STATUS, STATUS | LINE]) };
        // Switched off, a local APIC masks all.
        let is_it = |shown: u64| (shown ^ written) & !free & !MASKED == 0 && shown & MASKED >= written & MASKED;
        tally.check(is_it(shown), format_args!("LVT {msr:#x} of {value:#x} shows {shown:#x}, not {written:#x}"));
    }
    // SAFETY: masks it; the timer's next entry may have another vector.
    unsafe { write_msr(msr, MASKED) };
}

/// Every mode of every entry, then any value.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let mut random = orders.random();
    for enabled in [APIC_ON, APIC_OFF] {
        // SAFETY: every vector has its handler.
        unsafe { write_msr(SPURIOUS, enabled) };
        for msr in ENTRIES.into_iter().chain([TIMER]) {
            for flags in 0..1 << 9 {
                // Delivery mode, status, polarity, remote IRR, trigger, mask, or the timer's mode.
                let vector = random.one_of(&VECTORS);
                entry(tally, msr, flags << 8 | vector);
            }
        }
    }
    for _ in 0..orders.steps_or(STEPS_DEFAULT) {
        let enabled = if random.below(8) == 0 { APIC_OFF } else { APIC_ON };
        // SAFETY: every vector has its handler; the timer does not come so often that nothing else happens.
        unsafe {
            write_msr(SPURIOUS, enabled);
            write_msr(TPR, 0);
            write_msr(TIMER_INITIAL, TIMER_MIN + random.below(1 << 24));
            // Vectors below 16 are errors, for which there is an interrupt, too.
            write_msr(SELF_IPI, random.below(256));
        }
        let msr = if random.below(4) == 0 { TIMER } else { random.one_of(&ENTRIES) };
        entry(tally, msr, random.any());
        let caught = gates::write_msr(CMCI, random.any());
        tally.check(caught == GP, format_args!("LVT CMCI: exception {caught}"));
        tally.accesses += 1;
        open();
    }
    // SAFETY: stops the timer.
    unsafe { write_msr(TIMER_INITIAL, 0) };
}
