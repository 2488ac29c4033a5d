//! Group `quiet`: a CPU looks at the time again and again and takes note of each gap that no turn of its loop explains, while
//! nobody asks it for anything. What made a gap is told from the hypervisor's trace.
//!
//! Interrupts are off, and no look is left out: each turn begins with the stamp that the last one ended with, also the one that
//! stores a gap.

use core::arch::asm;
use core::cell::UnsafeCell;

use partita_rows::Row;
use partita_rows::distribution::{BEGIN_MARK, END_MARK};
use partita_rt::{Error, Machine, claim, println, rdtsc, trace};
use partita_trace::Event;

/// A gap: when it was over, and how long it was.
type Gap = [u64; 2];

/// Most gaps that are kept: a guest that has seen so many does not have its CPU to itself.
const GAPS_MAX: usize = 4096;
/// Turns by which the loop is measured.
const TRIALS: usize = 64;

struct Gaps(UnsafeCell<[Gap; GAPS_MAX]>);

// SAFETY: `measure` alone refers to it, once.
unsafe impl Sync for Gaps {}

static GAPS: Gaps = Gaps(UnsafeCell::new([[0; 2]; GAPS_MAX]));

/// Number of the claim that no gap was left out for want of room; those below are rows'.
const CLAIM_ROOM: u32 = 102;

/// Polls for so many ticks, or a second if that is 0.
pub(crate) fn measure(machine: &Machine, ticks: u64) -> Result<(), Error> {
    if !machine.place.is_partition() {
        return Err(Error::OnlyInPartition { what: "group=quiet" });
    }
    let second = machine.clocks.tsc_hz;
    let ticks = if ticks == 0 { second } else { ticks };
    // SAFETY: the group is measured once.
    let gaps = unsafe { &mut *GAPS.0.get() };
    let turn = longest_turn(second);
    println!("payload: the longest turn takes {turn} ticks, what takes more is a gap");
    let begin = rdtsc();
    let seen = poll(turn, begin.wrapping_add(ticks), gaps);
    let end = rdtsc();
    trace::record(begin, Event::Mark { id: BEGIN_MARK, first: turn, second: ticks });
    for (index, [time, ticks]) in gaps.iter().take(seen).enumerate() {
        trace::record(*time, Event::Sample { row: Row::QuietGaps.id(), ticks: *ticks, index: index as u64 });
    }
    trace::record(end, Event::Mark { id: END_MARK, first: second, second: seen as u64 });
    claim(CLAIM_ROOM, seen < GAPS_MAX, "there was room for all gaps", seen as u64, GAPS_MAX as u64);
    Ok(())
}

/// The longest turn of the loop when nobody disturbs it, which is one that stores a gap: the median, and a quarter more, for
/// turns are not all alike on every machine.
fn longest_turn(second: u64) -> u64 {
    let mut turns = [[0; 2]; TRIALS];
    poll(0, rdtsc().wrapping_add(second), &mut turns);
    turns.sort_unstable_by_key(|[_, ticks]| *ticks);
    turns.get(TRIALS / 2).map_or(0, |[_, ticks]| *ticks + ticks / 4)
}

/// Polls until `deadline`, or until all of `gaps` are filled; returns how many were. A gap is longer than `turn` ticks.
fn poll(turn: u64, deadline: u64, gaps: &mut [Gap]) -> usize {
    let range = gaps.as_mut_ptr_range();
    if range.is_empty() {
        return 0;
    }
    let end: *mut Gap;
    // SAFETY: writes to `gaps` only, from its start up to its end.
    unsafe {
        asm!(
            // Ten instructions from look to look, and more where they are stored.
            "2: rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "mov rcx, rax",
            "sub rcx, {last}",
            "mov {last}, rax",
            "cmp rcx, {turn}",
            "ja 3f",
            "cmp rax, {deadline}",
            "jb 2b",
            "jmp 4f",
            "3: mov [{next}], rax",
            "mov [{next} + 8], rcx",
            "add {next}, 16",
            "cmp {next}, {end}",
            "je 4f",
            "cmp rax, {deadline}",
            "jb 2b",
            "4:",
            last = inout(reg) rdtsc() => _,
            turn = in(reg) turn,
            deadline = in(reg) deadline,
            next = inout(reg) range.start => end,
            end = in(reg) range.end,
            out("rax") _, out("rcx") _, out("rdx") _,
            options(nostack),
        );
    }
    (end as usize - range.start as usize) / size_of::<Gap>()
}
