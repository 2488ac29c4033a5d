//! What VM entry checks of a guest's state (SDM vol. 3 section 27.3): names the rule that a failed entry broke, which the CPU
//! does not.
//!
//! For guests as Partita enters them: unrestricted, with virtual NMIs, outside system-management mode.

mod event;
mod non_register;
mod registers;
mod segments;

use super::capability::{FixedBits, Misc, VmxCapabilities};
use super::control::Entry;
use super::event::{Interruptibility, InterruptionInfo};
use super::field::{self, AnyField, Field, SegmentFields, Value};
use super::rule::{Checked, Section};

pub use super::rule::Broken;
pub use segments::AccessRights;

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base.
    pub base: u64,
    /// Limit in bytes, the last one included.
    pub limit: u32,
    /// Access rights.
    pub access_rights: AccessRights,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Base.
    pub base: u64,
    /// Limit in bytes, the last one included.
    pub limit: u32,
}

/// What VM entry checks, as the fields of a VMCS have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct GuestState {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr7: u64,
    pub rip: u64,
    pub rflags: u64,
    pub efer: u64,
    pub pat: u64,
    pub debugctl: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: Table,
    pub idtr: Table,
    /// The activity state, which need not be a [`super::event::Activity`].
    pub activity: u32,
    pub interruptibility: Interruptibility,
    /// Bits of [`super::event::pending_debug`].
    pub pending_debug: u64,
    /// All ones, as VMCSs are not shadowed.
    pub link_pointer: u64,
    /// Page-directory pointers, for a guest with PAE paging.
    pub pdptes: [u64; 4],
    /// The entry controls.
    pub entry: Entry,
    /// The event to deliver.
    pub event: InterruptionInfo,
    /// Its error code.
    pub event_error_code: u32,
    /// The length of the instruction that asked for it.
    pub event_instruction_length: u32,
}

impl GuestState {
    /// Collects it; `read` reads a field of the current VMCS. Not for the exit path.
    pub fn collect(mut read: impl FnMut(AnyField) -> u64) -> Self {
        Self::of(&mut read)
    }

    /// One body for whatever reads.
    fn of(read: &mut dyn FnMut(AnyField) -> u64) -> Self {
        fn get<T: Value>(read: &mut dyn FnMut(AnyField) -> u64, field: Field<T>) -> T {
            T::from_u64(read(field.any()))
        }
        #[inline(never)]
        fn segment(read: &mut dyn FnMut(AnyField) -> u64, fields: SegmentFields) -> Segment {
            Segment {
                selector: get(read, fields.selector),
                base: get(read, fields.base),
                limit: get(read, fields.limit),
                access_rights: AccessRights(get(read, fields.access_rights)),
            }
        }
        use field::segment::{CS, DS, ES, FS, GS, LDTR, SS, TR};
        let [es, cs, ss, ds, fs, gs, ldtr, tr] = [ES, CS, SS, DS, FS, GS, LDTR, TR].map(|fields| segment(read, fields));
        Self {
            cr0: get(read, field::GUEST_CR0),
            cr3: get(read, field::GUEST_CR3),
            cr4: get(read, field::GUEST_CR4),
            dr7: get(read, field::GUEST_DR7),
            rip: get(read, field::GUEST_RIP),
            rflags: get(read, field::GUEST_RFLAGS),
            efer: get(read, field::GUEST_IA32_EFER),
            pat: get(read, field::GUEST_IA32_PAT),
            debugctl: get(read, field::GUEST_IA32_DEBUGCTL),
            sysenter_esp: get(read, field::GUEST_IA32_SYSENTER_ESP),
            sysenter_eip: get(read, field::GUEST_IA32_SYSENTER_EIP),
            es,
            cs,
            ss,
            ds,
            fs,
            gs,
            ldtr,
            tr,
            gdtr: Table { base: get(read, field::GUEST_GDTR_BASE), limit: get(read, field::GUEST_GDTR_LIMIT) },
            idtr: Table { base: get(read, field::GUEST_IDTR_BASE), limit: get(read, field::GUEST_IDTR_LIMIT) },
            activity: get(read, field::GUEST_ACTIVITY_STATE),
            interruptibility: Interruptibility(get(read, field::GUEST_INTERRUPTIBILITY_STATE)),
            pending_debug: get(read, field::GUEST_PENDING_DEBUG_EXCEPTIONS),
            link_pointer: get(read, field::VMCS_LINK_POINTER),
            pdptes: PDPTES.map(|pdpte| get(read, pdpte)),
            entry: Entry::from_bits_retain(get(read, field::VM_ENTRY_CONTROLS)),
            event: InterruptionInfo(get(read, field::VM_ENTRY_INTERRUPTION_INFORMATION)),
            event_error_code: get(read, field::VM_ENTRY_EXCEPTION_ERROR_CODE),
            event_instruction_length: get(read, field::VM_ENTRY_INSTRUCTION_LENGTH),
        }
    }

