//! Interrupts, single steps and breakpoints at the boundary behind an instruction.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::apic;

use super::enter::{Mode, R12, State};
use super::instruction::Instruction;
use super::noted::{self, Note, PENDING, SENT};
use crate::claims::Claims;
use crate::tables::KERNEL_DATA;
use crate::trap::{self, DEBUG, DR6_CLEAR, INVALID_OPCODE, Trap};

const STI: &[u8] = &[0xFB];
const CLI: &[u8] = &[0xFA];
const NOP: &[u8] = &[0x90];
/// MOV SS, R12D.
const MOV_SS: &[u8] = &[0x41, 0x8E, 0xD4];
const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;
const RFLAGS_RF: u64 = 1 << 16;
const DR6_STEP: u64 = 1 << 14;
const DR7_CLEAR: u64 = 0x400;
/// Breakpoints 0 and 1, on instructions.
const DR7_TWO: u64 = DR7_CLEAR | 0b101;

/// What DR6 has to have besides, if a #DB has this reason; 0 where no reason is told.
static REASONS: AtomicU64 = AtomicU64::new(u64::MAX);

/// Asks whether DR6 has the reason of a #DB. Bochs' SVM exits for it before it writes there (docs/platforms.md).
pub(super) fn prepare() {
    let mut state = State::new(Mode::Long);
    state.rflags |= RFLAGS_TF;
    trap::go_on_after(DEBUG);
    state.execute(&[NOP]);
    REASONS.store(if trap::get(0).dr6 == DR6_CLEAR { 0 } else { u64::MAX }, Ordering::Relaxed);
}

/// Whether DR6 has this reason, and no other.
fn has_reason(trap: &Trap, reason: u64) -> bool {
    trap.dr6 & !reason == DR6_CLEAR & !reason
        && (trap.dr6 ^ (DR6_CLEAR | reason)) & REASONS.load(Ordering::Relaxed) == 0
}

/// Lets interrupts in that are pending. Gives how many came since [`noted::forget`].
pub(super) fn drain() -> u64 {
    // SAFETY: whatever may come has a handler that saves what it uses.
    unsafe { asm!("sti", "nop", "pause", "cli", options(nostack)) };
    noted::count()
}

fn set_breakpoints(first: u64, second: u64, control: u64) {
    // SAFETY: breakpoints have a handler.
    unsafe {
        asm!("mov dr7, {3}", "mov dr0, {0}", "mov dr1, {1}", "mov dr6, {4}", "mov dr7, {2}", in(reg) first, in(reg) second,
            in(reg) control, in(reg) DR7_CLEAR, in(reg) DR6_CLEAR, options(nostack, preserves_flags));
    }
}

/// The instruction's state, with other flags set.
fn state(instruction: &Instruction, rflags: u64) -> State {
    let mut state = State::new(Mode::Long);
    instruction.prepare(&mut state);
    state.rflags |= rflags;
    state.set_low(R12, KERNEL_DATA as u32);
    state
}

/// Executes it between these, and forgets what was noted before. Each #DB goes on.
fn execute(state: &mut State, before: &[u8], instruction: &Instruction, behind: &[&[u8]]) -> u64 {
    noted::forget();
    trap::go_on_after(DEBUG);
    let start = state.begins_at() + before.len() as u64;
    let [first, second] = [0, 1].map(|index| behind.get(index).copied().unwrap_or(&[]));
    state.execute(&[before, instruction.code, first, second]);
    start + instruction.len()
}

/// How the list of what came ends: by the UD2 behind it all, and nothing else.
fn ended(exceptions: u64, at: u64) -> bool {
    let last = trap::get(exceptions as usize);
    trap::count() == exceptions + 1 && last.vector == INVALID_OPCODE && last.rip == at
}

/// All claims about one instruction. Gives how often it was executed.
pub(super) fn claim(claims: &mut Claims, instruction: &Instruction) -> u64 {
    held_back(claims, instruction);
    steps(claims, instruction);
    let mut executed = 3;
    // QEMU's CPU misses the breakpoint that is behind an NMI's return, on the bare machine, too.
    if !instruction.sends_nmi() {
        breakpoints(claims, instruction);
        executed += 1;
    }
    if instruction.sends_to_itself() > 0 {
        let_in(claims, instruction);
        executed += 3;
    }
    executed
}

