//! I/O ports that the partition owns, and those beside them.

use core::arch::asm;

use partita_rt::{Error, Machine};

use crate::checked::{Claims, between_marks};

/// The emulator's isa-debug-exit has two ports; they read 0.
const EXIT: u16 = 0x501;
/// The emulator's debugcon has one port; it reads its own number.
const DEBUGCON: u16 = 0xE9;
/// Eight ports with nothing behind.
const SPARE: u16 = 0x300;
/// Accesses of each kind that must not leave the guest.
const TIMES: u64 = 1000;

macro_rules! port_access {
    ($input:ident, $output:ident, $type:ty, $register:literal) => {
        fn $input(port: u16) -> u64 {
            let value: $type;
            // SAFETY: a port of the partition, or one that the hypervisor answers for.
            unsafe { asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value, options(nomem, nostack)) };
            value.into()
        }

        fn $output(port: u16, value: $type) {
            // SAFETY: as above; none of them has an effect on memory.
            unsafe { asm!(concat!("out dx, ", $register), in("dx") port, in($register) value, options(nomem, nostack)) };
        }
    };
}
port_access!(in_byte, out_byte, u8, "al");
port_access!(in_word, out_word, u16, "ax");
port_access!(in_double, out_double, u32, "eax");

/// Ports that it owns are reached, the others refused.
pub(crate) fn range(_: &Machine, _: u64) -> Result<(), Error> {
    let mut claims = Claims::from(100);
    claims.equal("the debugcon reads its number", in_byte(DEBUGCON), DEBUGCON.into());
    claims.equal("  the port before it is not owned", in_byte(DEBUGCON - 1), 0xFF);
    claims.equal("  nor is the one behind it", in_byte(DEBUGCON + 1), 0xFF);
    claims.equal("  a word over its end is refused", in_word(DEBUGCON), 0xFFFF);
    claims.equal("the first port of the debug exit reads 0", in_byte(EXIT), 0);
    claims.equal("  its second port, too", in_byte(EXIT + 1), 0);
    claims.equal("  both together, too", in_word(EXIT), 0);
    claims.equal("  the port before it is not owned", in_byte(EXIT - 1), 0xFF);
    claims.equal("  nor is the one behind it", in_byte(EXIT + 2), 0xFF);
    claims.equal("  a word over its start is refused", in_word(EXIT - 1), 0xFFFF);
    claims.equal("  a word over its end is refused", in_word(EXIT + 1), 0xFFFF);
    claims.equal("  a double word over its end is refused", in_double(EXIT), 0xFFFF_FFFF);
    let mut bytes = [0u8; 4];
    // SAFETY: reads four bytes from a port of the partition into the array.
    unsafe {
        asm!("cld", "rep insb", in("dx") DEBUGCON, inout("rdi") bytes.as_mut_ptr() => _, inout("rcx") bytes.len() => _,
            options(nostack));
    }
    claims.equal("string input works", u32::from_le_bytes(bytes).into(), 0xE9E9_E9E9);

    let mut sum = 0;
    between_marks(TIMES, || {
        sum += in_byte(EXIT) + in_word(EXIT) + in_byte(DEBUGCON);
        for port in SPARE..SPARE + 8 {
            out_byte(port, 0x55);
            in_byte(port);
        }
        for port in (SPARE..SPARE + 8).step_by(2) {
            out_word(port, 0x5555);
            in_word(port);
        }
        for port in (SPARE..SPARE + 8).step_by(4) {
            out_double(port, 0x5555_5555);
            in_double(port);
        }
    });
    claims.equal("each access came to its device", sum, TIMES * u64::from(DEBUGCON));
    claims.equal("the port before the spare ones is not owned", in_byte(SPARE - 1), 0xFF);
    claims.equal("  nor is the one behind them", in_byte(SPARE + 8), 0xFF);
    Ok(())
}

/// Text for the debugcon.
pub(crate) fn debugcon(_: &Machine, _: u64) -> Result<(), Error> {
    let text = b"debugcon: hello\n";
    let [first, rest @ ..] = text;
    out_byte(DEBUGCON, *first);
    // SAFETY: writes these bytes to a port of the partition.
    unsafe {
        asm!("cld", "rep outsb", in("dx") DEBUGCON, inout("rsi") rest.as_ptr() => _, inout("rcx") rest.len() => _,
            options(nostack, readonly));
    }
    Claims::from(200).equal("the text is written", text.len() as u64, 16);
    Ok(())
}

/// The end of the emulator.
pub(crate) fn exit(_: &Machine, value: u64) -> Result<(), Error> {
    let mut claims = Claims::from(300);
    claims.equal("about to end the emulator", value, value);
    out_word(EXIT, value as u16);
    claims.equal("the emulator has ended before this", 0, 1);
    Ok(())
}
