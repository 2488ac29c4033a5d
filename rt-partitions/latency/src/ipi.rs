//! Interrupts from a CPU to itself and to another. The clock starts before the ICR write and ends with the first
//! instruction of the handler; in between is the write and what the CPU does to wait.

use core::arch::asm;

use partita_rows::Row;
use partita_rt::Error;

use crate::handlers::{ANSWER_VECTOR, STAMP_VECTOR};
use crate::peer::{DONE, Peer, Role, fixed};
use crate::record::Recorder;

/// ICR value of an interrupt to oneself, by shorthand.
const TO_SELF: u64 = 1 << 18 | 1 << 14 | STAMP_VECTOR as u64;

/// The MSR of the interrupt command register in x2APIC mode.
const ICR: u32 = 0x830;

/// Measures the rows.
pub(crate) fn measure(peer: &Peer, recorder: &mut Recorder) -> Result<(), Error> {
    measure_self(Row::IpiSelf, recorder);

    let stamp = fixed(peer.apic_id, STAMP_VECTOR);
    one_way(Row::IpiOnewaySpin, peer, recorder, Role::StampSpinning, |round| send_spinning(stamp, round))?;
    one_way(Row::IpiOnewayHlt, peer, recorder, Role::StampHalted, |round| send_halted(stamp, round))?;

    let question = fixed(peer.apic_id, ANSWER_VECTOR);
    peer.begin(Role::AnswerHalted, recorder.count());
    recorder.row_of(Row::IpiRoundtripHlt, |round| {
        peer.ready(round)?;
        Ok::<_, Error>(ask_halted(question))
    })?;
    peer.end()
}

/// Measures interrupts to oneself.
pub(crate) fn measure_self(row: Row, recorder: &mut Recorder) {
    recorder.row(row, |samples| samples.fill_with(to_self));
}

/// A row whose clock starts here, in `send`, which returns when CPU 1 is done, and ends there.
pub(crate) fn one_way(
    row: Row,
    peer: &Peer,
    recorder: &mut Recorder,
    role: Role,
    send: impl Fn(u64) -> u64,
) -> Result<(), Error> {
    peer.begin(role, recorder.count());
    recorder.row_of(row, |round| {
        peer.ready(round)?;
        let sent = send(round as u64 + 1);
        Ok::<_, Error>(peer.stamp().wrapping_sub(sent))
    })?;
    peer.end()
}

/// Sends an interrupt to oneself, spinning; returns how long it took.
fn to_self() -> u64 {
    let (low, high, stamp): (u64, u64, u64);
    // SAFETY: gives up all registers that the handler changes, and it is the handler of this interrupt.
    unsafe {
        asm!(
            "xor r10d, r10d",
            "sti",
            "nop",
            "rdtsc",
            "mov esi, eax",
            "mov edi, edx",
            "mov eax, r8d",
            "xor edx, edx",
            "wrmsr",
            "2: pause",
            "test r10, r10",
            "jz 2b",
            "cli",
            in("r8") TO_SELF,
            out("rax") _, inout("rcx") u64::from(ICR) => _, out("rdx") _,
            out("rsi") low, out("rdi") high, out("r10") stamp, out("r11") _,
        );
    }
    stamp.wrapping_sub(high << 32 | low)
}

/// Writes the ICR, then spins until CPU 1 is done with the round; returns the time before the write.
pub(crate) fn send_spinning(icr: u64, round: u64) -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: CPU 1 has a handler for what is sent, and waits for it in assembly that gives up what that changes.
    unsafe {
        asm!(
            "rdtsc",
            "mov esi, eax",
            "mov edi, edx",
            "mov eax, r8d",
            "mov edx, r9d",
            "wrmsr",
            "2: pause",
            "cmp qword ptr [{done}], {round}",
            "jne 2b",
            done = in(reg) DONE.0.as_ptr(), round = in(reg) round,
            in("r8") icr & 0xFFFF_FFFF, in("r9") icr >> 32,
            out("rax") _, in("rcx") u64::from(ICR), out("rdx") _,
            out("rsi") low, out("rdi") high,
        );
    }
    high << 32 | low
}

/// Writes the ICR, then halts until CPU 1 is done with the round; returns the time before the write.
fn send_halted(icr: u64, round: u64) -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: as in `send_spinning`; what wakes this CPU saves what it changes.
    unsafe {
        asm!(
            "rdtsc",
            "mov esi, eax",
            "mov edi, edx",
            "mov eax, r8d",
            "mov edx, r9d",
            "wrmsr",
            "2: sti",
            "hlt",
            "cli",
            "cmp qword ptr [{done}], {round}",
            "jne 2b",
            done = in(reg) DONE.0.as_ptr(), round = in(reg) round,
            in("r8") icr & 0xFFFF_FFFF, in("r9") icr >> 32,
            out("rax") _, in("rcx") u64::from(ICR), out("rdx") _,
            out("rsi") low, out("rdi") high,
        );
    }
    high << 32 | low
}

/// Writes the ICR, then halts until CPU 1's answer is here; returns how long that took.
fn ask_halted(icr: u64) -> u64 {
    let (low, high, stamp): (u64, u64, u64);
    // SAFETY: as in `send_spinning`; gives up all registers that the handler of the answer changes.
    unsafe {
        asm!(
            "xor r10d, r10d",
            "rdtsc",
            "mov esi, eax",
            "mov edi, edx",
            "mov eax, r8d",
            "mov edx, r9d",
            "wrmsr",
            "2: sti",
            "hlt",
            "cli",
            "test r10, r10",
            "jz 2b",
            in("r8") icr & 0xFFFF_FFFF, in("r9") icr >> 32,
            out("rax") _, inout("rcx") u64::from(ICR) => _, out("rdx") _,
            out("rsi") low, out("rdi") high, out("r10") stamp, out("r11") _,
        );
    }
    stamp.wrapping_sub(high << 32 | low)
}
