//! Leaves x2APIC mode, disables its local APIC, moves its page: a way in each life, because it stops the partition.

use core::arch::asm;

use partita_x86_bare::{relax, write_msr};
use partita_x86_policy::msr_values::APIC_PAGE;

use crate::console::print;
use crate::gates::{GP, NOTHING};
use crate::tally::Tally;
use crate::{Orders, gates};

const APIC_BASE: u32 = 0x1B;
const SPURIOUS: u32 = 0x80F;
const TPR: u32 = 0x808;
const BOOT: u64 = 1 << 8;
const X2APIC: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;
const AS_IT_IS: u64 = APIC_PAGE | ENABLE | X2APIC | BOOT;

/// What stops the partition.
const WAYS: [u64; 16] = [
    // Disabled, back to xAPIC mode, x2APIC mode without being enabled, nothing at all.
    AS_IT_IS & !(ENABLE | X2APIC),
    AS_IT_IS & !X2APIC,
    AS_IT_IS & !ENABLE,
    0,
    BOOT,
    ENABLE,
    X2APIC,
    ENABLE | BOOT,
    // The page at 0, below and above this memory, over the hypervisor's, at the end of memory and of addresses.
    ENABLE | X2APIC | BOOT,
    AS_IT_IS ^ APIC_PAGE ^ 0x10_0000,
    AS_IT_IS ^ APIC_PAGE ^ 0x4000_0000,
    AS_IT_IS + 0x1000,
    AS_IT_IS - 0x1000,
    AS_IT_IS | 1 << 32,
    AS_IT_IS | 1 << 51,
    AS_IT_IS ^ APIC_PAGE ^ 0x000F_FFFF_FFFF_F000,
];

/// Values that get #GP, or change nothing.
fn survivable(orders: &Orders, tally: &mut Tally) {
    for bit in (0..8).chain([9]).chain(52..64) {
        let caught = gates::write_msr(APIC_BASE, AS_IT_IS | 1 << bit);
        tally.check(caught == GP, format_args!("reserved bit {bit}: exception {caught}"));
        tally.tries += 1;
        tally.faults += 1;
        tally.accesses += 1;
    }
    for value in [AS_IT_IS, AS_IT_IS & !BOOT] {
        let caught = gates::write_msr(APIC_BASE, value);
        tally.check(caught == NOTHING, format_args!("the same value: exception {caught}"));
        tally.tries += 1;
    }
    let read = gates::read_msr(APIC_BASE);
    tally.check(read == Ok(AS_IT_IS), format_args!("APIC_BASE reads as {read:x?}"));
    print(format_args!("hostile: {}: survived {tally}\n", orders.name));
}

/// A way in each life, and in between lives that switch the local APIC off by its own registers, which the guest may: the
/// hypervisor has to take the pCPU back from them, too.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    if orders.life == 1 {
        survivable(orders, tally);
    }
    let index = orders.life - 1;
    if index % 4 == 3 {
        orders.say(format_args!("off by its own register"));
        // SAFETY: no interrupt is needed here.
        unsafe {
            write_msr(TPR, 0xFF);
            write_msr(SPURIOUS, 0);
            asm!("cli");
        }
        loop {
            relax();
        }
    }
    let value = WAYS.get((index / 4 * 3 + index % 4) as usize % WAYS.len()).copied().unwrap_or(0);
    orders.say(format_args!("write {value:#x}"));
    tally.tries += 1;
    let caught = gates::write_msr(APIC_BASE, value);
    tally.wrong(format_args!("APIC_BASE took {value:#x}: exception {caught}"));
}
