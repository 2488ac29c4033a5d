//! States in which vCPUs start, and the values of their fields.

use partita_core::system::Entry as ImageEntry;
use partita_x86_policy::start_state::{self, PAT_RESET, StartState, TableRegister};
use partita_x86_policy::vmx::capability::{FixedBits, Misc};
use partita_x86_policy::vmx::control::Entry;
use partita_x86_policy::vmx::event::{Interruptibility, InterruptionInfo};
use partita_x86_policy::vmx::field::{self, AnyField};
use partita_x86_policy::vmx::guest_state::{AccessRights, Cpu, GuestState, Segment, Table};

/// As Bochs's `tigerlake` has it, and many a CPU.
pub(crate) const CPU: Cpu = Cpu {
    cr0: FixedBits { must_be_1: 1 << 5, may_be_1: 0xFFFF_FFFF },
    cr4: FixedBits { must_be_1: 1 << 13, may_be_1: 0x00FF_FFFF },
    misc: Misc(1 << 6),
    any_error_code: false,
    physical_bits: 39,
    linear_bits: 48,
};

pub(crate) const TF: u64 = 1 << 8;
pub(crate) const IF: u64 = 1 << 9;
pub(crate) const VM: u64 = 1 << 17;
const EFER_LMA: u64 = 1 << 10;
/// NW and CD.
const CR0_CACHE: u64 = 0x6000_0000;
const SIGNATURE: u32 = 0x806C1;

pub(crate) fn real(selector: u16, attributes: u16) -> Segment {
    let access_rights = AccessRights::from_attributes(attributes);
    Segment { selector, base: u64::from(selector) << 4, limit: 0xFFFF, access_rights }
}

pub(crate) fn with_segments(mut state: GuestState, code: Segment, data: Segment) -> GuestState {
    (state.cs, state.ss, state.ds, state.es, state.fs, state.gs) = (code, data, data, data, data, data);
    state
}

/// A start of a vCPU, as the fields have it.
pub(crate) fn start(state: &StartState) -> GuestState {
    let segment = |from: &start_state::Segment| Segment {
        selector: from.selector,
        base: from.base,
        limit: from.limit,
        access_rights: AccessRights::from_attributes(from.attributes),
    };
    let table = |from: &TableRegister| Table { base: from.base, limit: from.limit };
    let mut entry = Entry::LOAD_DEBUG_CONTROLS | Entry::LOAD_PAT | Entry::LOAD_EFER;
    entry.set(Entry::IA32E_MODE_GUEST, state.efer & EFER_LMA != 0);
    let data = segment(&state.data);
    GuestState {
        cr0: CPU.cr0.apply(state.cr0 & !CR0_CACHE),
        cr3: state.cr3,
        cr4: CPU.cr4.apply(state.cr4),
        dr7: state.dr7,
        rip: state.rip,
        rflags: state.rflags,
        efer: state.efer,
        pat: PAT_RESET,
        debugctl: 0,
        sysenter_esp: 0,
        sysenter_eip: 0,
        es: data,
        cs: segment(&state.cs),
        ss: segment(&state.ss),
        ds: data,
        fs: data,
        gs: data,
        ldtr: segment(&state.ldtr),
        tr: segment(&state.tr),
        gdtr: table(&state.gdtr),
        idtr: table(&state.idtr),
        activity: 0,
        interruptibility: Interruptibility(0),
        pending_debug: 0,
        link_pointer: u64::MAX,
        pdptes: [0; 4],
        entry,
        event: InterruptionInfo(0),
        event_error_code: 0,
        event_instruction_length: 0,
    }
}

/// The state after power-on.
pub(crate) fn reset() -> GuestState {
    start(&StartState::power_on(SIGNATURE))
}

/// As a start-up IPI leaves it.
pub(crate) fn started_up(vector: u8) -> GuestState {
    start(&StartState::start_up(SIGNATURE, 0x8005_0033, vector))
}

