//! The I/O port policy.

use core::arch::asm;

use partita_rt::{Error, Machine, Place};

use crate::catch::{GP, attempt};
use crate::claims::Claims;

/// Ports that a PC has and a partition does not: PIC, PIT, keyboard, SMI, COM1, ACPI, and one that nobody has.
const UNOWNED: [u16; 7] = [0x20, 0x40, 0x60, 0xB2, 0x3F8, 0x608, 0x1234];
const PATTERN: u64 = 0x1122_3344_5566_7788;
const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;
const SCRATCH: u16 = 7;
const LINE_STATUS: u16 = 5;
const TRANSMITTER_EMPTY: u64 = 0x60;
/// Looks within which it gets rid of two characters.
const LOOKS_AT_CONSOLE: u32 = 100_000;

/// IN, with RAX before as given.
fn input<const SIZE: usize>(port: u16, mut rax: u64) -> u64 {
    // SAFETY: reads a port that the hypervisor answers for, or a register of the partition's own serial port.
    unsafe {
        match SIZE {
            1 => asm!("in al, dx", in("dx") port, inout("rax") rax, options(nostack)),
            2 => asm!("in ax, dx", in("dx") port, inout("rax") rax, options(nostack)),
            _ => asm!("in eax, dx", in("dx") port, inout("rax") rax, options(nostack)),
        }
    }
    rax
}

fn output<const SIZE: usize>(port: u16, value: u32) {
    // SAFETY: as in `input`; none of these ports has an effect on memory.
    unsafe {
        match SIZE {
            1 => asm!("out dx, al", in("dx") port, in("eax") value, options(nostack)),
            2 => asm!("out dx, ax", in("dx") port, in("eax") value, options(nostack)),
            _ => asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)),
        }
    }
}

fn cmos(index: u8) -> u64 {
    output::<1>(CMOS_INDEX, index.into());
    input::<1>(CMOS_DATA, 0)
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(600);
    for port in UNOWNED {
        claims.equal("a byte reads all ones, the rest stays", input::<1>(port, PATTERN), PATTERN | 0xFF);
        claims.equal("a word reads all ones, the rest stays", input::<2>(port, PATTERN), PATTERN | 0xFFFF);
        claims.equal("a double word reads all ones", input::<4>(port, PATTERN), 0xFFFF_FFFF);
    }
    output::<1>(0xB2, 1);
    output::<2>(0x1234, 2);
    output::<4>(0x1234, 3);
    claims.holds("writes to them have no effect", true);

    let mut buffer = [0u8; 8];
    let place = buffer.as_mut_ptr();
    let caught = attempt!(["insb"], in("dx") 0x1234u16, inout("rdi") place => _);
    claims.equal("string input", caught, GP);
    let caught = attempt!(["rep outsb"], in("dx") 0x1234u16, inout("rsi") place => _, inout("rcx") 4u64 => _);
    claims.equal("repeated string output", caught, GP);

    for (index, value, text) in [
        (0x32, 0x20, "the clock knows the century"),
        (0x09, 0x26, "the clock knows the year"),
        (0x0D, 0x80, "its battery is good"),
        (0x0B, 0x02, "it counts 24 hours in BCD"),
    ] {
        claims.equal(text, cmos(index), value);
    }
    claims.equal("it is never being updated", cmos(0x0A) & 0x80, 0);
    output::<1>(0x80, 0x55);
    claims.equal("the POST port reads all ones", input::<1>(0x80, 0), 0xFF);
    output::<4>(0xCF8, 0x8000_0000);
    claims.equal("there is no PCI", input::<4>(0xCFC, 0), 0xFFFF_FFFF);

    if let Place::Partition(own) = machine.place
        && let Some(base) = own.console
    {
        output::<1>(base + SCRATCH, 0xA5);
        claims.equal("the console has its scratch register", input::<1>(base + SCRATCH, 0), 0xA5);
        // What was printed before may be on its way.
        let is_empty = || input::<1>(base + LINE_STATUS, 0) & TRANSMITTER_EMPTY == TRANSMITTER_EMPTY;
        claims.holds("the console is ready to print", (0..LOOKS_AT_CONSOLE).any(|_| is_empty()));
        claims.equal("its neighbours are not owned", input::<1>(base - 1, 0), 0xFF);
        claims.equal("  nor those behind", input::<1>(base + SCRATCH + 1, 0), 0xFF);
        claims.equal("an access over its end reads all ones", input::<2>(base + SCRATCH, 0), 0xFFFF);
        claims.equal("the scratch register is as it was", input::<1>(base + SCRATCH, 0), 0xA5);
    }
    Ok(())
}
