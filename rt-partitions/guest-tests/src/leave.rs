//! Instructions at which the hypervisor takes over: one of a kind at a time, or a storm of them.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_abi::hypercall::NOP;
use partita_rt::{Error, Machine, apic, hypercall};
use partita_x86_bare::{read_msr, write_msr};

use crate::OPTIONS;
use crate::counters::FIRST_VECTOR;

const APIC_BASE: u32 = 0x1B;
const EFER: u32 = 0xC000_0080;

/// What the guest is left for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// CPUID.
    Cpuid,
    /// A read of APIC_BASE.
    MsrRead,
    /// A write of EFER, of what it has.
    MsrWrite,
    /// A read of the POST port.
    PortIn,
    /// The hypercall that does nothing.
    Hypercall,
    /// An interrupt to itself by the ICR. With interrupts off it stays pending.
    Icr,
    /// WBINVD, which is skipped: of all kinds the only one that is not frequent.
    CacheFlush,
}

/// The values of the option `kind`: those of [`Kind::ALL`], and all of them in turn.
const NAMES: &[&str] = &["cpuid", "rdmsr", "wrmsr", "in", "hypercall", "icr", "wbinvd", "each"];
const _: () = assert!(NAMES.len() == Kind::ALL.len() + 1);

impl Kind {
    /// In the order of [`NAMES`].
    pub(crate) const ALL: [Self; 7] =
        [Self::Cpuid, Self::MsrRead, Self::MsrWrite, Self::PortIn, Self::Hypercall, Self::Icr, Self::CacheFlush];

    /// The kind with this number.
    pub(crate) fn from_number(number: u64) -> Self {
        Self::ALL.into_iter().nth(number as usize).unwrap_or(Self::Cpuid)
    }

    /// Its number.
    pub(crate) const fn number(self) -> u64 {
        self as u64
    }

    /// Leaves the guest once. The interrupt of [`Self::Icr`] goes to the CPU with this x2APIC ID, which is the one that
    /// executes this.
    #[inline(always)]
    pub(crate) fn leave(self, own: u32) {
        // SAFETY: none has an effect but that interrupt, whose vector is counted.
        unsafe {
            match self {
                Self::Cpuid => {
                    core::hint::black_box(__cpuid(0));
                }
                Self::MsrRead => {
                    core::hint::black_box(read_msr(APIC_BASE));
                }
                Self::MsrWrite => write_msr(EFER, efer()),
                Self::PortIn => asm!("in al, 0x80", out("al") _, options(nomem, nostack, preserves_flags)),
                Self::Hypercall => {
                    hypercall(NOP, 0, 0);
                }
                Self::Icr => apic::send_fixed(own, FIRST_VECTOR),
                Self::CacheFlush => asm!("wbinvd", options(nostack, preserves_flags)),
            }
        }
    }
}

/// What EFER has: read once, because that leaves the guest, too.
fn efer() -> u64 {
    static EFER_HAS: AtomicU64 = AtomicU64::new(0);
    match EFER_HAS.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: every x86-64 CPU has it.
            let value = unsafe { read_msr(EFER) };
            EFER_HAS.store(value, Ordering::Relaxed);
            value
        }
        value => value,
    }
}

/// Exits in a row, and the most turns of a loop behind them: each number of turns comes, in no order, so that what comes at
/// regular times does not find each exit at the same instruction.
const IN_A_ROW: usize = 16;
const TURNS: u64 = 64;

/// Leaves the guest again and again, for what the option `kind` says.
pub(crate) fn storm(machine: &Machine) -> Result<(), Error> {
    let choice = machine.options(OPTIONS)?.choice("kind", 0, NAMES)?;
    let (all, own) = (Kind::ALL, apic::id());
    let kinds = all.get(choice..=choice).unwrap_or(&all);
    let mut turns = 0;
    defmt::info!("leaves by {=str}", NAMES.get(choice).copied().unwrap_or("?"));
    for kind in kinds.iter().cycle() {
        for _ in 0..IN_A_ROW {
            kind.leave(own);
        }
        turns = (turns * 5 + 1) % TURNS;
        for turn in 0..turns {
            core::hint::black_box(turn);
        }
    }
    Ok(())
}