    /// Checks the guest's state, as behind a failed entry (exit reason 33).
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, cpu: &Cpu) -> Result<(), Broken> {
        registers::check(self, cpu)?;
        segments::check(self, cpu)?;
        registers::check_tables(self, cpu)?;
        registers::check_rip_and_flags(self, cpu)?;
        non_register::check(self, cpu)
    }

    /// Checks the event to deliver, which is a control: behind [`super::exit::InstructionError::INVALID_CONTROLS`].
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check_event(&self, cpu: &Cpu) -> Result<(), Broken> {
        event::check(self, cpu)
    }

    /// Whether the guest is in IA-32e mode behind the entry: the entry control says so.
    const fn ia32e(&self) -> bool {
        self.entry.contains(Entry::IA32E_MODE_GUEST)
    }

    const fn virtual_8086(&self) -> bool {
        self.rflags & RFLAGS_VM != 0
    }
}

/// What the checks depend on beside the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// CR0 of an unrestricted guest.
    pub cr0: FixedBits,
    /// CR4.
    pub cr4: FixedBits,
    /// For the activity states that a guest can be entered in.
    pub misc: Misc,
    /// Whether any exception can be delivered with or without an error code.
    pub any_error_code: bool,
    /// Bits of a physical address.
    pub physical_bits: u8,
    /// Bits of a linear address.
    pub linear_bits: u8,
}

impl Cpu {
    /// The CPU with these capabilities, and EAX of its CPUID leaf 0x8000_0008.
    pub const fn new(capabilities: &VmxCapabilities, address_sizes: u32) -> Self {
        Self {
            cr0: capabilities.guest_cr0(),
            cr4: capabilities.cr4,
            misc: capabilities.misc,
            any_error_code: capabilities.basic.any_error_code(),
            physical_bits: address_sizes as u8,
            linear_bits: (address_sizes >> 8) as u8,
        }
    }

    /// Bits of a physical address that this CPU does not have.
    pub(super) const fn beyond_physical(&self) -> u64 {
        if self.physical_bits < 64 { !((1 << self.physical_bits) - 1) } else { 0 }
    }

    /// Whether the bits from `low` on are all alike.
    const fn alike_from(address: u64, low: u8) -> bool {
        let low = if low < 63 { low } else { 63 };
        matches!(address as i64 >> low, 0 | -1)
    }

    pub(super) const fn canonical(&self, address: u64) -> bool {
        Self::alike_from(address, self.linear_bits.saturating_sub(1))
    }
}

const PDPTES: [Field<u64>; 4] =
    [field::GUEST_PDPTE_0, field::GUEST_PDPTE_1, field::GUEST_PDPTE_2, field::GUEST_PDPTE_3];
const CR0_PE: u64 = 1 << 0;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;
const RFLAGS_VM: u64 = 1 << 17;
const DEBUGCTL_BTF: u64 = 1 << 1;
