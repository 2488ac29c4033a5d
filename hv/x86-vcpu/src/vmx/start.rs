//! The states in which a vCPU starts, as the VMCS has them.

use core::arch::asm;

use partita_x86_policy::start_state::{PAT_RESET, Segment, StartState};
use partita_x86_policy::vmx::control::Entry;
use partita_x86_policy::vmx::event::Activity;
use partita_x86_policy::vmx::field::{self, SegmentFields, segment};
use partita_x86_policy::vmx::guest_state::AccessRights;

use super::VmxVcpu;
use crate::cpu::write_msr;
use crate::virt::GuestRegisters;

const EFER_LMA: u64 = 1 << 10;
/// STAR, LSTAR, CSTAR, SFMASK and KernelGSbase: neither an entry nor an exit switches them, and the hypervisor uses none.
const SYSTEM_CALL_REGISTERS: [u32; 5] = [0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0102];

impl VmxVcpu {
    /// Puts the guest into a state, with nothing pending.
    pub(super) fn set(&mut self, state: &StartState, registers: &mut GuestRegisters) {
        *registers = GuestRegisters::at(state);
        self.set_own_rax(state.rax);
        self.set_segment(&segment::CS, state.cs);
        self.set_segment(&segment::SS, state.ss);
        for register in [&segment::DS, &segment::ES, &segment::FS, &segment::GS] {
            self.set_segment(register, state.data);
        }
        self.set_segment(&segment::LDTR, state.ldtr);
        self.set_segment(&segment::TR, state.tr);
        self.set_control_registers(state);
        let vmcs = self.vmcs_mut();
        vmcs.write(field::GUEST_GDTR_BASE, state.gdtr.base);
        vmcs.write(field::GUEST_GDTR_LIMIT, state.gdtr.limit);
        vmcs.write(field::GUEST_IDTR_BASE, state.idtr.base);
        vmcs.write(field::GUEST_IDTR_LIMIT, state.idtr.limit);
        vmcs.write(field::GUEST_DR7, state.dr7);
        vmcs.write(field::GUEST_RFLAGS, state.rflags);
        vmcs.write(field::GUEST_RSP, 0);
        vmcs.write(field::GUEST_RIP, state.rip);
        vmcs.write(field::GUEST_ACTIVITY_STATE, Activity::Active as u32);
        vmcs.write(field::GUEST_INTERRUPTIBILITY_STATE, 0);
        vmcs.write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
        vmcs.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0);
        self.forget_nmis();
        // SAFETY: no entry loads CR2 and DR6, which are without meaning to the hypervisor.
        unsafe {
            asm!("mov cr2, {zero}", "mov dr6, {dr6}", zero = in(reg) 0_u64, dr6 = in(reg) state.dr6,
                options(nomem, nostack, preserves_flags));
        }
        self.flush();
    }

    fn set_segment(&mut self, fields: &SegmentFields, segment: Segment) {
        let vmcs = self.vmcs_mut();
        vmcs.write(fields.selector, segment.selector);
        vmcs.write(fields.base, segment.base);
        vmcs.write(fields.limit, segment.limit);
        vmcs.write(fields.access_rights, AccessRights::from_attributes(segment.attributes).0);
    }

    fn set_control_registers(&mut self, state: &StartState) {
        let (own_cr0, own_cr4) = (self.own_cr0(), self.own_cr4());
        let (cr0, cr4) = (self.guest_cr0(state.cr0), self.guest_cr4(state.cr4));
        let entry = self.entry_controls(state.efer & EFER_LMA != 0);
        let vmcs = self.vmcs_mut();
        vmcs.write(field::CR0_GUEST_HOST_MASK, own_cr0);
        vmcs.write(field::CR0_READ_SHADOW, state.cr0);
        vmcs.write(field::GUEST_CR0, cr0);
        vmcs.write(field::CR4_GUEST_HOST_MASK, own_cr4);
        vmcs.write(field::CR4_READ_SHADOW, state.cr4);
        vmcs.write(field::GUEST_CR4, cr4);
        vmcs.write(field::GUEST_CR3, state.cr3);
        vmcs.write(field::GUEST_IA32_EFER, state.efer);
        vmcs.write(field::VM_ENTRY_CONTROLS, entry.bits());
    }

    fn entry_controls(&self, is_long: bool) -> Entry {
        let mut entry = self.boot().controls.entry;
        entry.set(Entry::IA32E_MODE_GUEST, is_long);
        entry
    }

    /// Clears the model-specific registers that INIT leaves alone, but power-on does not.
    pub(super) fn clear_registers(&mut self) {
        for msr in SYSTEM_CALL_REGISTERS {
            // SAFETY: the guest's registers, which the hypervisor does not use.
            unsafe { write_msr(msr, 0) };
        }
        let vmcs = self.vmcs_mut();
        vmcs.write(field::GUEST_IA32_SYSENTER_CS, 0);
        vmcs.write(field::GUEST_IA32_SYSENTER_ESP, 0);
        vmcs.write(field::GUEST_IA32_SYSENTER_EIP, 0);
        vmcs.write(field::GUEST_IA32_PAT, PAT_RESET);
        vmcs.write(field::GUEST_IA32_DEBUGCTL, 0);
    }
}