/// An interrupt that is pending before STI is held back until the instruction behind it has ended.
fn held_back(claims: &mut Claims, instruction: &Instruction) {
    let mut state = state(instruction, 0);
    // SAFETY: its handler is there; interrupts are off.
    unsafe { apic::send_fixed(apic::id(), PENDING) };
    let behind = execute(&mut state, STI, instruction, &[NOP, CLI]);
    let sent = instruction.sends_to_itself();
    let all = (0..1 + sent as usize).all(|index| noted::get(index).is_some_and(|note| note.rip == behind));
    let first = noted::get(0).map_or(0, |note| note.rip);
    let holds = all && noted::count() == 1 + sent && ended(0, behind + 2);
    claims.about("  an interrupt that STI held back comes behind it", holds, first, behind);
    drain();
}

/// With interrupts on, what the instruction sends comes right behind it, once; behind MOV SS, too; and under a single step
/// behind the step, which is more urgent.
fn let_in(claims: &mut Claims, instruction: &Instruction) {
    let note = |rip, exceptions| Note { vector: SENT.into(), rip, exceptions };
    for (before, text) in [(&[][..], "  the interrupt comes right behind it"), (MOV_SS, "  behind a MOV SS, too")] {
        let mut state = state(instruction, RFLAGS_IF);
        let behind = execute(&mut state, before, instruction, &[NOP, CLI]);
        let found = noted::get(0);
        let holds = found == Some(note(behind, 0)) && noted::count() == 1 && ended(0, behind + 2);
        claims.about(text, holds, found.map_or(0, |note| note.rip), behind);
    }
    let mut state = state(instruction, RFLAGS_IF | RFLAGS_TF);
    let behind = execute(&mut state, &[], instruction, &[NOP]);
    let found = noted::get(0);
    let holds = found == Some(note(behind, 1)) && noted::count() == 1 && stepped(behind);
    claims.about("  and behind a single step", holds, found.map_or(0, |note| note.exceptions), 1);
    drain();
}

/// A single step over the instruction, and over the NOP behind it; nothing else.
fn stepped(behind: u64) -> bool {
    let steps = [(0, behind), (1, behind + 1)].into_iter().all(|(index, rip)| {
        let trap = trap::get(index);
        (trap.vector, trap.rip) == (DEBUG, rip) && has_reason(&trap, DR6_STEP)
    });
    steps && ended(2, behind + 1)
}

fn steps(claims: &mut Claims, instruction: &Instruction) {
    for (before, text) in [(&[][..], "  a single step ends behind it"), (MOV_SS, "  behind a MOV SS, too")] {
        let mut state = state(instruction, RFLAGS_TF);
        let behind = execute(&mut state, before, instruction, &[NOP]);
        let arrives = drain() == instruction.sends_to_itself();
        let holds = arrives && stepped(behind);
        claims.about(text, holds, trap::get(0).rip, behind);
    }
}

/// A breakpoint on it comes before it, once, and RF of the handler's return, which lets it pass, is over behind it: so one on
/// the next instruction comes, too.
fn breakpoints(claims: &mut Claims, instruction: &Instruction) {
    let mut state = state(instruction, 0);
    let (first, second) = (state.begins_at(), state.begins_at() + instruction.len());
    set_breakpoints(first, second, DR7_TWO);
    execute(&mut state, &[], instruction, &[NOP]);
    set_breakpoints(0, 0, DR7_CLEAR);
    let hits = [(0, first, 1), (1, second, 2)].into_iter().all(|(index, rip, which)| {
        let trap = trap::get(index);
        (trap.vector, trap.rip) == (DEBUG, rip) && has_reason(&trap, which) && trap.rflags & RFLAGS_RF == 0
    });
    let arrives = drain() == instruction.sends_to_itself();
    let holds = arrives && hits && ended(2, second + 1);
    claims.about("  breakpoints on it and behind it come once", holds, trap::get(1).rip, second);
}
