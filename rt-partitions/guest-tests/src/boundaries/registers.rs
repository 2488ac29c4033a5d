//! What an instruction leaves in the registers, in each mode.

use super::enter::{Mode, RDX, Registers, State};
use super::events::drain;
use super::instruction::{AtUser, Instruction};
use super::noted;
use crate::claims::Claims;
use crate::trap::{self, GENERAL_PROTECTION, INVALID_OPCODE, Trap};

/// CF, PF, AF, ZF, SF, OF.
const STATUS: u64 = 0x8D5;
const DIRECTION: u64 = 1 << 10;
/// IOPL 3.
const IO_PRIVILEGE: u64 = 3 << 12;
const RFLAGS_RF: u64 = 1 << 16;
/// Of a register that 32-bit code leaves in 64-bit mode the upper half is nobody's.
const LOW: u64 = 0xFFFF_FFFF;

/// What became of an instruction.
struct Outcome {
    before: State,
    after: trap::Interrupted,
    end: Trap,
}

fn execute(instruction: &Instruction, mode: Mode, rflags: u64) -> Outcome {
    let mut state = State::new(mode);
    instruction.prepare(&mut state);
    state.rflags |= rflags;
    noted::forget();
    trap::forget();
    state.execute(&[instruction.code]);
    Outcome { end: trap::get(0), after: state.after(), before: state }
}

impl Outcome {
    /// It has been executed, and the UD2 behind it has not.
    fn is_behind(&self, instruction: &Instruction) -> bool {
        self.end.vector == INVALID_OPCODE && self.end.rip == self.before.begins_at() + instruction.len()
    }

    fn has(&self, registers: &Registers, mask: u64) -> bool {
        self.after.registers.iter().zip(registers).all(|(found, expected)| (found ^ expected) & mask == 0)
            && (self.after.rsp ^ self.before.rsp) & mask == 0
            && (self.end.rflags ^ self.before.rflags) & !RFLAGS_RF == 0
            && self.before.vectors == self.before.vectors_after
    }

    /// Registers that are expected behind the instruction.
    fn expected(&self, instruction: &Instruction, mode: Mode) -> Registers {
        let mut expected = instruction.result(&self.before.registers);
        if !matches!(mode, Mode::Long | Mode::User) {
            expected[RDX] ^= (expected[RDX] ^ self.after.registers[RDX]) & instruction.varies_with_mode();
        }
        expected
    }

    /// The first register that is not as expected, for a message.
    fn found(&self, registers: &Registers, mask: u64) -> (u64, u64) {
        let pairs = self.after.registers.iter().zip(registers);
        let flags = (self.end.rflags, self.end.rip);
        pairs.map(|(found, expected)| (found & mask, expected & mask)).find(|(a, b)| a != b).unwrap_or(flags)
    }
}

/// All claims about one instruction. Gives how often it was executed.
pub(super) fn claim(claims: &mut Claims, instruction: &Instruction) -> u64 {
    let mut executed = 0;
    for (rflags, text) in
        [(0, "  it leaves all registers as it should"), (STATUS | DIRECTION, "  and with other flags")]
    {
        let outcome = execute(instruction, Mode::Long, rflags);
        let expected = outcome.expected(instruction, Mode::Long);
        let (left, right) = outcome.found(&expected, u64::MAX);
        let sent = drain() == instruction.sends_to_itself();
        claims.about(text, outcome.is_behind(instruction) && outcome.has(&expected, u64::MAX) && sent, left, right);
        executed += 1;
    }
    for (mode, text) in [(Mode::Kernel32, "  in 32-bit code, too"), (Mode::Kernel16, "  in 16-bit code, too")] {
        if mode == Mode::Kernel16 && !instruction.has_no_operand_size() {
            continue;
        }
        let outcome = execute(instruction, mode, STATUS);
        let expected = outcome.expected(instruction, mode);
        let (left, right) = outcome.found(&expected, LOW);
        let sent = drain() == instruction.sends_to_itself();
        claims.about(text, outcome.is_behind(instruction) && outcome.has(&expected, LOW) && sent, left, right);
        executed += 1;
    }
    for (mode, mask) in [(Mode::User, u64::MAX), (Mode::User32, LOW)] {
        user(claims, instruction, mode, mask);
    }
    executed
}

/// At privilege level 3, where it works.
fn works_for_user(claims: &mut Claims, text: &str, instruction: &Instruction, mode: Mode, mask: u64, rflags: u64) {
    let outcome = execute(instruction, mode, rflags);
    let expected = outcome.expected(instruction, mode);
    let (left, right) = outcome.found(&expected, mask);
    claims.about(text, outcome.is_behind(instruction) && outcome.has(&expected, mask), left, right);
}

/// At privilege level 3.
fn user(claims: &mut Claims, instruction: &Instruction, mode: Mode, mask: u64) {
    let vector = match instruction.at_user() {
        AtUser::Works => {
            works_for_user(claims, "  it works in user code", instruction, mode, mask, STATUS | DIRECTION);
            return;
        }
        AtUser::Protected => GENERAL_PROTECTION,
        AtUser::Unknown => INVALID_OPCODE,
    };
    if instruction.is_io() {
        let text = "  it works in user code that may access ports";
        works_for_user(claims, text, instruction, mode, mask, STATUS | IO_PRIVILEGE);
    }
    let outcome = execute(instruction, mode, STATUS | DIRECTION);
    let is_refused =
        outcome.end.vector == vector && outcome.end.rip == outcome.before.begins_at() && outcome.end.error == 0;
    let holds = is_refused && outcome.has(&outcome.before.registers, mask) && drain() == 0;
    claims.about("  user code cannot execute it", holds, outcome.end.vector, outcome.end.rip);
}
