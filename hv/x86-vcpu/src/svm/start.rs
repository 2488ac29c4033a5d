//! The states in which a vCPU starts, as the VMCB has them.

use core::arch::asm;

use partita_x86_policy::msr_values::efer_to_vmcb;
use partita_x86_policy::start_state::{PAT_RESET, StartState, TableRegister};

use super::entry;
use super::vcpu::{ALWAYS_INTERCEPTED, SvmVcpu};
use super::vmcb::{Segment, TLB_FLUSH_ALL};
use crate::virt::GuestRegisters;

const fn table(register: TableRegister) -> Segment {
    Segment { selector: 0, attributes: 0, limit: register.limit, base: register.base }
}

impl SvmVcpu {
    /// Puts the guest into a state, with nothing pending.
    pub(super) fn set(&mut self, state: &StartState, registers: &mut GuestRegisters) {
        *registers = GuestRegisters::at(state);
        self.before_step = None;
        let save = &mut self.vmcb.save;
        let data = state.data;
        (save.cs, save.ds, save.es, save.ss, save.fs, save.gs) = (state.cs, data, data, state.ss, data, data);
        (save.gdtr, save.idtr) = (table(state.gdtr), table(state.idtr));
        (save.tr, save.ldtr) = (state.tr, state.ldtr);
        (save.cpl, save.efer) = (0, efer_to_vmcb(state.efer));
        (save.cr0, save.cr2, save.cr3, save.cr4) = (state.cr0, 0, state.cr3, state.cr4);
        (save.dr6, save.dr7) = (state.dr6, state.dr7);
        (save.rflags, save.rsp, save.rax, save.rip) = (state.rflags, 0, state.rax, state.rip);
        let control = &mut self.vmcb.control;
        control.interrupt_shadow = 0;
        (control.event_inj, control.exit_int_info) = (0, 0);
        control.tlb_control = TLB_FLUSH_ALL;
        control.intercept_iret(false);
        control.intercept_exceptions = ALWAYS_INTERCEPTED;
        // SAFETY: CR2 is without meaning to the hypervisor. An entry loads the VMCB's, but not in Bochs 2.7.
        unsafe { asm!("mov cr2, {zero}", zero = in(reg) 0_u64, options(nomem, nostack, preserves_flags)) };
        self.load();
    }

    /// Clears the model-specific registers that the VMCB has: what INIT leaves alone, but power-on does not.
    pub(super) fn clear_registers(&mut self) {
        let save = &mut self.vmcb.save;
        (save.star, save.lstar, save.cstar, save.sfmask, save.kernel_gs_base) = (0, 0, 0, 0, 0);
        (save.sysenter_cs, save.sysenter_esp, save.sysenter_eip) = (0, 0, 0);
        (save.g_pat, save.dbgctl) = (PAT_RESET, 0);
    }

    /// Saves the model-specific registers that only VMSAVE does.
    pub(super) fn save_registers(&mut self) {
        // SAFETY: the VMCB is the guest's whose state this pCPU has.
        unsafe { entry::vmsave(self.vmcb) };
    }

    fn load(&self) {
        // SAFETY: this is the guest that this pCPU will enter next.
        unsafe { entry::vmload(self.vmcb) };
    }
}
