//! I/O ports that the partition owns, and those beside them.

use core::arch::asm;

use partita_rt::{Error, Machine};
use x86_64::instructions::port::{Port, PortRead, PortWrite};

use crate::checked::{Claims, between_marks};

/// The emulator's isa-debug-exit has two ports; they read 0.
const EXIT: u16 = 0x501;
/// The emulator's debugcon has one port; it reads its own number.
const DEBUGCON: u16 = 0xE9;
/// Eight ports with nothing behind.
const SPARE: u16 = 0x310;
/// Accesses of each kind that must not leave the guest.
const TIMES: u64 = 1000;

fn input<T: PortRead + Into<u64>>(port: u16) -> u64 {
    // SAFETY: a port of the partition, or one that the hypervisor answers for.
    unsafe { Port::<T>::new(port).read() }.into()
}

fn output<T: PortWrite>(port: u16, value: T) {
    // SAFETY: as above; none of them has an effect on memory.
    unsafe { Port::new(port).write(value) };
}

/// Ports that it owns are reached, the others refused.
pub(crate) fn range(_: &Machine, _: u64) -> Result<(), Error> {
    let mut claims = Claims::from(100);
    claims.equal("the debugcon reads its number", input::<u8>(DEBUGCON), DEBUGCON.into());
    claims.equal("  the port before it is not owned", input::<u8>(DEBUGCON - 1), 0xFF);
    claims.equal("  nor is the one behind it", input::<u8>(DEBUGCON + 1), 0xFF);
    claims.equal("  a word over its end is refused", input::<u16>(DEBUGCON), 0xFFFF);
    claims.equal("the first port of the debug exit reads 0", input::<u8>(EXIT), 0);
    claims.equal("  its second port, too", input::<u8>(EXIT + 1), 0);
    claims.equal("  both together, too", input::<u16>(EXIT), 0);
    claims.equal("  the port before it is not owned", input::<u8>(EXIT - 1), 0xFF);
    claims.equal("  nor is the one behind it", input::<u8>(EXIT + 2), 0xFF);
    claims.equal("  a word over its start is refused", input::<u16>(EXIT - 1), 0xFFFF);
    claims.equal("  a word over its end is refused", input::<u16>(EXIT + 1), 0xFFFF);
    claims.equal("  a double word over its end is refused", input::<u32>(EXIT), 0xFFFF_FFFF);
    let mut bytes = [0u8; 4];
    // SAFETY: reads four bytes from a port of the partition into the array.
    unsafe {
        asm!("cld", "rep insb", in("dx") DEBUGCON, inout("rdi") bytes.as_mut_ptr() => _, inout("rcx") bytes.len() => _,
            options(nostack));
    }
    claims.equal("string input works", u32::from_le_bytes(bytes).into(), 0xE9E9_E9E9);

    let mut sum = 0;
    between_marks(TIMES, || {
        sum += input::<u8>(EXIT) + input::<u16>(EXIT) + input::<u8>(DEBUGCON);
        for port in SPARE..SPARE + 8 {
            output(port, 0x55u8);
            input::<u8>(port);
        }
        for port in (SPARE..SPARE + 8).step_by(2) {
            output(port, 0x5555u16);
            input::<u16>(port);
        }
        for port in (SPARE..SPARE + 8).step_by(4) {
            output(port, 0x5555_5555u32);
            input::<u32>(port);
        }
    });
    claims.equal("each access came to its device", sum, TIMES * u64::from(DEBUGCON));
    claims.equal("the port before the spare ones is not owned", input::<u8>(SPARE - 1), 0xFF);
    claims.equal("  nor is the one behind them", input::<u8>(SPARE + 8), 0xFF);
    Ok(())
}

/// Text for the debugcon.
pub(crate) fn debugcon(_: &Machine, _: u64) -> Result<(), Error> {
    let text = b"debugcon: hello\n";
    let [first, rest @ ..] = text;
    output(DEBUGCON, *first);
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
    output(EXIT, value as u16);
    claims.equal("the emulator has ended before this", 0, 1);
    Ok(())
}
