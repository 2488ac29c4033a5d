//! What VM entry checks of a VMCS' controls (SDM vol. 3 section 27.2.1), but for the event to deliver: names the rule behind
//! [`InvalidControls`](super::exit::InstructionError::INVALID_CONTROLS), which the CPU does not.
//!
//! For VMCSs as Partita makes them: what belongs to a control that it never switches on is not looked at, and that control is
//! wrong only if the CPU does not have it.

use super::capability::{Allowed, VmxCapabilities};
use super::control::{Entry, Exit, PinBased, Primary, Secondary};
use super::ept::MemoryType;
use super::field::{self, AnyField, Field, Value};
use super::guest_state::Cpu;
use super::rule::{BEYOND_PHYSICAL, Broken, Checked, RESERVED, Section};

const EXECUTION: Section = Section("27.2.1.1");
const EXIT: Section = Section("27.2.1.2");
const ENTRY: Section = Section("27.2.1.3");

const LOW_12: u64 = 0xFFF;
const EPTP_TYPE: u64 = 7;
const EPTP_LEVELS: u64 = 7 << 3;
/// One less than the levels.
const EPTP_4_LEVELS: u64 = 3 << 3;
const EPTP_ACCESSED_DIRTY: u64 = 1 << 6;
const EPTP_RESERVED: u64 = 0x1F << 7;

/// The controls, as the fields of a VMCS have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlState {
    /// Pin-based controls.
    pub pin: PinBased,
    /// Primary processor-based controls.
    pub primary: Primary,
    /// Secondary ones, which count if the primary ones say so.
    pub secondary: Secondary,
    /// Exit controls.
    pub exit: Exit,
    /// Entry controls.
    pub entry: Entry,
    /// How many values of CR3 can be loaded without an exit.
    pub cr3_targets: u32,
    /// Physical addresses of I/O bitmaps A and B.
    pub io_bitmaps: [u64; 2],
    /// Physical address of the MSR bitmaps.
    pub msr_bitmaps: u64,
    /// The virtual-processor identifier.
    pub vpid: u16,
    /// The EPT pointer.
    pub ept_pointer: u64,
}

impl ControlState {
    /// Collects them; `read` reads a field of the current VMCS, 0 if the CPU does not have it. Not for the exit path.
    pub fn collect(mut read: impl FnMut(AnyField) -> u64) -> Self {
        Self::of(&mut read)
    }

    /// One body for whatever reads.
    fn of(read: &mut dyn FnMut(AnyField) -> u64) -> Self {
        fn get<T: Value>(read: &mut dyn FnMut(AnyField) -> u64, field: Field<T>) -> T {
            T::from_u64(read(field.any()))
        }
        Self {
            pin: PinBased::from_bits_retain(get(read, field::PIN_BASED_CONTROLS)),
            primary: Primary::from_bits_retain(get(read, field::PRIMARY_PROCESSOR_BASED_CONTROLS)),
            secondary: Secondary::from_bits_retain(get(read, field::SECONDARY_PROCESSOR_BASED_CONTROLS)),
            exit: Exit::from_bits_retain(get(read, field::PRIMARY_VM_EXIT_CONTROLS)),
            entry: Entry::from_bits_retain(get(read, field::VM_ENTRY_CONTROLS)),
            cr3_targets: get(read, field::CR3_TARGET_COUNT),
            io_bitmaps: [get(read, field::IO_BITMAP_A), get(read, field::IO_BITMAP_B)],
            msr_bitmaps: get(read, field::MSR_BITMAPS),
            vpid: get(read, field::VIRTUAL_PROCESSOR_IDENTIFIER),
            ept_pointer: get(read, field::EPT_POINTER),
        }
    }

