//! The current VMCS of a pCPU: typed access, and what is written once.

use partita_x86_policy::capabilities::Vmx;
use partita_x86_policy::start_state::PAT_RESET;
use partita_x86_policy::vmx::capability::{Invept, Invvpid};
use partita_x86_policy::vmx::control::{Primary, Secondary};
use partita_x86_policy::vmx::ept;
use partita_x86_policy::vmx::field::{self, AnyField, Field, Value};
use x86_64::instructions::segmentation::{CS, SS, Segment};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4};
use x86_64::registers::model_specific::Efer;

use super::{entry, instruction};
use crate::virt::PermissionMaps;

/// Every guest has its pCPUs for itself: all use the first VPID that is not the hypervisor's.
const GUEST_VPID: u16 = 1;
/// A selector for the hypervisor's task register: an exit loads it without looking at the descriptor, but it may not be 0. No
/// handler has a stack of its own, so that nothing is read from the task state.
const HOST_TR_SELECTOR: u16 = 0x18;
/// No VMCS is linked (SDM vol. 3 section 25.4.2).
const NO_LINK: u64 = u64::MAX;
/// #DB and #AC, whose delivery can fault for ever without an instruction boundary, and with it without an exit for an NMI.
const INTERCEPTED_EXCEPTIONS: u32 = 1 << 1 | 1 << 17;

/// What an exit loads into the task register: as wide as the CPU wants it.
static TASK_STATE: [u8; 104] = [0; 104];

/// The VMCS of a vCPU: the only one of its pCPU.
#[derive(Debug)]
pub(super) struct Vmcs {
    /// Physical address of its region.
    region: u64,
}

impl Vmcs {
    /// The VMCS of this region.
    ///
    /// # Safety
    /// The region is a page that begins with the CPU's revision and is nobody else's. The VMCS is used only by the pCPU that has
    /// [adopted](Self::adopt) it, from then on.
    pub(super) unsafe fn new(region: u64) -> Self {
        Self { region }
    }

    /// Makes it the current one of this pCPU, for ever; whether the CPU does.
    ///
    /// # Safety
    /// VMX is on, on this pCPU, which will have no other VMCS.
    pub(super) unsafe fn adopt(&mut self) -> bool {
        // SAFETY: by the contracts above.
        unsafe { instruction::vmclear(self.region) && instruction::vmptrld(self.region) }
    }

    /// Reads a field.
    pub(super) fn read<T: Value>(&self, field: Field<T>) -> T {
        // SAFETY: VMX is on, and this VMCS is current, by the contract of `new`.
        unsafe { instruction::vmread(field) }
    }

    /// Reads a field, whatever its type.
    pub(super) fn read_any(&self, field: AnyField) -> u64 {
        // SAFETY: as for `read`.
        unsafe { instruction::vmread_any(field) }
    }

    /// Writes a field. What it does to the guest is its partition's matter; the fields of the hypervisor's state and the
    /// addresses of what the CPU reads and writes are written by [`Self::prepare`] alone.
    pub(super) fn write<T: Value>(&mut self, field: Field<T>, value: T) {
        // SAFETY: as for `read`; by the rule above.
        unsafe { instruction::vmwrite(field, value) };
    }

