//! Device memory that the partition owns: the emulator's HPET (IA-PC HPET specification 1.0a, section 2.3).

use partita_rt::{Error, Machine};

use crate::checked::{Claims, between_marks};

const HPET: u64 = 0xFED0_0000;
/// General capabilities: revision, number of timers, vendor.
const CAPABILITIES: u64 = 0;
/// The tick's length in femtoseconds.
const PERIOD: u64 = 4;
const PERIOD_MAX: u64 = 0x05F5_E100;
const CONFIGURATION: u64 = 0x10;
const ENABLE: u32 = 1;
const COUNTER: u64 = 0xF0;
/// Accesses that must not leave the guest.
const TIMES: u64 = 1000;

fn read(offset: u64) -> u32 {
    // SAFETY: a register of the device that the partition owns; else this ends the partition, as it must.
    unsafe { ((HPET + offset) as *const u32).read_volatile() }
}

fn write(offset: u64, value: u32) {
    // SAFETY: as above; no register that is written here has an effect on memory.
    unsafe { ((HPET + offset) as *mut u32).write_volatile(value) };
}

/// The timer is there and counts.
pub(crate) fn hpet(_: &Machine, _: u64) -> Result<(), Error> {
    let mut claims = Claims::from(400);
    claims.equal("about to read the HPET", HPET, HPET);
    claims.equal("its vendor is Intel", u64::from(read(CAPABILITIES) >> 16), 0x8086);
    let period = u64::from(read(PERIOD));
    claims.about("its period is a possible one", (1..=PERIOD_MAX).contains(&period), period, PERIOD_MAX);
    write(CONFIGURATION, read(CONFIGURATION) | ENABLE);
    claims.equal("it can be enabled", u64::from(read(CONFIGURATION) & ENABLE), 1);
    let start = read(COUNTER);
    let mut vendors = 0;
    between_marks(TIMES, || vendors += u64::from(read(CAPABILITIES) >> 16 == 0x8086));
    claims.equal("each read came to the device", vendors, TIMES);
    let passed = read(COUNTER).wrapping_sub(start);
    claims.about("it counts", passed > 0, passed.into(), 1);
    write(CONFIGURATION, read(CONFIGURATION) & !ENABLE);
    claims.equal("it can be disabled", u64::from(read(CONFIGURATION) & ENABLE), 0);
    Ok(())
}
