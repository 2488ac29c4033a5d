//! A sample of the MSR policy.

use partita_rt::{Error, Machine, rdtsc};

use crate::catch::{GP, NOTHING, error_code, read_msr, write_msr};
use crate::claims::Claims;

const APIC_BASE: u32 = 0x1B;
const TSC: u32 = 0x10;
const EFER: u32 = 0xC000_0080;
const EFER_SVME: u64 = 1 << 12;
const EFER_SCE: u64 = 1;
const XSS: u32 = 0xDA0;
const LVT_TIMER: u32 = 0x832;
const LVT_LINT0: u32 = 0x835;
const LVT_LINT1: u32 = 0x836;
const LVT_ERROR: u32 = 0x837;
const LVT_MASKED: u64 = 1 << 16;
const LVT_MODE: u64 = 7 << 8;
const MODE_SMI: u64 = 2 << 8;
const MODE_NMI: u64 = 4 << 8;
const MODE_INIT: u64 = 5 << 8;
const MODE_EXTERNAL: u64 = 7 << 8;
const VECTOR: u64 = 0x55;
const GP_ERROR_CODE: u64 = 0;

/// The claims.
pub(crate) fn test(_machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(500);
    absent(&mut claims);
    efer(&mut claims);
    own(&mut claims);
    state_components(&mut claims);
    fixed(&mut claims);
    local_vectors(&mut claims);
    Ok(())
}

fn absent(claims: &mut Claims) {
    for (msr, text) in [
        (0xC001_0114, "VM_CR is not there"),
        (0xC001_0117, "VM_HSAVE_PA is not there"),
        (0xC001_0118, "SVM_KEY is not there"),
        (0x3A, "FEATURE_CONTROL is not there"),
        (0x480, "VMX_BASIC is not there"),
        (0x491, "nor the last of VMX's"),
        (0x1234_5678, "an unknown MSR is not there"),
        (0x82F, "LVT CMCI is not there"),
        (0x840, "no APIC register beyond the last"),
        (0xC001_0062, "no power states"),
    ] {
        claims.equal(text, read_msr(msr).err().unwrap_or(NOTHING), GP);
        claims.equal("  its error code", error_code(), GP_ERROR_CODE);
        claims.equal("  nor for writes", write_msr(msr, 0), GP);
    }
    for (msr, text) in [(0x802, "the APIC ID is read-only"), (0x80D, "the logical ID is read-only")] {
        claims.equal(text, write_msr(msr, 5), GP);
    }
    claims.equal("EOI is write-only", read_msr(0x80B).err().unwrap_or(NOTHING), GP);
}

fn efer(claims: &mut Claims) {
    let value = read_msr(EFER).unwrap_or(0);
    claims.equal("EFER shows no SVME", value & EFER_SVME, 0);
    claims.equal("EFER shows long mode", value & 0x500, 0x500);
    claims.equal("SVME cannot be set", write_msr(EFER, value | EFER_SVME), GP);
    claims.equal("reserved bits of EFER cannot be set", write_msr(EFER, value | 1 << 40), GP);
    claims.equal("LME cannot be cleared while paging", write_msr(EFER, value & !0x100), GP);
    claims.equal("SCE can be set", write_msr(EFER, value | EFER_SCE), NOTHING);
    claims.equal("  and shows", read_msr(EFER).unwrap_or(0), value | EFER_SCE);
    claims.equal("EFER can be written back", write_msr(EFER, value), NOTHING);
    claims.equal("  and shows", read_msr(EFER).unwrap_or(0), value);
}

/// Registers that are the guest's own.
fn own(claims: &mut Claims) {
    for (msr, value, text) in [
        (0xC000_0081, 0x0023_0008_0000_0000, "STAR"),
        (0xC000_0082, 0xFFFF_8000_1234_5678, "LSTAR"),
        (0xC000_0083, 0xFFFF_8000_1234_0000, "CSTAR"),
        (0xC000_0084, 0x4_7700, "SFMASK"),
        (0xC000_0100, 0xFFFF_8000_1000_0000, "FS base"),
        (0xC000_0102, 0xFFFF_8000_2000_0000, "kernel GS base"),
        (0x174, 0x10, "SYSENTER_CS"),
        (0x175, 0xFFFF_8000_3000_0000, "SYSENTER_ESP"),
        (0x277, 0x0007_0406_0007_0406, "PAT"),
    ] {
        claims.equal(text, write_msr(msr, value), NOTHING);
        // An exit in between must keep it.
        core::hint::black_box(core::arch::x86_64::__cpuid(0));
        claims.equal("  keeps its value", read_msr(msr).unwrap_or(0), value);
    }
}

