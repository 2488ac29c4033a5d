//! Prefixes before an instruction.

use super::enter::{Mode, State};
use super::events::drain;
use super::instruction::Instruction;
use crate::claims::Claims;
use crate::trap::{self, INVALID_OPCODE};

/// What an instruction eats that is entered too early.
const NOPS: &[u8] = &[0x90; 16];
/// Operand size, address size, segments of ES, FS; REP, REPNE; REX, REX.W.
const PREFIXES: [&[u8]; 9] = [&[0x66], &[0x67], &[0x26], &[0x64], &[0xF3], &[0xF2], &[0x40], &[0x48], &[0x66, 0xF3]];

/// With each of them, one at a time and two, the CPU goes on behind the instruction, or does not know it.
pub(super) fn claim(claims: &mut Claims, instruction: &Instruction) {
    let mut wrong = PREFIXES.iter().filter_map(|prefix| {
        let mut state = State::new(Mode::Long);
        instruction.prepare(&mut state);
        let begin = state.begins_at();
        trap::forget();
        state.execute(&[prefix, instruction.code, NOPS]);
        let trap = trap::get(0);
        drain();
        let behind = begin + (prefix.len() + instruction.code.len() + NOPS.len()) as u64;
        let is_right = trap.vector == INVALID_OPCODE && (trap.rip == behind || trap.rip == begin);
        (!is_right).then(|| (u64::from(prefix[0]), trap.rip.wrapping_sub(begin)))
    });
    let found = wrong.next();
    let (prefix, offset) = found.unwrap_or_default();
    claims.about("  prefixes are passed with it", found.is_none(), prefix, offset);
}
