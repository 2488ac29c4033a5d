//! IN and OUT at ports that are not passed through.

use partita_abi::report::EXIT_SUCCESS;
use partita_trace::names::{PolicyKind, StopCause};
use partita_x86_policy::ports::{IoAccess, PortDecision};
use partita_x86_policy::vmware;

use super::Vcpu;
use crate::virt::{Exception, GuestRegisters, VirtualCpu};

const ALL_ONES: u32 = u32::MAX;

impl<V: VirtualCpu> Vcpu<V> {
    #[inline(always)]
    pub(super) fn io(&mut self, access: IoAccess, registers: &mut GuestRegisters) {
        let rax = self.cpu.rax();
        let mut input = ALL_ONES;
        match self.partition.port_policy.decide(access, rax as u32) {
            PortDecision::Quiet => {}
            PortDecision::Zero => input = 0,
            PortDecision::PowerOff => self.partition.leave_at(StopCause::PowerOff, self.cpu.rip()),
            PortDecision::Reset => self.partition.leave_at(StopCause::Reboot, self.cpu.rip()),
            PortDecision::Refuse => {
                let (kind, value) =
                    if access.input { (PolicyKind::PortIn, 0) } else { (PolicyKind::PortOut, rax & 0xFFFF_FFFF) };
                self.partition.note_refusal(kind, access.port.into(), value);
            }
            PortDecision::CmosSelect => self.cmos.select(rax as u8),
            PortDecision::CmosRead => input = self.cmos.read().into(),
            PortDecision::Finish => {
                let byte = rax as u8;
                let status = if byte == EXIT_SUCCESS { 0 } else { byte.into() };
                self.partition.finish_at(status, self.cpu.rip());
            }
            PortDecision::Vmware if vmware::is_vmware_call(rax as u32) => {
                let [eax, ebx, ecx] = vmware::vmware_call(registers.rcx as u32, &self.cpuid);
                (registers.rbx, registers.rcx) = (ebx.into(), ecx.into());
                input = eax;
            }
            PortDecision::Vmware => {}
            PortDecision::Gp => {
                let kind = if access.input { PolicyKind::PortIn } else { PolicyKind::PortOut };
                self.refuse(kind, access.port.into(), 0, Exception::GeneralProtection);
                return;
            }
        }
        if access.input {
            self.cpu.set_rax(access.merge_rax(rax, input));
        }
        if self.cpu.go_behind_io() {
            self.cpu.end_step();
        }
        if self.cpu.may_trap_on_io() {
            self.cpu.trap_on_io();
        }
    }
}
