//! The local APIC's timer: how long after the programmed end of a one-shot its handler runs.

use core::arch::asm;

use partita_rows::distribution::{BEGIN_MARK, END_MARK};
use partita_rows::{Group, Row};
use partita_rt::{Machine, apic, println, rdtsc, relax, trace};
use partita_trace::Event;

use crate::handlers::STAMP_VECTOR;
use crate::record::Recorder;

/// The MSR of the timer's initial count in x2APIC mode.
const INITIAL_COUNT: u32 = 0x838;
/// How long the timer is set for beside a neighbour, in microseconds.
const BESIDE_US: u64 = 200;
/// How long all shots take together beside one that reboots, in microseconds: it is made to wait before each start.
const BESIDE_REBOOTS_US: u64 = 400_000;
/// What a neighbour is given to come up, in milliseconds.
const COMING_UP_MS: u64 = 150;

/// Programs the timer, waits for its handler; returns the time before the one and in the other.
macro_rules! one_shot {
    ($count:expr, [$($wait:literal),+]) => {{
        let (low, high, stamp): (u64, u64, u64);
        // SAFETY: gives up all registers that the handler changes; the timer has its vector.
        unsafe {
            asm!(
                "xor r10d, r10d",
                "rdtsc",
                "mov esi, eax",
                "mov edi, edx",
                "mov eax, r8d",
                "xor edx, edx",
                "wrmsr",
                $($wait,)+
                "test r10, r10",
                "jz 2b",
                "cli",
                in("r8") u64::from($count),
                out("rax") _, inout("rcx") u64::from(INITIAL_COUNT) => _, out("rdx") _,
                out("rsi") low, out("rdi") high, out("r10") stamp, out("r11") _,
            );
        }
        (high << 32 | low, stamp)
    }};
}

/// Measures the rows.
pub(crate) fn measure(machine: &Machine, recorder: &mut Recorder) {
    // Sets mode, vector and divider; a count of 0 keeps the timer stopped.
    // SAFETY: the vector has a handler, and the timer only runs in assembly that gives up what that changes.
    unsafe { apic::timer_one_shot(STAMP_VECTOR, 0) };
    // A PAUSE is a way out of the emulator's fast path: some instructions between two of them make this row eight times
    // faster there.
    row(Row::TimerOneshot50usSpin, 50, machine, recorder, |count| {
        one_shot!(count, ["sti", "2: pause", "mov ecx, 32", "3: dec ecx", "jnz 3b"])
    });
    // QEMU wakes a second thread of its own when a timer is programmed. If that looks just between a HLT and the counting
    // of the instructions before it, the clock overshoots by as many. So it gets 40 us to go back to sleep.
    row(Row::TimerOneshot1msHlt, 1000, machine, recorder, |count| {
        one_shot!(
            count,
            [
                "mov r11d, 600",
                "4: pause",
                "mov ecx, 32",
                "3: dec ecx",
                "jnz 3b",
                "dec r11d",
                "jnz 4b",
                "2: sti",
                "hlt",
                "cli"
            ]
        )
    });
    apic::timer_stop();
}

/// Measures the row of a group beside a neighbour: one-shots that are waited for spinning and in HLT by turns.
pub(crate) fn measure_beside(group: Group, machine: &Machine, recorder: &mut Recorder) {
    let Some(beside) = Row::only_of(group) else { return };
    // The neighbour comes up meanwhile.
    let start = rdtsc();
    while rdtsc().wrapping_sub(start) < machine.clocks.tsc_hz / 1000 * COMING_UP_MS {
        relax();
    }
    let us = match group {
        Group::BesideReboots => (BESIDE_REBOOTS_US / recorder.count().max(1) as u64).max(BESIDE_US),
        _ => BESIDE_US,
    };
    let begin = rdtsc();
    // SAFETY: as in `measure`.
    unsafe { apic::timer_one_shot(STAMP_VECTOR, 0) };
    let mut halts = false;
    row(beside, us, machine, recorder, |count| {
        halts = !halts;
        if halts { one_shot!(count, ["2: sti", "hlt", "cli"]) } else { one_shot!(count, ["sti", "2: pause"]) }
    });
    apic::timer_stop();
    trace::record(begin, Event::Mark { id: BEGIN_MARK, first: 0, second: 0 });
    trace::record(rdtsc(), Event::Mark { id: END_MARK, first: machine.clocks.tsc_hz, second: 0 });
}

fn row(
    row: Row,
    microseconds: u64,
    machine: &Machine,
    recorder: &mut Recorder,
    mut wait: impl FnMut(u32) -> (u64, u64),
) {
    let count = machine.clocks.lapic_ticks(microseconds);
    let interval = machine.clocks.tsc_ticks(count);
    let mut early = 0;
    recorder.row(row, |samples| {
        for place in samples {
            let (programmed, stamp) = wait(count);
            let lateness = stamp.wrapping_sub(programmed.wrapping_add(interval)) as i64;
            early += u64::from(lateness < 0);
            *place = lateness.max(0) as u64;
        }
    });
    if early > 0 {
        println!("payload: {}: {early} came early: the clocks are not known that exactly; they count as 0", row.name());
    }
}
