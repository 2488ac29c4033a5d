//! What a fresh start promises: looked at first, and spoilt then.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_x86_bare::{read_msr, write_msr};

use crate::extended;
use crate::stale::{Stale, What};

const PATTERN: u64 = 0x5AFE_C0DE_5AFE_C0DE;
const WORDS: usize = 512;

static DATA: [AtomicU64; WORDS] = [const { AtomicU64::new(PATTERN) }; WORDS];
static BSS: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// RAM below Partita's own tables; the page at 0 is left alone, because a pointer to it is null.
const LOW_MEMORY: core::ops::Range<u64> = 0x1000..0x9_F000;
/// End of the smallest partition.
const MEMORY_END: u64 = 2 << 20;
const PAGE: usize = 4096;

unsafe extern "C" {
    // From the linker script.
    static __image_end: u8;
}

// Registers of the local APIC (SDM vol. 3, table "Local APIC Register Address Map Supported by x2APIC").
const TPR: u32 = 0x808;
const SPURIOUS: u32 = 0x80F;
const ISR: u32 = 0x810;
const IRR: u32 = 0x820;
const LVT_TIMER: u32 = 0x832;
const LVT_LINT0: u32 = 0x835;
const LVTS: [u32; 4] = [LVT_TIMER, LVT_LINT0, 0x836, 0x837];
const TIMER_INITIAL: u32 = 0x838;
const TIMER_DIVIDE: u32 = 0x83E;
const SELF_IPI: u32 = 0x83F;
/// Words of ISR and IRR.
const VECTOR_WORDS: u32 = 8;

const LVT_MASKED: u64 = 1 << 16;
const LVT_PERIODIC: u64 = 1 << 17;
const SPURIOUS_RESET: u64 = 0xFF;
const APIC_ENABLED: u64 = 0x1FF;
const DIVIDE_BY_1: u64 = 0b1011;

/// Vectors that stay in service, the second above the first.
const IN_SERVICE: [u64; 2] = [0x41, 0xE1];
/// Vectors that wait, below and above those; one is an exception's in the table.
const REQUESTED: [u64; 4] = [0x11, 0x31, 0x91, 0xF1];
const TIMER_VECTOR: u64 = 0x61;
const TIMER_COUNT: u64 = 50_000;
/// The priority below which nothing is delivered.
const SPOILT_TPR: u64 = 0x20;

const DR7_RESET: u64 = 0x400;
/// Model-specific registers that a guest may write, and their values after a reset.
const REGISTERS: [(u32, u64, What); 8] = [
    (0x174, 0, What::SysenterCs),
    (0x175, 0, What::SysenterEsp),
    (0x277, 0x0007_0406_0007_0406, What::Pat),
    (0xC000_0081, 0, What::Star),
    (0xC000_0082, 0, What::Lstar),
    (0xC000_0100, 0, What::FsBase),
    (0xC000_0102, 0, What::KernelGsBase),
    (0xC000_0103, 0, What::TscAux),
];
/// Fits each of them: the PAT takes memory types only.
const SPOILT_REGISTER: u64 = 0x0404_0404;

/// The first word of each page that nobody uses.
fn unused() -> impl Iterator<Item = *mut u64> {
    let image_end = &raw const __image_end as u64;
    LOW_MEMORY.chain(image_end..MEMORY_END).step_by(PAGE).map(|address| address as *mut u64)
}

/// Looks at the partition's memory. On the first vCPU.
pub(crate) fn check_memory(stale: &mut Stale) {
    stale.check(What::Data, DATA.iter().all(|word| word.load(Ordering::Relaxed) == PATTERN));
    stale.check(What::Bss, BSS.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    // SAFETY: the pages are RAM of every partition, mapped one to one, and nobody else uses them.
    stale.check(What::Memory, unused().all(|word| unsafe { word.read_volatile() } == 0));
}

/// Leaves the next life something to find. On the first vCPU.
pub(crate) fn spoil_memory() {
    for word in DATA.iter().chain(&BSS) {
        word.store(!PATTERN, Ordering::Relaxed);
    }
    for word in unused() {
        // SAFETY: as above.
        unsafe { word.write_volatile(PATTERN) };
    }
}

/// Looks at the registers of this vCPU.
pub(crate) fn check_vcpu(stale: &mut Stale) {
    extended::check(stale);
    let (dr0, dr1, dr2, dr3, dr7): (u64, u64, u64, u64, u64);
    // SAFETY: reads registers that every CPU has.
    unsafe {
        asm!("mov {0}, dr0", "mov {1}, dr1", "mov {2}, dr2", "mov {3}, dr3", "mov {4}, dr7",
            out(reg) dr0, out(reg) dr1, out(reg) dr2, out(reg) dr3, out(reg) dr7,
            options(nomem, nostack, preserves_flags));
    }
    stale.check(What::DebugAddresses, dr0 | dr1 | dr2 | dr3 == 0);
    stale.check(What::DebugControl, dr7 == DR7_RESET);
    // SAFETY: the local APIC is in x2APIC mode from the start, and has these registers; so has every AMD64 CPU the others.
    let read = |msr| unsafe { read_msr(msr) };
    let any = |first: u32| (first..first + VECTOR_WORDS).fold(0, |any, msr| any | read(msr));
    stale.check(What::TaskPriority, read(TPR) == 0);
    stale.check(What::InService, any(ISR) == 0);
    stale.check(What::Requested, any(IRR) == 0);
    stale.check(What::LocalVectors, LVTS.iter().all(|msr| read(*msr) == LVT_MASKED));
    // Not the current count, which an emulator may not be asked for by instruction count.
    stale.check(What::TimerCount, read(TIMER_INITIAL) == 0);
    stale.check(What::TimerDivider, read(TIMER_DIVIDE) == 0);
    stale.check(What::Spurious, read(SPURIOUS) == SPURIOUS_RESET);
    for (msr, value, what) in REGISTERS {
        stale.check(what, read(msr) == value);
    }
}

/// Leaves this vCPU's next life something to find: interrupts in service, more that wait, a timer that runs. Interrupts
/// are off on entry and return. After [`check_vcpu`], with the table of gates loaded.
pub(crate) fn spoil_vcpu() {
    // SAFETY: the breakpoint's address is never executed; the handlers of all vectors return; no other code uses these
    // registers.
    unsafe {
        asm!("mov dr0, {0}", "mov dr1, {0}", "mov dr2, {0}", "mov dr3, {0}", "mov dr7, {1}",
            in(reg) PATTERN >> 32, in(reg) DR7_RESET | 1, options(nomem, nostack, preserves_flags));
        for (msr, ..) in REGISTERS {
            write_msr(msr, SPOILT_REGISTER);
        }
        write_msr(SPURIOUS, APIC_ENABLED);
        for vector in IN_SERVICE {
            write_msr(SELF_IPI, vector);
            asm!("sti", "nop", "nop", "cli", options(nostack));
        }
        for vector in REQUESTED {
            write_msr(SELF_IPI, vector);
        }
        write_msr(LVT_LINT0, LVT_MASKED | TIMER_VECTOR);
        write_msr(TIMER_DIVIDE, DIVIDE_BY_1);
        write_msr(LVT_TIMER, LVT_PERIODIC | TIMER_VECTOR);
        write_msr(TIMER_INITIAL, TIMER_COUNT);
        write_msr(TPR, SPOILT_TPR);
    }
}