    /// Writes what stays as it is: controls, addresses, and the hypervisor's state.
    pub(super) fn prepare(&mut self, set_up: &Vmx, nested_root: u64, maps: PermissionMaps) {
        let controls = &set_up.controls;
        self.write(field::PIN_BASED_CONTROLS, controls.pin.bits());
        self.write(field::PRIMARY_PROCESSOR_BASED_CONTROLS, controls.primary.bits());
        self.write(field::SECONDARY_PROCESSOR_BASED_CONTROLS, controls.secondary.bits());
        self.write(field::PRIMARY_VM_EXIT_CONTROLS, controls.exit.bits());
        self.write(field::EXCEPTION_BITMAP, INTERCEPTED_EXCEPTIONS);
        // An armed timer is at 0 from the start: it is never counted down.
        self.write(field::VMX_PREEMPTION_TIMER_VALUE, 0);
        for count in [
            field::PAGE_FAULT_ERROR_CODE_MASK,
            field::PAGE_FAULT_ERROR_CODE_MATCH,
            field::CR3_TARGET_COUNT,
            field::VM_EXIT_MSR_STORE_COUNT,
            field::VM_EXIT_MSR_LOAD_COUNT,
            field::VM_ENTRY_MSR_LOAD_COUNT,
        ] {
            self.write(count, 0);
        }
        self.write(field::IO_BITMAP_A, maps.io);
        self.write(field::IO_BITMAP_B, maps.io + 0x1000);
        self.write(field::MSR_BITMAPS, maps.msr);
        self.write(field::VMCS_LINK_POINTER, NO_LINK);
        if controls.secondary.contains(Secondary::ENABLE_XSAVES) {
            // No guest has a bit of XSS: should one get there, its use exits.
            self.write(field::XSS_EXITING_BITMAP, u64::MAX);
        }
        if controls.secondary.contains(Secondary::ENABLE_ENCLS_EXITING) {
            // SGX is hidden.
            self.write(field::ENCLS_EXITING_BITMAP, u64::MAX);
        }
        // Accesses are not noted: nobody asks, and each note is a write.
        let pointer = ept::pointer(nested_root, false);
        self.write(field::EPT_POINTER, pointer);
        if controls.vpid() {
            self.write(field::VIRTUAL_PROCESSOR_IDENTIFIER, GUEST_VPID);
        }
        // Whoever had this pCPU before.
        if let Some(how) = set_up.capabilities.ept_vpid.invept() {
            // SAFETY: VMX is on, and the CPU has it.
            unsafe { instruction::invept(how, if how == Invept::SingleContext { pointer } else { 0 }) };
        }
        self.prepare_host();
    }

    fn prepare_host(&mut self) {
        let (cs, ss) = (CS::get_reg().0, SS::get_reg().0);
        self.write(field::HOST_CS_SELECTOR, cs);
        for selector in [field::HOST_SS_SELECTOR, field::HOST_DS_SELECTOR, field::HOST_ES_SELECTOR] {
            self.write(selector, ss);
        }
        self.write(field::HOST_FS_SELECTOR, 0);
        self.write(field::HOST_GS_SELECTOR, 0);
        self.write(field::HOST_TR_SELECTOR, HOST_TR_SELECTOR);
        self.write(field::HOST_FS_BASE, 0);
        self.write(field::HOST_GS_BASE, 0);
        self.write(field::HOST_TR_BASE, TASK_STATE.as_ptr() as u64);
        self.write(field::HOST_GDTR_BASE, sgdt().base.as_u64());
        self.write(field::HOST_IDTR_BASE, sidt().base.as_u64());
        self.write(field::HOST_CR0, Cr0::read_raw());
        self.write(field::HOST_CR3, Cr3::read_raw().0.start_address().as_u64());
        self.write(field::HOST_CR4, Cr4::read_raw());
        self.write(field::HOST_IA32_EFER, Efer::read_raw());
        self.write(field::HOST_IA32_PAT, PAT_RESET);
        self.write(field::HOST_IA32_SYSENTER_CS, 0);
        self.write(field::HOST_IA32_SYSENTER_ESP, 0);
        self.write(field::HOST_IA32_SYSENTER_EIP, 0);
        self.write(field::HOST_RSP, entry::host_rsp());
    }

    /// Forgets the guest's translations, as a reset does.
    pub(super) fn flush(&self, set_up: &Vmx) {
        if !set_up.controls.vpid() {
            return;
        }
        if let Some(how) = set_up.capabilities.ept_vpid.invvpid() {
            let vpid = if how == Invvpid::SingleContext { GUEST_VPID } else { 0 };
            // SAFETY: VMX is on, and the CPU has it.
            unsafe { instruction::invvpid(how, vpid) };
        }
    }

    /// Has an exit come when the guest can take an NMI, or no longer.
    pub(super) fn watch_nmi_window(&mut self, on: bool) {
        let mut primary = Primary::from_bits_retain(self.read(field::PRIMARY_PROCESSOR_BASED_CONTROLS));
        primary.set(Primary::NMI_WINDOW_EXITING, on);
        self.write(field::PRIMARY_PROCESSOR_BASED_CONTROLS, primary.bits());
    }
}
