//! IN and OUT at ports that are not passed through.

use partita_abi::report::EXIT_SUCCESS;
use partita_trace::names::{ExitReason, PolicyKind, StopCause};
use partita_x86_policy::ports::{IoAccess, PortDecision};
use partita_x86_policy::vmware;

use super::{About, Then, Vcpu};
use crate::virt::{Exception, ScratchRegisters, VirtualCpu};

const ALL_ONES: u32 = u32::MAX;

#[inline(always)]
const fn reason(access: IoAccess) -> ExitReason {
    if access.input { ExitReason::IoIn } else { ExitReason::IoOut }
}

impl<V: VirtualCpu> Vcpu<V> {
    #[inline(never)]
    pub(super) fn io(&mut self, entered: u64, registers: &mut ScratchRegisters) -> Then {
        let (access, next_rip) = self.cpu.io();
        if !access.delays() {
            return self.other_io(entered, registers);
        }
        let about = About { low: access.port, wide: access.value(self.cpu.rax()).into() };
        self.end_io(access, next_rip, about, entered)
    }

    #[inline(never)]
    fn other_io(&mut self, entered: u64, registers: &mut ScratchRegisters) -> Then {
        let (access, next_rip) = self.cpu.io();
        let rax = self.cpu.rax();
        let about = About { low: access.port, wide: access.value(rax).into() };
        let mut input = ALL_ONES;
        match self.partition.port_policy.decide(access, rax as u32) {
            PortDecision::Quiet => {}
            PortDecision::Zero => input = 0,
            PortDecision::PowerOff => self.leave(StopCause::PowerOff),
            PortDecision::Reset => self.leave(StopCause::Reboot),
            PortDecision::Refuse => {
                let (kind, value) =
                    if access.input { (PolicyKind::PortIn, 0) } else { (PolicyKind::PortOut, rax & 0xFFFF_FFFF) };
                self.note_refusal(kind, access.port.into(), value);
            }
            PortDecision::CmosSelect => self.cmos.select(rax as u8),
            PortDecision::CmosRead => input = self.cmos.read().into(),
            PortDecision::Finish => {
                let byte = rax as u8;
                self.finish(if byte == EXIT_SUCCESS { 0 } else { byte.into() });
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
                return self.end_rare(reason(access), about, entered);
            }
        }
        if access.input {
            self.cpu.set_rax(access.merge_rax(rax, input));
        }
        self.end_io(access, next_rip, about, entered)
    }

    #[inline(always)]
    fn end_io(&mut self, access: IoAccess, next_rip: u64, about: About, entered: u64) -> Then {
        let is_stepped = self.cpu.go_to(next_rip);
        if is_stepped || self.cpu.may_trap_on_io() {
            return self.end_trapped_io(is_stepped, about, entered);
        }
        self.end(reason(access), about, entered)
    }

    #[cold]
    #[inline(never)]
    fn end_trapped_io(&mut self, is_stepped: bool, about: About, entered: u64) -> Then {
        let (access, _) = self.cpu.io();
        if is_stepped {
            self.cpu.end_step();
        }
        self.cpu.trap_on_io(access);
        self.end(reason(access), about, entered)
    }
}
