//! Why a guest is entered no longer, from the fields of its VMCS.

use core::fmt::{self, Write};
use core::ptr;

use partita_x86_policy::vmx::ept;
use partita_x86_policy::vmx::exit::{ExitReason, InstructionError, reason};
use partita_x86_policy::vmx::explain::Explained;
use partita_x86_policy::vmx::field;
use partita_x86_policy::vmx::guest_state::{Cpu, GuestState};

use super::VmxVcpu;
use crate::cpu::features::cpuid;
use crate::virt::Exit;

const ADDRESS_SIZES: u32 = 0x8000_0008;

impl VmxVcpu {
    #[cold]
    pub(super) fn explain_exit(&self, exit: Exit, out: &mut impl Write) -> fmt::Result {
        let vmcs = self.vmcs();
        let capabilities = &self.boot().capabilities;
        let cpu = Cpu::new(capabilities, cpuid(ADDRESS_SIZES, 0)[0]);
        let read = |field| vmcs.read_any(field);
        let qualification = vmcs.read(field::EXIT_QUALIFICATION);
        let explained = match exit {
            Exit::InvalidState => Explained::state(&GuestState::collect(read), &cpu, qualification),
            Exit::EntryRefused => {
                let error = InstructionError(vmcs.read(field::VM_INSTRUCTION_ERROR));
                Explained::entry(error, capabilities, &cpu, read)
            }
            Exit::Other(_) => match ExitReason(vmcs.read(field::EXIT_REASON)) {
                reason if reason.basic() == reason::EPT_MISCONFIGURATION => self.explain_ept(cpu.physical_bits),
                reason => Explained::Exit { reason, qualification },
            },
            _ => return Ok(()),
        };
        write!(out, "{explained}")
    }

    fn explain_ept(&self, physical_bits: u8) -> Explained {
        let gpa = self.vmcs().read(field::GUEST_PHYSICAL_ADDRESS);
        let (start, len) = self.pool;
        let read = |address: u64| {
            // SAFETY: whole words of the hypervisor's pool, where the tables are, mapped one to one; volatile, because they are
            // not as they were built.
            let read = || unsafe { ptr::read_volatile(address as *const u64) };
            (address.is_multiple_of(8) && address.checked_sub(start).is_some_and(|offset| offset < len)).then(read)
        };
        let entry = ept::explain(self.vmcs().read(field::EPT_POINTER), gpa, physical_bits, read);
        Explained::Ept { entry, gpa }
    }
}
