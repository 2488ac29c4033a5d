//! Control registers, debug registers, MSRs, descriptor tables, RIP and RFLAGS (SDM vol. 3 sections 27.3.1.1, 27.3.1.3 and
//! 27.3.1.4).

use super::{CR0_PE, CR0_PG, CR4_PAE, Checked, Cpu, GuestState, RFLAGS_IF, RFLAGS_VM, Section};
use crate::msr_values::{EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE};
use crate::vmx::capability::FixedBits;
use crate::vmx::control::Entry;
use crate::vmx::event::EventKind;
use crate::vmx::field::{self, Field};
pub(super) use crate::vmx::rule::CANONICAL;
use crate::vmx::rule::{BEYOND_PHYSICAL, FIXED_TO_0, FIXED_TO_1, MEMORY_TYPES, RESERVED, has_memory_types};

const CONTROL: Section = Section("27.3.1.1");
const TABLES: Section = Section("27.3.1.3");
const RIP_AND_FLAGS: Section = Section("27.3.1.4");

const CR0_WP: u64 = 1 << 16;
/// NW and CD, which no entry changes.
const CR0_CACHE: u64 = 3 << 29;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_CET: u64 = 1 << 23;
const DEBUGCTL_RESERVED: u64 = !0xFFFF | 7 << 3;
const RFLAGS_FIXED: u64 = 1 << 1;
const RFLAGS_RESERVED: u64 = !((1 << 22) - 1) | 1 << 15 | 1 << 5 | 1 << 3;
const UPPER_HALF: u64 = !0xFFFF_FFFF;

fn check_fixed(field: Field<u64>, value: u64, fixed: FixedBits, never: u64) -> Checked {
    CONTROL.none(fixed.must_be_1 & !value & !never, field, value, FIXED_TO_1)?;
    CONTROL.none(value & !fixed.may_be_1 & !never, field, value, FIXED_TO_0)
}

pub(super) fn check(state: &GuestState, cpu: &Cpu) -> Checked {
    check_control_registers(state, cpu)?;
    if state.entry.contains(Entry::LOAD_DEBUG_CONTROLS) {
        let reserved = state.debugctl & DEBUGCTL_RESERVED;
        CONTROL.none(reserved, field::GUEST_IA32_DEBUGCTL, state.debugctl, RESERVED)?;
        CONTROL.none(state.dr7 & UPPER_HALF, field::GUEST_DR7, state.dr7, "bits 63:32 have to be clear")?;
    }
    let (esp, eip) = (state.sysenter_esp, state.sysenter_eip);
    CONTROL.demand(cpu.canonical(esp), field::GUEST_IA32_SYSENTER_ESP, esp, CANONICAL)?;
    CONTROL.demand(cpu.canonical(eip), field::GUEST_IA32_SYSENTER_EIP, eip, CANONICAL)?;
    if state.entry.contains(Entry::LOAD_PAT) {
        CONTROL.demand(has_memory_types(state.pat), field::GUEST_IA32_PAT, state.pat, MEMORY_TYPES)?;
    }
    if state.entry.contains(Entry::LOAD_EFER) { check_efer(state) } else { Ok(()) }
}

fn check_control_registers(state: &GuestState, cpu: &Cpu) -> Checked {
    let (cr0, cr3, cr4) = (state.cr0, state.cr3, state.cr4);
    check_fixed(field::GUEST_CR0, cr0, cpu.cr0, CR0_CACHE)?;
    CONTROL.demand(cr0 & CR0_PG == 0 || cr0 & CR0_PE != 0, field::GUEST_CR0, cr0, "PG (bit 31) demands PE (bit 0)")?;
    check_fixed(field::GUEST_CR4, cr4, cpu.cr4, 0)?;
    let has_wp = cr4 & CR4_CET == 0 || cr0 & CR0_WP != 0;
    CONTROL.demand(has_wp, field::GUEST_CR4, cr4, "CET (bit 23) demands CR0.WP")?;
    if state.ia32e() {
        CONTROL.demand(cr0 & CR0_PG != 0, field::GUEST_CR0, cr0, "\"IA-32e mode guest\" demands PG (bit 31)")?;
        CONTROL.demand(cr4 & CR4_PAE != 0, field::GUEST_CR4, cr4, "\"IA-32e mode guest\" demands PAE (bit 5)")?;
    } else {
        let rule = "PCIDE (bit 17) demands \"IA-32e mode guest\"";
        CONTROL.demand(cr4 & CR4_PCIDE == 0, field::GUEST_CR4, cr4, rule)?;
    }
    CONTROL.none(cr3 & cpu.beyond_physical(), field::GUEST_CR3, cr3, BEYOND_PHYSICAL)
}

fn check_efer(state: &GuestState) -> Checked {
    let (field, efer) = (field::GUEST_IA32_EFER, state.efer);
    let reserved = efer & !(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
    CONTROL.none(reserved, field, efer, RESERVED)?;
    let is_lma = efer & EFER_LMA != 0;
    CONTROL.demand(is_lma == state.ia32e(), field, efer, "LMA (bit 10) has to be as \"IA-32e mode guest\"")?;
    let is_lme = efer & EFER_LME != 0;
    let rule = "under CR0.PG, LME (bit 8) has to be as LMA (bit 10)";
    CONTROL.demand(state.cr0 & CR0_PG == 0 || is_lme == is_lma, field, efer, rule)
}

pub(super) fn check_tables(state: &GuestState, cpu: &Cpu) -> Checked {
    for (base, limit, table) in [
        (field::GUEST_GDTR_BASE, field::GUEST_GDTR_LIMIT, state.gdtr),
        (field::GUEST_IDTR_BASE, field::GUEST_IDTR_LIMIT, state.idtr),
    ] {
        TABLES.demand(cpu.canonical(table.base), base, table.base, CANONICAL)?;
        TABLES.demand(table.limit <= 0xFFFF, limit, table.limit, "bits 31:16 have to be clear")?;
    }
    Ok(())
}

pub(super) fn check_rip_and_flags(state: &GuestState, cpu: &Cpu) -> Checked {
    let (field, rip) = (field::GUEST_RIP, state.rip);
    if state.ia32e() && state.cs.access_rights.long() {
        let alike = Cpu::alike_from(rip, cpu.linear_bits);
        RIP_AND_FLAGS.demand(alike, field, rip, "bits beyond the CPU's linear addresses have to be alike")?;
    } else {
        RIP_AND_FLAGS.none(rip & UPPER_HALF, field, rip, "bits 63:32 have to be clear but in 64-bit mode")?;
    }
    let (field, rflags) = (field::GUEST_RFLAGS, state.rflags);
    RIP_AND_FLAGS.none(rflags & RFLAGS_RESERVED, field, rflags, RESERVED)?;
    RIP_AND_FLAGS.demand(rflags & RFLAGS_FIXED != 0, field, rflags, "bit 1 has to be set")?;
    let may_be_8086 = !state.ia32e() && state.cr0 & CR0_PE != 0;
    let rule = "VM (bit 17) demands CR0.PE, and no \"IA-32e mode guest\"";
    RIP_AND_FLAGS.demand(rflags & RFLAGS_VM == 0 || may_be_8086, field, rflags, rule)?;
    let interrupts = state.event.valid() && matches!(state.event.kind(), EventKind::ExternalInterrupt);
    let rule = "an interrupt to deliver demands IF (bit 9)";
    RIP_AND_FLAGS.demand(rflags & RFLAGS_IF != 0 || !interrupts, field, rflags, rule)
}