/// As an image asks for it.
pub(crate) fn at(entry: &ImageEntry) -> GuestState {
    start(&StartState::at(SIGNATURE, entry))
}

/// 32-bit protected mode without paging.
pub(crate) fn protected() -> GuestState {
    at(&ImageEntry::Pvh { entry: 0x10_0000, start_info: 0x5000 })
}

/// 64-bit mode.
pub(crate) fn long() -> GuestState {
    at(&ImageEntry::Long { entry: 0x20_0000, start_info: 0x5000, page_tables: 0x6000, gdt: 0x7000 })
}

/// Virtual-8086 mode.
pub(crate) fn virtual_8086() -> GuestState {
    let state = with_segments(protected(), real(0x1000, 0x0F3), real(0x2000, 0x0F3));
    GuestState { rflags: 2 | VM, ..state }
}

/// The values of the fields, by what the tests above call them; what is not of the guest's state reads as 0.
pub(crate) fn fields(state: &GuestState, of: AnyField) -> u64 {
    use field::segment as segments;
    for (fields, segment) in [
        (segments::ES, state.es),
        (segments::CS, state.cs),
        (segments::SS, state.ss),
        (segments::DS, state.ds),
        (segments::FS, state.fs),
        (segments::GS, state.gs),
        (segments::LDTR, state.ldtr),
        (segments::TR, state.tr),
    ] {
        for (field, value) in [
            (fields.selector.any(), segment.selector.into()),
            (fields.base.any(), segment.base),
            (fields.limit.any(), segment.limit.into()),
            (fields.access_rights.any(), segment.access_rights.0.into()),
        ] {
            if field == of {
                return value;
            }
        }
    }
    [
        (field::GUEST_CR0.any(), state.cr0),
        (field::GUEST_CR3.any(), state.cr3),
        (field::GUEST_CR4.any(), state.cr4),
        (field::GUEST_DR7.any(), state.dr7),
        (field::GUEST_RIP.any(), state.rip),
        (field::GUEST_RFLAGS.any(), state.rflags),
        (field::GUEST_IA32_EFER.any(), state.efer),
        (field::GUEST_IA32_PAT.any(), state.pat),
        (field::GUEST_IA32_DEBUGCTL.any(), state.debugctl),
        (field::GUEST_IA32_SYSENTER_ESP.any(), state.sysenter_esp),
        (field::GUEST_IA32_SYSENTER_EIP.any(), state.sysenter_eip),
        (field::GUEST_GDTR_BASE.any(), state.gdtr.base),
        (field::GUEST_GDTR_LIMIT.any(), state.gdtr.limit.into()),
        (field::GUEST_IDTR_BASE.any(), state.idtr.base),
        (field::GUEST_IDTR_LIMIT.any(), state.idtr.limit.into()),
        (field::GUEST_ACTIVITY_STATE.any(), state.activity.into()),
        (field::GUEST_INTERRUPTIBILITY_STATE.any(), state.interruptibility.0.into()),
        (field::GUEST_PENDING_DEBUG_EXCEPTIONS.any(), state.pending_debug),
        (field::VMCS_LINK_POINTER.any(), state.link_pointer),
        (field::GUEST_PDPTE_0.any(), state.pdptes[0]),
        (field::GUEST_PDPTE_1.any(), state.pdptes[1]),
        (field::GUEST_PDPTE_2.any(), state.pdptes[2]),
        (field::GUEST_PDPTE_3.any(), state.pdptes[3]),
        (field::VM_ENTRY_CONTROLS.any(), state.entry.bits().into()),
        (field::VM_ENTRY_INTERRUPTION_INFORMATION.any(), state.event.0.into()),
        (field::VM_ENTRY_EXCEPTION_ERROR_CODE.any(), state.event_error_code.into()),
        (field::VM_ENTRY_INSTRUCTION_LENGTH.any(), state.event_instruction_length.into()),
    ]
    .into_iter()
    .find_map(|(field, value)| (field == of).then_some(value))
    .unwrap_or_else(|| panic!("{of} is not asked for"))
}
