//! The row of gaps: vCPU 0 polls the time and takes note of each gap that no turn of its loop explains, while all other
//! vCPUs are halted and the hypervisor calls.
//!
//! It polls with interrupts off, so that nothing but the hypervisor can come between two stamps, and each turn begins with
//! the stamp that the last one ended with. Behind a gap it pauses until all is quiet: an emulator whose one clock counts the
//! instructions of all CPUs shows the rest of the caller's work as time that passes here, too, and gives the caller its turn
//! at a PAUSE only. For the same reason there is no PAUSE in the polling itself: a gap would go on behind it.

use core::arch::asm;
use core::cell::UnsafeCell;

use partita_rows::Row;
use partita_rt::{Error, Machine, println, rdtsc};

use crate::record::Recorder;
use crate::settings::{SAMPLES_MAX, State};
use crate::sit;

/// A gap: when it was over, and how long it was.
type Gap = [u64; 2];

struct Gaps(UnsafeCell<[Gap; SAMPLES_MAX as usize]>);

// SAFETY: `measure` alone refers to it, once.
unsafe impl Sync for Gaps {}

static GAPS: Gaps = Gaps(UnsafeCell::new([[0; 2]; SAMPLES_MAX as usize]));

/// Turns by which the loop is measured.
const QUIET_TURNS: usize = 64;
/// A gap is no ordinary turn if it is longer than so many quiet ones, of which each stores what it has found: that is the
/// longest way round the loop.
const QUIET_TURNS_IN_GAP: u64 = 2;
/// Behind a gap all is quiet after so many quiet turns with a PAUSE: each other CPU had several turns of its own.
const SETTLING_TURNS: u32 = 16;
/// Without a gap for one over this part of a second, nobody calls.
const PATIENCE_PER_SECOND: u64 = 10;

/// Measures the row.
pub(crate) fn measure(machine: &Machine, recorder: &mut Recorder) -> Result<(), Error> {
    if !machine.place.is_partition() {
        return Err(Error::OnlyInPartition { what: "group=gap" });
    }
    sit::seat_others(machine, State::Halted, false)?;
    // SAFETY: the group is measured once.
    let gaps = unsafe { &mut *GAPS.0.get() };
    let gaps = gaps.get_mut(..recorder.count()).unwrap_or_default();
    let patience = machine.clocks.tsc_hz / PATIENCE_PER_SECOND;
    let quiet = quiet_turn(patience);
    let threshold = QUIET_TURNS_IN_GAP * quiet;
    println!("payload: a quiet turn takes {quiet} ticks, what takes more than {threshold} is a gap");
    defmt::info!("row {=str}", Row::SmpCallGapSeen.name());
    let taken = poll(threshold, patience, SETTLING_TURNS, gaps);
    recorder.stamped_row(Row::SmpCallGapSeen, gaps.iter().take(taken).map(|[time, ticks]| (*time, *ticks)));
    Ok(())
}

/// How long a turn that stores takes when nobody disturbs it: the median, as a call may come meanwhile.
fn quiet_turn(patience: u64) -> u64 {
    let mut turns = [[0; 2]; QUIET_TURNS];
    poll(0, patience, 0, &mut turns);
    turns.sort_unstable_by_key(|[_, ticks]| *ticks);
    turns.get(QUIET_TURNS / 2).map_or(0, |[_, ticks]| *ticks)
}

/// Polls until all of `gaps` are filled, or none came for `patience` ticks; returns how many were. A gap is longer than
/// `threshold` ticks; before the first, and behind each, there are `settling` turns with a PAUSE and without a gap.
fn poll(threshold: u64, patience: u64, settling: u32, gaps: &mut [Gap]) -> usize {
    let range = gaps.as_mut_ptr_range();
    if range.is_empty() {
        return 0;
    }
    let end: *mut Gap;
    let start = rdtsc();
    // SAFETY: writes to `gaps` only, from its start up to its end.
    unsafe {
        asm!(
            "jmp 4f",
            // Poll: ten instructions from look to look (docs/latency.md).
            "2: rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "mov rcx, rax",
            "sub rcx, {last}",
            "mov {last}, rax",
            "cmp rcx, {threshold}",
            "ja 3f",
            "cmp rax, {deadline}",
            "jb 2b",
            "jmp 7f",
            // Store.
            "3: mov [{next}], rax",
            "mov [{next} + 8], rcx",
            "add {next}, 16",
            "lea {deadline}, [rax + {patience}]",
            // Settle.
            "4: mov {turns:e}, {settling:e}",
            "5: test {turns:e}, {turns:e}",
            "jz 6f",
            "pause",
            "rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "mov rcx, rax",
            "sub rcx, {last}",
            "mov {last}, rax",
            "cmp rax, {deadline}",
            "jae 7f",
            "cmp rcx, {threshold}",
            "ja 4b",
            "dec {turns:e}",
            "jmp 5b",
            "6: cmp {next}, {end}",
            "jne 2b",
            "7:",
            last = inout(reg) start => _,
            threshold = in(reg) threshold,
            deadline = inout(reg) start.saturating_add(patience) => _,
            patience = in(reg) patience,
            next = inout(reg) range.start => end,
            end = in(reg) range.end,
            turns = out(reg) _,
            settling = in(reg) settling,
            out("rax") _, out("rcx") _, out("rdx") _,
            options(nostack),
        );
    }
    (end as usize - range.start as usize) / size_of::<Gap>()
}
