//! What is delivered to a guest at an entry: exceptions, NMIs, and what an exit cut short.

use core::arch::asm;

use partita_x86_policy::vmx::event::{EntryEvent, Interruptibility, InterruptionInfo};
use partita_x86_policy::vmx::field;
use partita_x86_policy::vmx::qualification::DebugException;

use super::VmxVcpu;

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;

/// What waits until the guest can take an NMI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AwaitsNmiWindow {
    /// An NMI.
    nmi: bool,
    /// The interrupt shadow of an STI behind which an NMI came: the guest gets it back behind its IRET, as else the interrupt
    /// that a `sti; hlt` waits for could come before the HLT, and never again.
    shadow: bool,
}

impl AwaitsNmiWindow {
    const fn anything(self) -> bool {
        self.nmi || self.shadow
    }
}

impl VmxVcpu {
    pub(super) fn deliver(&mut self, event: EntryEvent) {
        let vmcs = self.vmcs_mut();
        vmcs.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, event.info);
        if let Some(code) = event.error_code {
            vmcs.write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, code);
        }
        if let Some(length) = event.instruction_length {
            vmcs.write(field::VM_ENTRY_INSTRUCTION_LENGTH, length);
        }
    }

    /// Delivers again what the last exit cut short.
    pub(super) fn redeliver(&mut self) {
        let info = InterruptionInfo(self.vmcs().read(field::IDT_VECTORING_INFORMATION));
        if info.valid() {
            self.redeliver_event(info);
        }
    }

    #[cold]
    fn redeliver_event(&mut self, info: InterruptionInfo) {
        let vmcs = self.vmcs();
        let error_code = || vmcs.read(field::IDT_VECTORING_ERROR_CODE);
        let length = || vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH);
        let Some(event) = info.redeliver(error_code, length) else { return };
        if event.is_nmi() {
            // It was about to be taken: its own blocking has to go, or the entry would refuse it.
            let state = self.interruptibility().with_nmi_blocking(false);
            self.set_interruptibility(state);
        }
        self.deliver(event);
    }

    /// Delivers the exception that the exit was for.
    pub(super) fn deliver_exit_exception(&mut self) {
        let vmcs = self.vmcs();
        let info = InterruptionInfo(vmcs.read(field::VM_EXIT_INTERRUPTION_INFORMATION));
        let error_code = || vmcs.read(field::VM_EXIT_INTERRUPTION_ERROR_CODE);
        let length = || vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH);
        if let Some(event) = info.redeliver(error_code, length) {
            self.deliver(event);
        }
    }

    pub(super) fn interruptibility(&self) -> Interruptibility {
        Interruptibility(self.vmcs().read(field::GUEST_INTERRUPTIBILITY_STATE))
    }

    pub(super) fn set_interruptibility(&mut self, state: Interruptibility) {
        self.vmcs_mut().write(field::GUEST_INTERRUPTIBILITY_STATE, state.0);
    }

    /// Ends the shadow of STI or MOV SS: what is delivered comes behind it. An entry with a step under way would else demand a
    /// pending one, which an exit for a #DB does not leave (SDM vol. 3 section 27.3.1.5).
    pub(super) fn end_shadow(&mut self) {
        let state = self.interruptibility();
        self.set_interruptibility(state.without_shadow());
    }

    /// An entry will deliver something.
    pub(super) fn has_event(&self) -> bool {
        InterruptionInfo(self.vmcs().read(field::VM_ENTRY_INTERRUPTION_INFORMATION)).valid()
    }

    /// An NMI for the guest: now, or when it can take one.
    pub(super) fn bring_nmi(&mut self) {
        let state = self.interruptibility();
        // Behind MOV SS hardware holds it back, too.
        if state.blocks_nmi() || state.0 & Interruptibility::MOV_SS != 0 || self.has_event() {
            self.awaits.nmi = true;
        } else {
            self.awaits.nmi = false;
            self.awaits.shadow = state.in_shadow();
            self.set_interruptibility(state.without_shadow());
            self.deliver(EntryEvent::NMI);
        }
        self.watch_nmi_window();
    }

    /// The guest can take an NMI: it has returned from its handler, or an instruction later than MOV SS.
    pub(super) fn open_window(&mut self) {
        // A handler can have changed what it returns to: an entry takes the shadow with interrupts on and no step only.
        let rflags = self.vmcs().read(field::GUEST_RFLAGS);
        if core::mem::take(&mut self.awaits.shadow) && rflags & (RFLAGS_IF | RFLAGS_TF) == RFLAGS_IF {
            let state = self.interruptibility();
            self.set_interruptibility(state.with_sti());
        }
        if self.awaits.nmi {
            self.bring_nmi();
        } else {
            self.watch_nmi_window();
        }
    }

    pub(super) fn watch_nmi_window(&mut self) {
        let wanted = self.awaits.anything();
        self.vmcs_mut().watch_nmi_window(wanted);
    }

    pub(super) fn forget_nmis(&mut self) {
        self.awaits = AwaitsNmiWindow::default();
        self.watch_nmi_window();
    }

    /// Puts into DR6 and DR7 what a #DB of this qualification does there, as no exit does.
    pub(super) fn note_debug_exception(&mut self, qualification: u64) {
        let exception = DebugException(qualification);
        let old = read_dr6();
        write_dr6(exception.dr6(old));
        let dr7 = self.vmcs().read(field::GUEST_DR7);
        self.vmcs_mut().write(field::GUEST_DR7, exception.dr7(dr7));
    }
}

/// DR6, which is the guest's.
pub(super) fn read_dr6() -> u64 {
    let value: u64;
    // SAFETY: only reads.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets DR6.
pub(super) fn write_dr6(value: u64) {
    // SAFETY: the guest's; the hypervisor sets no breakpoints and makes no steps.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}
