//! What VM entry checks of the hypervisor's own state in a VMCS (SDM vol. 3 sections 27.2.2 to 27.2.4): names the rule behind
//! [`InvalidHostState`](super::exit::InstructionError::INVALID_HOST_STATE), which the CPU does not.
//!
//! For a hypervisor in 64-bit mode. What belongs to an exit control that Partita never switches on is not looked at.

use super::capability::{FixedBits, VmxCapabilities};
use super::control::Exit;
use super::field::{self, AnyField, Field, Value};
use super::guest_state::Cpu;
use super::rule::{
    BEYOND_PHYSICAL, Broken, CANONICAL, Checked, FIXED_TO_0, FIXED_TO_1, MEMORY_TYPES, RESERVED, Section,
    has_memory_types,
};
use crate::msr_values::{EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE};

const REGISTERS: Section = Section("27.2.2");
const SEGMENTS: Section = Section("27.2.3");
const ADDRESS_SPACE: Section = Section("27.2.4");

const CR4_PAE: u64 = 1 << 5;
/// RPL and TI.
const SELECTOR_LOW: u16 = 7;

/// The selectors: of CS and TR first.
const SELECTORS: [Field<u16>; 7] = [
    field::HOST_CS_SELECTOR,
    field::HOST_TR_SELECTOR,
    field::HOST_SS_SELECTOR,
    field::HOST_DS_SELECTOR,
    field::HOST_ES_SELECTOR,
    field::HOST_FS_SELECTOR,
    field::HOST_GS_SELECTOR,
];
/// Those that must not be 0.
const NEEDED: usize = 2;
/// Addresses in SDM vol. 3 section 27.2.2.
const ENTRY_POINTS: [Field<u64>; 2] = [field::HOST_IA32_SYSENTER_ESP, field::HOST_IA32_SYSENTER_EIP];
/// Addresses in section 27.2.3.
const BASES: [Field<u64>; 5] =
    [field::HOST_FS_BASE, field::HOST_GS_BASE, field::HOST_GDTR_BASE, field::HOST_IDTR_BASE, field::HOST_TR_BASE];

/// The hypervisor's state, as the fields of a VMCS have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct HostState {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub pat: u64,
    pub efer: u64,
    pub rip: u64,
    /// SYSENTER's stack pointer and instruction pointer.
    pub entry_points: [u64; 2],
    /// Of CS, TR, SS, DS, ES, FS and GS.
    pub selectors: [u16; 7],
    /// Of FS, GS, GDTR, IDTR and TR.
    pub bases: [u64; 5],
    /// The exit controls.
    pub exit: Exit,
}

impl HostState {
    /// Collects it; `read` reads a field of the current VMCS. Not for the exit path.
    pub fn collect(mut read: impl FnMut(AnyField) -> u64) -> Self {
        Self::of(&mut read)
    }

    /// One body for whatever reads.
    fn of(read: &mut dyn FnMut(AnyField) -> u64) -> Self {
        fn get<T: Value>(read: &mut dyn FnMut(AnyField) -> u64, field: Field<T>) -> T {
            T::from_u64(read(field.any()))
        }
        Self {
            cr0: get(read, field::HOST_CR0),
            cr3: get(read, field::HOST_CR3),
            cr4: get(read, field::HOST_CR4),
            pat: get(read, field::HOST_IA32_PAT),
            efer: get(read, field::HOST_IA32_EFER),
            rip: get(read, field::HOST_RIP),
            entry_points: ENTRY_POINTS.map(|field| get(read, field)),
            selectors: SELECTORS.map(|field| get(read, field)),
            bases: BASES.map(|field| get(read, field)),
            exit: Exit::from_bits_retain(get(read, field::PRIMARY_VM_EXIT_CONTROLS)),
        }
    }

    /// Checks it for a CPU.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, capabilities: &VmxCapabilities, cpu: &Cpu) -> Result<(), Broken> {
        self.check_registers(capabilities, cpu)?;
        for (number, (field, selector)) in SELECTORS.into_iter().zip(self.selectors).enumerate() {
            let low = u64::from(selector & SELECTOR_LOW);
            SEGMENTS.none(low, field, selector, "RPL and TI (bits 2:0) have to be clear")?;
            SEGMENTS.demand(selector != 0 || number >= NEEDED, field, selector, "it must not be 0")?;
        }
        check_canonical(SEGMENTS, &BASES, &self.bases, cpu)?;
        let (field, exit) = (field::PRIMARY_VM_EXIT_CONTROLS, self.exit.bits());
        let rule = "\"host address-space size\" (bit 9) has to be set: the hypervisor is in 64-bit mode";
        ADDRESS_SPACE.demand(self.exit.contains(Exit::HOST_ADDRESS_SPACE_SIZE), field, exit, rule)?;
        ADDRESS_SPACE.demand(self.cr4 & CR4_PAE != 0, field::HOST_CR4, self.cr4, "PAE (bit 5) has to be set")?;
        ADDRESS_SPACE.demand(cpu.canonical(self.rip), field::HOST_RIP, self.rip, CANONICAL)
    }

    fn check_registers(&self, capabilities: &VmxCapabilities, cpu: &Cpu) -> Checked {
        check_fixed(field::HOST_CR0, self.cr0, capabilities.cr0)?;
        check_fixed(field::HOST_CR4, self.cr4, capabilities.cr4)?;
        REGISTERS.none(self.cr3 & cpu.beyond_physical(), field::HOST_CR3, self.cr3, BEYOND_PHYSICAL)?;
        check_canonical(REGISTERS, &ENTRY_POINTS, &self.entry_points, cpu)?;
        if self.exit.contains(Exit::LOAD_PAT) {
            REGISTERS.demand(has_memory_types(self.pat), field::HOST_IA32_PAT, self.pat, MEMORY_TYPES)?;
        }
        if !self.exit.contains(Exit::LOAD_EFER) {
            return Ok(());
        }
        let (field, efer) = (field::HOST_IA32_EFER, self.efer);
        REGISTERS.none(efer & !(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE), field, efer, RESERVED)?;
        let is_long = efer & (EFER_LME | EFER_LMA) == EFER_LME | EFER_LMA;
        REGISTERS.demand(is_long, field, efer, "LME (bit 8) and LMA (bit 10) have to be set: 64-bit mode")
    }
}

fn check_fixed(field: Field<u64>, value: u64, fixed: FixedBits) -> Checked {
    REGISTERS.none(fixed.must_be_1 & !value, field, value, FIXED_TO_1)?;
    REGISTERS.none(value & !fixed.may_be_1, field, value, FIXED_TO_0)
}

fn check_canonical(section: Section, fields: &[Field<u64>], values: &[u64], cpu: &Cpu) -> Checked {
    for (field, value) in fields.iter().zip(values) {
        section.demand(cpu.canonical(*value), *field, *value, CANONICAL)?;
    }
    Ok(())
}
