//! Hypercalls: the numbers are in `partita_abi::hypercall`.

use partita_abi::hypercall::{BUSY, FINISH, INVALID, NOP, SUCCESS, TRACE_WINDOW, UNKNOWN};
use partita_core::system::Identity;
use partita_trace::layout::{HEADER_LEN, REGION_ALIGN};
use partita_trace::names::PolicyKind;
use partita_x86_policy::vmware;

use super::Vcpu;
use crate::memory::pool::PAGE;
use crate::virt::{Exception, GuestRegisters, VirtualCpu};

/// Length of VMMCALL and VMCALL.
const LEN: u64 = 3;

impl<V: VirtualCpu> Vcpu<V> {
    /// Obeys, and says which it was.
    pub(super) fn hypercall(&mut self, registers: &mut GuestRegisters) -> u32 {
        let number = self.cpu.rax() as u32;
        if self.cpu.privilege() != 0 && !(vmware::is_vmware_call(number) && self.is_linux()) {
            self.refuse(PolicyKind::Hypercall, number.into(), 0, Exception::InvalidOpcode);
        } else {
            let result = self.obey(number, registers);
            self.cpu.set_rax(result);
            self.cpu.skip(LEN);
        }
        number
    }

    fn is_linux(&self) -> bool {
        self.partition.config.identity == Identity::Linux
    }

    fn obey(&mut self, number: u32, registers: &mut GuestRegisters) -> u64 {
        match number {
            NOP => SUCCESS,
            FINISH => {
                self.partition.finish_at(registers.rbx, self.cpu.rip());
                SUCCESS
            }
            TRACE_WINDOW => self.trace_window(registers.rbx, registers.rcx),
            _ if vmware::is_vmware_call(number) && self.is_linux() => {
                let [eax, ebx, ecx] = vmware::vmware_call(registers.rcx as u32, &self.cpuid);
                (registers.rbx, registers.rcx) = (ebx.into(), ecx.into());
                eax.into()
            }
            _ => {
                self.partition.note_refusal(PolicyKind::Hypercall, number.into(), 0);
                UNKNOWN
            }
        }
    }

    fn trace_window(&mut self, gpa: u64, len: u64) -> u64 {
        let sane = gpa.is_multiple_of(REGION_ALIGN as u64)
            && len >= HEADER_LEN as u64
            && len.is_multiple_of(PAGE as u64)
            && self.partition.owns(gpa, len);
        if !sane {
            self.partition.note_refusal(PolicyKind::Hypercall, TRACE_WINDOW.into(), gpa);
            return INVALID;
        }
        if self.partition.announce_window(gpa, len) { SUCCESS } else { BUSY }
    }
}
