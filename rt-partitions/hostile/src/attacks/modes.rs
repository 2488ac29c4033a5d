//! What is tried in each mode of the CPU beside 64-bit code of privilege level 0.

use super::gives::Gives::{self, Exception, LeftOut, Nothing, Refused};
use super::mode_rows::{POINTER, ROWS};
use super::ports::{input_gives, is_own, output_gives};
use crate::Orders;
use crate::console;
use crate::excursion::{self, After, DATA_AT, Mode, Registers};
use crate::gates::{BACK, GP, NMI, NOTHING};
use crate::random::Random;
use crate::tables::{self, MAPPED_PORTS};
use crate::tally::Tally;

/// Ports of the machine: interrupt controllers, timers, keyboard, clock, system control, SMI, PCI, serial ports, those about
/// the end of the map in the task state, power management, QEMU's own, the last.
#[rustfmt::skip]
const PORTS: [u16; 36] = [
    0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xA0, 0xB2, 0xB3, 0xCF8, 0xCFC, 0x1F0, 0x2E8, 0x2F7,
    0x3E8, 0x3F7, 0x3F8, 0x3F9, 0x3FF, 0x3FD, 0x3FE, 0x400, 0x402, 0x510, 0x511, 0x600, 0x604, 0x605, 0x5658, 0xFFFC, 0xFFFF,
];
const OPERAND_SIZE: u8 = 0x66;
const REP: u8 = 0xF3;
const PATTERN: u64 = 0x5566_7788;
const DATA_LEN: usize = 64;
/// Error code of an INT n that may not: the vector, in the interrupt table.
const IN_IDT: u64 = 2;

/// How code comes to ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortAccess {
    /// By its privilege.
    Free,
    /// Not at all.
    Denied,
    /// By the map in the task state.
    Mapped,
}

impl PortAccess {
    /// Whether an access gets past the CPU.
    fn allows(self, port: u16, size: u8) -> bool {
        match self {
            Self::Free => true,
            Self::Denied => false,
            Self::Mapped => u32::from(port) + u32::from(size) <= MAPPED_PORTS.into(),
        }
    }
}

/// Tries of each kind.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) instructions: u64,
    pub(super) interrupts: u64,
    pub(super) ports: u64,
    /// Accesses to its own console, those that would end the partition, and reads of the clock.
    pub(super) left_out: u64,
    /// NMIs that came.
    pub(super) nmis: u64,
}

impl Counts {
    /// Says them.
    pub(super) fn say(&self, orders: &Orders) {
        let Self { instructions, interrupts, ports, left_out, nmis } = self;
        orders.count(format_args!(
            "{instructions} instructions, {interrupts} interrupts, {ports} accesses to ports, {left_out} left out, {nmis} NMIs"
        ));
    }
}

/// Tries in one mode.
pub(super) struct Sweep<'a> {
    pub(super) mode: Mode,
    pub(super) tally: &'a mut Tally,
    pub(super) counts: &'a mut Counts,
}

