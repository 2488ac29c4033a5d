//! The I/O APIC, of which the hypervisor uses one input: COM1's (82093AA data sheet, section 3).

use partita_x86_bare::discover::InterruptLine;

/// Offset of the register that selects another.
const SELECT: u64 = 0x00;
/// Offset of the window to the selected register.
const DATA: u64 = 0x10;
/// Number of the version register, whose bits 23:16 are the highest input.
const VERSION: u32 = 1;
/// Number of the first register of the redirection table, two for each input.
const REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;
/// Physical destinations have eight bits, of which all ones mean all CPUs.
const DESTINATIONS: u32 = 0xFF;

/// Bytes of the registers.
pub const LEN: u64 = 0x20;

struct Registers(u64);

impl Registers {
    fn read(&self, number: u32) -> u32 {
        // SAFETY: the registers are mapped, by the contract of `route`.
        unsafe {
            ((self.0 + SELECT) as *mut u32).write_volatile(number);
            ((self.0 + DATA) as *const u32).read_volatile()
        }
    }

    fn write(&self, number: u32, value: u32) {
        // SAFETY: as above.
        unsafe {
            ((self.0 + SELECT) as *mut u32).write_volatile(number);
            ((self.0 + DATA) as *mut u32).write_volatile(value);
        }
    }
}

/// Routes a line to a vector of one CPU. `false` if the I/O APIC has no such input, or cannot reach the CPU.
///
/// # Safety
/// The I/O APIC's registers are mapped one to one, uncached, and used by nobody else meanwhile; the vector has a handler.
pub unsafe fn route(line: InterruptLine, vector: u8, apic_id: u32) -> bool {
    let registers = Registers(line.io_apic);
    let highest = registers.read(VERSION) >> 16 & 0xFF;
    if line.input > highest || apic_id >= DESTINATIONS {
        return false;
    }
    let low = REDIRECTION + 2 * line.input;
    let trigger = if line.is_level { LEVEL } else { 0 } | if line.is_low { ACTIVE_LOW } else { 0 };
    registers.write(low, MASKED);
    registers.write(low + 1, apic_id << 24);
    registers.write(low, trigger | u32::from(vector));
    true
}