    /// Checks them for a CPU.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn check(&self, capabilities: &VmxCapabilities, cpu: &Cpu) -> Result<(), Broken> {
        self.check_words(capabilities)?;
        self.check_bitmaps(cpu)?;
        self.check_together()?;
        if self.secondary().contains(Secondary::ENABLE_EPT) {
            self.check_ept_pointer(capabilities, cpu)?;
        }
        let (field, exit) = (field::PRIMARY_VM_EXIT_CONTROLS, self.exit.bits());
        let saves = self.exit.contains(Exit::SAVE_PREEMPTION_TIMER);
        let counts = self.pin.contains(PinBased::ACTIVATE_PREEMPTION_TIMER);
        let rule = "saving the preemption timer's value (bit 22) demands that it be activated";
        EXIT.demand(!saves || counts, field, exit, rule)?;
        let of_smm = (self.entry & (Entry::ENTRY_TO_SMM | Entry::DEACTIVATE_DUAL_MONITOR)).bits();
        let rule = "bits 11:10 have to be clear outside of system-management mode";
        ENTRY.none(of_smm.into(), field::VM_ENTRY_CONTROLS, self.entry.bits(), rule)
    }

    /// The secondary controls as they count.
    fn secondary(&self) -> Secondary {
        if self.primary.contains(Primary::ACTIVATE_SECONDARY_CONTROLS) { self.secondary } else { Secondary::empty() }
    }

    fn check_words(&self, capabilities: &VmxCapabilities) -> Checked {
        check_word(EXECUTION, field::PIN_BASED_CONTROLS, self.pin.bits(), capabilities.pin)?;
        let primary = field::PRIMARY_PROCESSOR_BASED_CONTROLS;
        check_word(EXECUTION, primary, self.primary.bits(), capabilities.primary)?;
        if self.primary.contains(Primary::ACTIVATE_SECONDARY_CONTROLS) {
            let secondary = field::SECONDARY_PROCESSOR_BASED_CONTROLS;
            check_word(EXECUTION, secondary, self.secondary.bits(), capabilities.secondary)?;
        }
        check_word(EXIT, field::PRIMARY_VM_EXIT_CONTROLS, self.exit.bits(), capabilities.exit)?;
        check_word(ENTRY, field::VM_ENTRY_CONTROLS, self.entry.bits(), capabilities.entry)?;
        let most = capabilities.misc.cr3_targets();
        let rule = "it has to be at most what IA32_VMX_MISC says (bits 24:16)";
        EXECUTION.demand(self.cr3_targets <= most, field::CR3_TARGET_COUNT, self.cr3_targets, rule)
    }

    fn check_bitmaps(&self, cpu: &Cpu) -> Checked {
        if self.primary.contains(Primary::USE_IO_BITMAPS) {
            let [a, b] = self.io_bitmaps;
            check_page(field::IO_BITMAP_A, a, cpu)?;
            check_page(field::IO_BITMAP_B, b, cpu)?;
        }
        if self.primary.contains(Primary::USE_MSR_BITMAPS) {
            check_page(field::MSR_BITMAPS, self.msr_bitmaps, cpu)?;
        }
        Ok(())
    }

    /// Controls that need others.
    fn check_together(&self) -> Checked {
        let (pin, primary, secondary) = (self.pin, self.primary, self.secondary());
        let virtual_nmis = pin.contains(PinBased::VIRTUAL_NMIS);
        let rule = "\"virtual NMIs\" (bit 5) demands \"NMI exiting\" (bit 3)";
        let holds = !virtual_nmis || pin.contains(PinBased::NMI_EXITING);
        EXECUTION.demand(holds, field::PIN_BASED_CONTROLS, pin.bits(), rule)?;
        let rule = "\"NMI-window exiting\" (bit 22) demands \"virtual NMIs\"";
        let holds = !primary.contains(Primary::NMI_WINDOW_EXITING) || virtual_nmis;
        EXECUTION.demand(holds, field::PRIMARY_PROCESSOR_BASED_CONTROLS, primary.bits(), rule)?;
        let demand =
            |holds, rule| EXECUTION.demand(holds, field::SECONDARY_PROCESSOR_BASED_CONTROLS, secondary.bits(), rule);
        let virtual_apic = Secondary::VIRTUALIZE_X2APIC_MODE
            | Secondary::APIC_REGISTER_VIRTUALIZATION
            | Secondary::VIRTUAL_INTERRUPT_DELIVERY;
        let has_shadow = primary.contains(Primary::USE_TPR_SHADOW);
        demand(has_shadow || !secondary.intersects(virtual_apic), "bits 4, 8 and 9 demand \"use TPR shadow\"")?;
        let both = Secondary::VIRTUALIZE_APIC_ACCESSES | Secondary::VIRTUALIZE_X2APIC_MODE;
        demand(!secondary.contains(both), "bits 0 and 4 exclude each other: the APIC's page and x2APIC mode")?;
        let exits = pin.contains(PinBased::EXTERNAL_INTERRUPT_EXITING);
        let delivers = secondary.contains(Secondary::VIRTUAL_INTERRUPT_DELIVERY);
        demand(exits || !delivers, "\"virtual-interrupt delivery\" (bit 9) demands \"external-interrupt exiting\"")?;
        let needs_ept = Secondary::UNRESTRICTED_GUEST | Secondary::ENABLE_PML | Secondary::MODE_BASED_EXECUTE_CONTROL;
        let has_ept = secondary.contains(Secondary::ENABLE_EPT);
        demand(has_ept || !secondary.intersects(needs_ept), "bits 7, 17 and 22 demand \"enable EPT\" (bit 1)")?;
        let holds = self.vpid != 0 || !secondary.contains(Secondary::ENABLE_VPID);
        let rule = "it must not be 0, which is the hypervisor's";
        EXECUTION.demand(holds, field::VIRTUAL_PROCESSOR_IDENTIFIER, self.vpid, rule)
    }

    fn check_ept_pointer(&self, capabilities: &VmxCapabilities, cpu: &Cpu) -> Checked {
        let (field, pointer, can) = (field::EPT_POINTER, self.ept_pointer, capabilities.ept_vpid);
        let memory_type = pointer & EPTP_TYPE;
        let is_known = memory_type == MemoryType::WriteBack as u64 && can.tables_write_back()
            || memory_type == MemoryType::Uncached as u64 && can.tables_uncached();
        let rule = "bits 2:0 have to be a memory type for tables: 6, write-back, or 0, uncached, if the CPU has it";
        EXECUTION.demand(is_known, field, pointer, rule)?;
        let has_4_levels = pointer & EPTP_LEVELS == EPTP_4_LEVELS && can.walk_4_levels();
        EXECUTION.demand(has_4_levels, field, pointer, "bits 5:3 have to be 3, for four levels")?;
        let notes = pointer & EPTP_ACCESSED_DIRTY != 0;
        let rule = "bit 6 demands that the CPU have accessed and dirty flags";
        EXECUTION.demand(!notes || can.accessed_dirty(), field, pointer, rule)?;
        EXECUTION.none(pointer & EPTP_RESERVED, field, pointer, RESERVED)?;
        EXECUTION.none(pointer & cpu.beyond_physical(), field, pointer, BEYOND_PHYSICAL)
    }
}

fn check_word(section: Section, field: Field<u32>, value: u32, allowed: Allowed) -> Checked {
    let absent = allowed.must_be_1 & !value;
    section.none(absent.into(), field, value, "bits that this CPU demands have to be set")?;
    let unknown = value & !allowed.may_be_1;
    section.none(unknown.into(), field, value, "bits that this CPU does not have have to be clear")
}

fn check_page(field: Field<u64>, address: u64, cpu: &Cpu) -> Checked {
    EXECUTION.none(address & LOW_12, field, address, "bits 11:0 have to be clear")?;
    EXECUTION.none(address & cpu.beyond_physical(), field, address, BEYOND_PHYSICAL)
}
