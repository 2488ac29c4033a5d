//! Activity, interruptibility, pending debug exceptions, the VMCS link pointer and page-directory pointers (SDM vol. 3 sections
//! 27.3.1.5 and 27.3.1.6).

use super::{CR0_PG, CR4_PAE, Checked, Cpu, DEBUGCTL_BTF, GuestState, PDPTES, RFLAGS_IF, RFLAGS_TF, Section};
use crate::vmx::event::{Activity, EventKind, Interruptibility, InterruptionInfo, pending_debug};
use crate::vmx::field;
use crate::vmx::rule::RESERVED;

const NON_REGISTER: Section = Section("27.3.1.5");
const PDPTE: Section = Section("27.3.1.6");

const DEBUG_VECTOR: u8 = 1;
const MACHINE_CHECK_VECTOR: u8 = 18;
const NOT_SHADOWED: u64 = u64::MAX;
const PDPTE_PRESENT: u64 = 1 << 0;
const PDPTE_RESERVED: u64 = 3 << 1 | 0xF << 5;

pub(super) fn check(state: &GuestState, cpu: &Cpu) -> Checked {
    check_activity(state, cpu)?;
    check_interruptibility(state)?;
    check_pending_debug(state)?;
    let (field, link) = (field::VMCS_LINK_POINTER, state.link_pointer);
    NON_REGISTER.demand(link == NOT_SHADOWED, field, link, "it has to be all ones: no VMCS is linked")?;
    if state.cr0 & CR0_PG == 0 || state.cr4 & CR4_PAE == 0 || state.ia32e() {
        return Ok(());
    }
    for (field, pdpte) in PDPTES.into_iter().zip(state.pdptes) {
        let reserved = if pdpte & PDPTE_PRESENT != 0 { PDPTE_RESERVED | cpu.beyond_physical() } else { 0 };
        PDPTE.none(pdpte & reserved, field, pdpte, RESERVED)?;
    }
    Ok(())
}

fn check_activity(state: &GuestState, cpu: &Cpu) -> Checked {
    let (field, value) = (field::GUEST_ACTIVITY_STATE, state.activity);
    let demand = |holds, rule| NON_REGISTER.demand(holds, field, value, rule);
    let Some(activity) = Activity::from_field(value) else { return demand(false, "it has to be 0 to 3") };
    let is_known = match activity {
        Activity::Active => return Ok(()),
        Activity::Hlt => cpu.misc.can_enter_hlt(),
        Activity::Shutdown => cpu.misc.can_enter_shutdown(),
        Activity::WaitForSipi => cpu.misc.can_enter_wait_for_sipi(),
    };
    demand(is_known, "this CPU cannot enter a guest in that state (IA32_VMX_MISC)")?;
    let is_privileged = state.ss.access_rights.dpl() == 0;
    demand(is_privileged || activity != Activity::Hlt, "HLT demands that the DPL of SS be 0")?;
    demand(!state.interruptibility.in_shadow(), "blocking by STI or MOV SS demands that it be 0, active")?;
    demand(wakes(activity, state.event), "the event to deliver is not among those of that state")
}

/// Whether an event may be delivered to a guest in this state.
const fn wakes(activity: Activity, event: InterruptionInfo) -> bool {
    if !event.valid() {
        return true;
    }
    let (kind, vector) = (event.kind(), event.vector());
    let is_machine_check = matches!(kind, EventKind::HardwareException) && vector == MACHINE_CHECK_VECTOR;
    match activity {
        Activity::Active => true,
        Activity::Hlt => {
            is_machine_check
                || matches!(kind, EventKind::ExternalInterrupt | EventKind::Nmi)
                || matches!(kind, EventKind::HardwareException) && vector == DEBUG_VECTOR
                || matches!(kind, EventKind::Other) && vector == 0
        }
        Activity::Shutdown => is_machine_check || matches!(kind, EventKind::Nmi),
        Activity::WaitForSipi => false,
    }
}

fn check_interruptibility(state: &GuestState) -> Checked {
    let (field, value) = (field::GUEST_INTERRUPTIBILITY_STATE, state.interruptibility.0);
    let demand = |holds, rule| NON_REGISTER.demand(holds, field, value, rule);
    let has = |bits| value & bits != 0;
    let unknown = u64::from(value & !Interruptibility::KNOWN);
    NON_REGISTER.none(unknown, field, value, "bits 31:5 have to be clear")?;
    let (sti, mov_ss) = (has(Interruptibility::STI), has(Interruptibility::MOV_SS));
    demand(!(sti && mov_ss), "blocking by STI (bit 0) and by MOV SS (bit 1) exclude each other")?;
    demand(!sti || state.rflags & RFLAGS_IF != 0, "blocking by STI (bit 0) demands RFLAGS.IF")?;
    let kind = if state.event.valid() { Some(state.event.kind()) } else { None };
    let (interrupt, nmi) = (kind == Some(EventKind::ExternalInterrupt), kind == Some(EventKind::Nmi));
    demand(!(interrupt && (sti || mov_ss)), "an interrupt to deliver demands no blocking by STI or MOV SS (bits 1:0)")?;
    // By STI not on all CPUs.
    demand(!(nmi && (sti || mov_ss)), "an NMI to deliver demands no blocking by STI or MOV SS (bits 1:0)")?;
    demand(!has(Interruptibility::SMI), "blocking by SMI (bit 2) demands system-management mode")?;
    demand(!(nmi && has(Interruptibility::NMI)), "an NMI to deliver demands no blocking by NMI (bit 3)")?;
    demand(!(has(Interruptibility::ENCLAVE) && mov_ss), "an enclave (bit 4) demands no blocking by MOV SS (bit 1)")
}

fn check_pending_debug(state: &GuestState) -> Checked {
    let (field, value) = (field::GUEST_PENDING_DEBUG_EXCEPTIONS, state.pending_debug);
    let demand = |holds, rule| NON_REGISTER.demand(holds, field, value, rule);
    NON_REGISTER.none(value & !pending_debug::KNOWN, field, value, RESERVED)?;
    if state.interruptibility.in_shadow() || state.activity == Activity::Hlt as u32 {
        let steps = state.rflags & RFLAGS_TF != 0 && state.debugctl & DEBUGCTL_BTF == 0;
        let is_pending = value & pending_debug::SINGLE_STEP != 0;
        let rule = "behind STI or MOV SS, and in HLT, BS (bit 14) has to be as RFLAGS.TF without IA32_DEBUGCTL.BTF";
        demand(steps == is_pending, rule)?;
    }
    if value & pending_debug::TRANSACTION == 0 {
        return Ok(());
    }
    let alone = value == pending_debug::TRANSACTION | pending_debug::ENABLED_BREAKPOINT;
    demand(alone, "RTM (bit 16) demands bit 12, and no others")?;
    let mov_ss = state.interruptibility.0 & Interruptibility::MOV_SS != 0;
    demand(!mov_ss, "RTM (bit 16) demands no blocking by MOV SS")
}
