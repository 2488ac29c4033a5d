//! Why a guest is entered no longer, from its VMCB.

use core::fmt::{self, Write};

use partita_x86_policy::svm_exit::name;
use partita_x86_policy::svm_state::SvmState;

use super::SvmVcpu;
use crate::virt::Exit;

impl SvmVcpu {
    #[cold]
    pub(super) fn explain_exit(&self, exit: Exit, out: &mut impl Write) -> fmt::Result {
        match exit {
            Exit::InvalidState | Exit::EntryRefused => match self.state().check() {
                Err(broken) => write!(out, "{broken}"),
                // Emulators save the hypervisor's own state over what they have not loaded.
                Ok(()) => out.write_str(
                    "the CPU does not say why, and what it left breaks no rule of APM vol. 2 section 15.5.1",
                ),
            },
            Exit::Other(code) => write!(out, "exit code {code:#x}, {}", name(code)),
            _ => Ok(()),
        }
    }

    fn state(&self) -> SvmState {
        let save = &self.vmcb.save;
        SvmState {
            cr0: save.cr0,
            cr3: save.cr3,
            cr4: save.cr4,
            dr6: save.dr6,
            dr7: save.dr7,
            efer: save.efer,
            cs_attributes: save.cs.attributes,
            event: self.vmcb.control.event_inj,
        }
    }
}
