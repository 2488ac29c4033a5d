//! What the emulated MSRs hold and accept: APIC_BASE, EFER, and the local vector table of the APIC.

/// The guest gets #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gp;

/// The physical address of the APIC page: what APIC_BASE holds, though nothing is there for a guest.
pub const APIC_PAGE: u64 = 0xFEE0_0000;
const APIC_BSP: u64 = 1 << 8;
const APIC_X2APIC: u64 = 1 << 10;
const APIC_ENABLE: u64 = 1 << 11;
const APIC_ADDRESS: u64 = ((1 << 52) - 1) & !0xFFF;

/// What a vCPU reads from APIC_BASE: enabled, in x2APIC mode, and the bootstrap processor if it is the first.
#[inline]
pub const fn apic_base_read(vcpu: usize) -> u64 {
    APIC_PAGE | APIC_ENABLE | APIC_X2APIC | if vcpu == 0 { APIC_BSP } else { 0 }
}

/// What a write to APIC_BASE means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicBaseWrite {
    /// Nothing changes.
    Same,
    /// The guest leaves x2APIC mode, which its partition cannot: stop the partition.
    LeavesX2apic,
    /// The guest moves the APIC page, which it does not have: stop the partition.
    MovesPage,
    /// Reserved bits: #GP.
    Gp,
}

/// Decides about a write of `value` to APIC_BASE. The bootstrap flag is not compared: nothing depends on it.
pub const fn apic_base_write(value: u64) -> ApicBaseWrite {
    if value & !(APIC_ADDRESS | APIC_ENABLE | APIC_X2APIC | APIC_BSP) != 0 {
        ApicBaseWrite::Gp
    } else if value & (APIC_ENABLE | APIC_X2APIC) != APIC_ENABLE | APIC_X2APIC {
        ApicBaseWrite::LeavesX2apic
    } else if value & APIC_ADDRESS != APIC_PAGE {
        ApicBaseWrite::MovesPage
    } else {
        ApicBaseWrite::Same
    }
}

/// EFER.SCE: SYSCALL.
pub const EFER_SCE: u64 = 1 << 0;
/// EFER.LME: long mode enable.
pub const EFER_LME: u64 = 1 << 8;
/// EFER.LMA: long mode active, set and cleared by the processor.
pub const EFER_LMA: u64 = 1 << 10;
/// EFER.NXE: no-execute enable.
pub const EFER_NXE: u64 = 1 << 11;
/// EFER.SVME: must be 1 in a VMCB, and is hidden from the guest.
pub const EFER_SVME: u64 = 1 << 12;
/// EFER.FFXSR: fast FXSAVE.
pub const EFER_FFXSR: u64 = 1 << 14;
/// EFER.TCE: translation cache extension.
pub const EFER_TCE: u64 = 1 << 15;

/// The bits of EFER that a guest may set, from what CPUID 0x8000_0001 shows it (its ECX and EDX). Long mode and
/// no-execute are always there where SVM is.
pub const fn efer_writable(ecx: u32, edx: u32) -> u64 {
    let mut bits = EFER_SCE | EFER_LME | EFER_NXE;
    if edx & (1 << 25) != 0 {
        bits |= EFER_FFXSR;
    }
    if ecx & (1 << 17) != 0 {
        bits |= EFER_TCE;
    }
    bits
}

/// The guest's EFER after it wrote `value`. `old` is its EFER before, `paging` its CR0.PG, `writable` comes from
/// [`efer_writable`]. LMA keeps its value whatever is written.
///
/// # Errors
/// [`Gp`] for a bit that the guest does not have (SVME among them), or a change of LME while paging is on
/// (APM vol. 2 section 3.1.7).
pub const fn efer_write(old: u64, value: u64, paging: bool, writable: u64) -> Result<u64, Gp> {
    if value & !(writable | EFER_LMA) != 0 || (paging && (old ^ value) & EFER_LME != 0) {
        return Err(Gp);
    }
    Ok(value & writable | old & EFER_LMA)
}

/// The guest's EFER, from the VMCB's.
#[inline]
pub const fn efer_from_vmcb(vmcb: u64) -> u64 {
    vmcb & !EFER_SVME
}

/// The VMCB's EFER, from the guest's.
#[inline]
pub const fn efer_to_vmcb(guest: u64) -> u64 {
    guest | EFER_SVME
}

const LVT_VECTOR: u32 = 0xFF;
const LVT_MODE: u32 = 7 << 8;
const LVT_STATUS: u32 = 1 << 12;
const LVT_ACTIVE_LOW: u32 = 1 << 13;
const LVT_REMOTE_IRR: u32 = 1 << 14;
const LVT_LEVEL: u32 = 1 << 15;
const LVT_MASKED: u32 = 1 << 16;
const LVT_KNOWN: u32 = LVT_VECTOR | LVT_MODE | LVT_STATUS | LVT_ACTIVE_LOW | LVT_REMOTE_IRR | LVT_LEVEL | LVT_MASKED;

/// What to write into an entry of the local vector table instead of the guest's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LvtWrite {
    /// The value for the register: delivery mode fixed, always.
    pub value: u64,
    /// The guest asked for an unmasked entry of another delivery mode and got a masked one: to be counted.
    pub refused: bool,
}

/// Rebuilds a write to the LVT's thermal, performance, LINT0, LINT1 or error entry.
///
/// Only delivery mode fixed reaches hardware. SMI and INIT would take the pCPU away, ExtINT and NMI come from lines
/// that no guest owns, and an NMI cannot be told from a kick. Linux programs LINT0 as ExtINT and LINT1 as NMI on its
/// first CPU whatever is connected, so that such an entry is written masked, not answered with #GP.
///
/// # Errors
/// [`Gp`] for reserved bits.
pub const fn lvt_write(value: u64) -> Result<LvtWrite, Gp> {
    if value & !(LVT_KNOWN as u64) != 0 {
        return Err(Gp);
    }
    let value = value as u32;
    let kept = value & (LVT_VECTOR | LVT_ACTIVE_LOW | LVT_LEVEL | LVT_MASKED);
    if value & LVT_MODE == 0 {
        return Ok(LvtWrite { value: kept as u64, refused: false });
    }
    Ok(LvtWrite { value: (kept | LVT_MASKED) as u64, refused: value & LVT_MASKED == 0 })
}

const LVT_TIMER_MODE: u64 = 3 << 17;
const LVT_TIMER_RESERVED_MODE: u64 = 3 << 17;
const LVT_TIMER_KNOWN: u64 = (LVT_VECTOR | LVT_STATUS | LVT_MASKED) as u64 | LVT_TIMER_MODE;

/// Rebuilds a write to the LVT's timer entry, which has no delivery mode: hardware refuses those bits, but an emulator may
/// take them for one, and an SMI or INIT of the timer's would take the pCPU away.
///
/// # Errors
/// [`Gp`] for reserved bits and the reserved timer mode.
pub const fn lvt_timer_write(value: u64) -> Result<u64, Gp> {
    if value & !LVT_TIMER_KNOWN != 0 || value & LVT_TIMER_MODE == LVT_TIMER_RESERVED_MODE {
        return Err(Gp);
    }
    Ok(value & !(LVT_STATUS as u64))
}
