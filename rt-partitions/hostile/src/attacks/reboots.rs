//! Reboots at once, in each life, by all vCPUs at the same time: the reset register and the keyboard controller's.

use core::arch::asm;

use partita_abi::guest::{RESET_NOW, RESET_PORT};
use partita_x86_bare::relax;

use crate::Orders;
use crate::cpus::start_other;
use crate::tally::Tally;

const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xFE;

fn write(port: u16, value: u8) {
    // SAFETY: ends this life.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

fn reset() -> ! {
    loop {
        write(KEYBOARD_COMMAND, KEYBOARD_RESET);
        relax();
    }
}

/// Each second life has the other vCPU reboot, too.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    orders.say(format_args!("about to reboot"));
    if let [_, other] = orders.ids[..]
        && orders.life.is_multiple_of(2)
    {
        start_other(other, reset);
    }
    write(RESET_PORT, RESET_NOW);
    tally.wrong(format_args!("it has not rebooted"));
}