impl Sweep<'_> {
    /// Executes bytes, and compares what an exception pushed with what it should.
    fn execute(&mut self, name: &str, iopl: u64, bytes: &[u8], before: &Registers) -> After {
        let after = excursion::execute(self.mode, iopl, bytes, before.rdx == POINTER, before);
        let has_code = matches!(after.caught, 8 | 10..=14 | 17) && !matches!(bytes, [0xCD, ..]);
        let pushed = match self.mode {
            Mode::Protected | Mode::Virtual8086 if has_code => 4,
            // INT n without the right to is a fault, which has one.
            Mode::Virtual8086 if after.caught == GP => 4,
            _ => 0,
        };
        self.tally.check(
            after.pushed == pushed,
            format_args!("{:?}: {name}: exception {} pushed {} more bytes", self.mode, after.caught, after.pushed),
        );
        after
    }

    /// One instruction.
    pub(super) fn check(&mut self, name: &str, iopl: u64, bytes: &[u8], [rax, rcx, rdx]: [u64; 3], gives: Gives) {
        let before = Registers { rax, rcx, rdx, ..Registers::default() };
        let after = self.execute(name, iopl, bytes, &before);
        self.counts.instructions += 1;
        gives.note(self.tally, format_args!("{:?}: {name}", self.mode), after.caught, after.rax);
        let is_right = gives != Refused || self.mode == Mode::Real || after.error_code == 0;
        self.tally.check(is_right, format_args!("{:?}: {name}: error code {:#x}", self.mode, after.error_code));
    }

    /// All that the list has.
    pub(super) fn rows(&mut self) {
        for row in ROWS {
            let gives = row.gives(self.mode);
            if gives != LeftOut {
                self.check(row.0, 0, row.1, row.2, gives);
            }
        }
    }

    /// All INT n but the one that comes back. `is_allowed`: none is refused by the CPU, else each, with its vector in the error
    /// code if `has_vector`.
    pub(super) fn interrupts(&mut self, iopl: u64, is_allowed: bool, has_vector: bool) {
        for vector in 0..=0xFF {
            // The handler of long mode takes vector 2 for an NMI, and returns.
            let is_nmi = u64::from(vector) == NMI && self.mode == Mode::Kernel32;
            if u64::from(vector) == BACK {
                continue;
            }
            let after = self.execute("INT", iopl, &[0xCD, vector], &Registers::default());
            self.counts.interrupts += 1;
            let gives = match (is_allowed, is_nmi) {
                (_, true) => Nothing,
                (true, _) => Exception(vector.into()),
                (false, _) => Exception(GP),
            };
            gives.note(self.tally, format_args!("{:?}: INT {vector}", self.mode), after.caught, after.rax);
            let code = if has_vector { u64::from(vector) << 3 | IN_IDT } else { 0 };
            let is_right = is_allowed || after.error_code == code;
            let error_code = after.error_code;
            self.tally.check(is_right, format_args!("{:?}: INT {vector}: error code {error_code:#x}", self.mode));
        }
    }

    /// Ports of the machine, and some others, by all widths and all string forms.
    pub(super) fn ports(&mut self, random: &mut Random, iopl: u64, access: PortAccess, others: u64) {
        tables::show_io_map(access == PortAccess::Mapped);
        for port in PORTS {
            self.port(iopl, access, port, random.next());
        }
        for _ in 0..others {
            self.port(iopl, access, random.next() as u16, random.next());
        }
        tables::show_io_map(false);
    }

    /// The bytes of IN, OUT (2 more), INS or OUTS for this many bytes.
    fn form(&self, opcode: u8, size: u8, rep: bool) -> ([u8; 3], usize) {
        let mut bytes = [0; 3];
        let prefix = (size == 2 && !self.mode.is_16_bit()) || (size == 4 && self.mode.is_16_bit());
        let all = [(rep, REP), (prefix, OPERAND_SIZE), (true, opcode | u8::from(size > 1))];
        let mut len = 0;
        for ((_, byte), place) in all.iter().filter(|(is_there, _)| *is_there).zip(&mut bytes) {
            *place = *byte;
            len += 1;
        }
        (bytes, len)
    }

    fn port(&mut self, iopl: u64, access: PortAccess, port: u16, value: u64) {
        const IN: u8 = 0xEC;
        const OUT: u8 = 0xEE;
        const STRINGS: [(u8, bool); 4] = [(0x6C, false), (0x6E, false), (0x6C, true), (0x6E, true)];
        let console = console::base();
        let registers = |rax| Registers { rax, rcx: 3, rdx: port.into(), rsi: DATA_AT, rdi: DATA_AT };
        for size in [1, 2, 4] {
            let allowed = access.allows(port, size);
            if allowed && (1..=4).any(|size| is_own(console, port, size)) {
                self.counts.left_out += (2 + STRINGS.len()) as u64;
                continue;
            }
            let input = input_gives(size, port, PATTERN);
            let output = output_gives(size, port, value);
            for (opcode, rax, gives) in
                [(IN, PATTERN, input), (OUT, value, output.map(|is_refused| (value, is_refused)))]
            {
                // Where the CPU denies it, it may be anything.
                if allowed && gives.is_none() {
                    self.counts.left_out += 1;
                    continue;
                }
                let (bytes, len) = self.form(opcode, size, false);
                let after = self.execute("a port", iopl, bytes.get(..len).unwrap_or(&[]), &registers(rax));
                self.note(allowed, gives.is_some_and(|(_, is_refused)| is_refused), after.caught);
                let (mode, found, rax) = (self.mode, after.caught, after.rax);
                let is_right = match gives {
                    Some((expected, _)) if allowed => found == NOTHING && rax as u32 == expected as u32,
                    _ => found == GP,
                };
                self.tally.check(
                    is_right,
                    format_args!("{mode:?}: {opcode:#x} of {size} at {port:#x}: exception {found}, RAX {rax:#x}"),
                );
            }
            for (opcode, rep) in STRINGS {
                let (bytes, len) = self.form(opcode, size, rep);
                let before: [u8; DATA_LEN] = excursion::read(DATA_AT);
                let after = self.execute("a string form", iopl, bytes.get(..len).unwrap_or(&[]), &registers(value));
                self.note(allowed, true, after.caught);
                let (mode, caught, same) = (self.mode, after.caught, before == excursion::read(DATA_AT));
                self.tally.check(
                    caught == GP && same,
                    format_args!("{mode:?}: {opcode:#x} of {size}, REP {rep}, at {port:#x}: exception {caught}"),
                );
            }
        }
    }

    fn note(&mut self, allowed: bool, is_refused: bool, caught: u64) {
        self.tally.tries += 1;
        self.counts.ports += 1;
        self.tally.faults += u64::from(caught != NOTHING);
        self.tally.accesses += u64::from(allowed && is_refused);
    }
}
