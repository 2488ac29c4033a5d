//! The MSR policy: what RDMSR and WRMSR of a guest do, and SVM's MSR permission map.
//!
//! The table itself is in `msr_table.rs`. An MSR that is not in it gets #GP, as hardware gives it for one that it
//! does not have.

use crate::capabilities::Backend;
use crate::msr_table::rule;

pub use crate::icr::ICR_MSR;

/// IA32_APIC_BASE.
pub const APIC_BASE_MSR: u32 = 0x1B;
/// EFER.
pub const EFER_MSR: u32 = 0xC000_0080;
/// x2APIC timer current count.
pub const TIMER_COUNT_MSR: u32 = 0x839;

/// What a read does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrRead {
    /// No exit: the guest reads the register itself.
    Pass,
    /// The guest gets this value.
    Value(u64),
    /// The guest gets [`crate::msr_values::apic_base_read`].
    ApicBase,
    /// The guest gets its own EFER: [`crate::msr_values::efer_from_vmcb`].
    Efer,
    /// The guest gets the timer's current count, by another way than RDMSR.
    TimerCount,
    /// #GP, counted.
    Gp,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrWrite {
    /// No exit: the guest writes the register itself.
    Pass,
    /// Nothing, counted.
    Ignore,
    /// Ask [`crate::icr::filter`].
    Icr,
    /// Ask [`crate::msr_values::lvt_write`] what to write instead.
    Lvt,
    /// Ask [`crate::msr_values::lvt_timer_write`] what to write instead.
    LvtTimer,
    /// Ask [`crate::msr_values::apic_base_write`].
    ApicBase,
    /// Ask [`crate::msr_values::efer_write`].
    Efer,
    /// The register is written if the value is 0; else #GP, counted.
    Zero,
    /// #GP, counted.
    Gp,
}

/// What both accesses to one MSR do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrRule {
    /// RDMSR.
    pub read: MsrRead,
    /// WRMSR.
    pub write: MsrWrite,
}

/// The MSR policy of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrPolicy {
    trap_timer_count: bool,
    is_intel: bool,
}

impl MsrPolicy {
    /// A policy for AMD's CPUs. With `trap_timer_count` a read of MSR 0x839 exits: QEMU aborts at it when it counts
    /// instructions.
    pub const fn new(trap_timer_count: bool) -> Self {
        Self { trap_timer_count, is_intel: false }
    }

    /// The same for the CPUs that have this backend, as each vendor has MSRs of its own.
    #[must_use]
    pub const fn on(self, backend: Backend) -> Self {
        Self { is_intel: matches!(backend, Backend::Vmx), ..self }
    }

    /// What RDMSR of `msr` does.
    #[inline]
    pub const fn read(self, msr: u32) -> MsrRead {
        match msr {
            TIMER_COUNT_MSR if self.trap_timer_count => MsrRead::TimerCount,
            _ => rule(msr, self.is_intel).read,
        }
    }

    /// What WRMSR of `msr` does.
    #[inline]
    pub const fn write(self, msr: u32) -> MsrWrite {
        match msr {
            // The one write that a running guest makes often.
            ICR_MSR => MsrWrite::Icr,
            _ => rule(msr, self.is_intel).write,
        }
    }

    /// Fills SVM's MSR permission map: an access exits unless the policy says `Pass`. To be done once, when a
    /// partition starts.
    pub fn fill_msrpm(self, map: &mut [u8; MSRPM_LEN]) {
        map.fill(0xFF);
        for (&base, part) in MSRPM_BASES.iter().zip(map.chunks_mut(MSRPM_PART)) {
            for (group, byte) in part.iter_mut().enumerate() {
                for slot in 0..4u32 {
                    let msr = base + group as u32 * 4 + slot;
                    let read = u8::from(!matches!(self.read(msr), MsrRead::Pass));
                    let write = u8::from(!matches!(self.write(msr), MsrWrite::Pass));
                    *byte &= !(0b11 << (slot * 2));
                    *byte |= (read | write << 1) << (slot * 2);
                }
            }
        }
    }
}

impl MsrPolicy {
    /// Fills VMX's MSR bitmaps (SDM vol. 3 section 25.6.9): an access exits unless the policy says `Pass`. What lies behind them
    /// is not used.
    pub fn fill_msr_bitmap(self, map: &mut [u8; MSRPM_LEN]) {
        map.fill(0xFF);
        for (is_write, half) in [false, true].into_iter().zip(map.chunks_mut(BITMAP_HALF)) {
            for (&base, part) in BITMAP_BASES.iter().zip(half.chunks_mut(BITMAP_PART)) {
                for (msr, byte) in (base..).step_by(8).zip(part) {
                    let passes = |msr| match is_write {
                        true => matches!(self.write(msr), MsrWrite::Pass),
                        false => matches!(self.read(msr), MsrRead::Pass),
                    };
                    *byte = (0..8).filter(|bit| !passes(msr + bit)).fold(0, |byte, bit| byte | 1 << bit);
                }
            }
        }
    }
}

/// Bytes of VMX's bitmaps for reads, and of those for writes.
const BITMAP_HALF: usize = 0x800;
/// Bytes of one bitmap, for 0x2000 MSRs.
const BITMAP_PART: usize = 0x400;
/// Where they start. Any other MSR always exits.
const BITMAP_BASES: [u32; 2] = [0, 0xC000_0000];

/// Reads VMX's bitmaps as the processor does: whether the access exits.
pub fn msr_bitmap_exits(map: &[u8; MSRPM_LEN], msr: u32, write: bool) -> bool {
    let offset = msr & 0x1FFF;
    let Some(part) = BITMAP_BASES.iter().position(|&base| base == msr - offset) else { return true };
    let at = usize::from(write) * BITMAP_HALF + part * BITMAP_PART + (offset / 8) as usize;
    map.get(at).is_none_or(|byte| byte & (1 << (offset % 8)) != 0)
}

/// Bytes of SVM's MSR permission map (APM vol. 2 section 15.11).
pub const MSRPM_LEN: usize = 0x2000;
/// Bytes of it for one of its ranges of 0x2000 MSRs.
const MSRPM_PART: usize = 0x800;
/// Where its ranges start. Its last 2 KiB are reserved; any other MSR always exits.
const MSRPM_BASES: [u32; 3] = [0, 0xC000_0000, 0xC001_0000];

/// Reads a permission map as the processor does: whether the access exits.
pub fn msrpm_intercepts(map: &[u8; MSRPM_LEN], msr: u32, write: bool) -> bool {
    let offset = msr & 0x1FFF;
    let Some(part) = MSRPM_BASES.iter().position(|&base| base == msr - offset) else { return true };
    let byte = map.get(part * MSRPM_PART + (offset / 4) as usize).copied().unwrap_or(0xFF);
    byte & (1 << ((offset % 4) * 2 + u32::from(write))) != 0
}