/// XSS: no state component of the kernel's. Where CPUID shows no XSAVES the register may be there or not: QEMU's can be read and
/// written 0, Bochs' only read.
fn state_components(claims: &mut Claims) {
    if core::arch::x86_64::__cpuid_count(0xD, 1).eax >> 3 & 1 == 1 {
        claims.equal("XSS is there as CPUID says", read_msr(XSS).err().unwrap_or(NOTHING), NOTHING);
        claims.equal("  it can be written 0", write_msr(XSS, 0), NOTHING);
    }
    claims.equal("XSS cannot have the bit of processor trace", write_msr(XSS, 1 << 8), GP);
    claims.equal("  nor that of CET", write_msr(XSS, 1 << 11), GP);
}

/// Registers whose value stays.
fn fixed(claims: &mut Claims) {
    let before = rdtsc();
    claims.equal("a write of the TSC", write_msr(TSC, 0), NOTHING);
    claims.holds("  has no effect", rdtsc() > before);
    let base = read_msr(APIC_BASE).unwrap_or(0);
    claims.equal("APIC_BASE can be written back", write_msr(APIC_BASE, base), NOTHING);
    claims.equal("reserved bits of APIC_BASE cannot be set", write_msr(APIC_BASE, base | 1), GP);
    claims.equal("there is no microcode to update", read_msr(0x8B).unwrap_or(1), 0);
    claims.equal("there are no machine-check banks", read_msr(0x179).unwrap_or(1), 0);
    claims.equal("a bank reads as 0", read_msr(0x400).unwrap_or(1), 0);
    claims.equal("DEBUGCTL can be written", write_msr(0x1D9, 1), NOTHING);
    claims.equal("  without effect", read_msr(0x1D9).unwrap_or(1), 0);
}

/// The local vector table: fixed interrupts only.
fn local_vectors(claims: &mut Claims) {
    for (msr, mode, text) in [
        (LVT_LINT0, MODE_SMI, "LINT0 as SMI"),
        (LVT_LINT0, MODE_INIT, "LINT0 as INIT"),
        (LVT_LINT0, MODE_EXTERNAL, "LINT0 as ExtINT"),
        (LVT_LINT1, MODE_NMI, "LINT1 as NMI"),
        (LVT_ERROR, MODE_SMI, "the error entry as SMI"),
    ] {
        claims.equal(text, write_msr(msr, mode | VECTOR), NOTHING);
        let value = read_msr(msr).unwrap_or(0);
        claims.equal("  is masked", value & LVT_MASKED, LVT_MASKED);
        claims.equal("  and fixed", value & LVT_MODE, 0);
        claims.equal("  masked it is no matter", write_msr(msr, LVT_MASKED | mode), NOTHING);
    }
    claims.equal("LINT0 as a fixed interrupt", write_msr(LVT_LINT0, VECTOR), NOTHING);
    claims.equal("  is as written", read_msr(LVT_LINT0).unwrap_or(0), VECTOR);
    claims.equal("  and masked again", write_msr(LVT_LINT0, LVT_MASKED), NOTHING);
    for (value, text) in [
        (MODE_SMI | VECTOR, "the timer as SMI"),
        (MODE_INIT | VECTOR, "the timer as INIT"),
        (3 << 17 | VECTOR, "the timer's reserved mode"),
        (1 << 32 | VECTOR, "reserved bits of the timer"),
    ] {
        claims.equal(text, write_msr(LVT_TIMER, value), GP);
    }
    claims.equal("the timer stays as it was", read_msr(LVT_TIMER).unwrap_or(0) & LVT_MODE, 0);
    claims.equal("reserved bits of LINT0", write_msr(LVT_LINT0, 1 << 20), GP);
}
