//! Writes to the interrupt command register: filtered, then sent as unicasts, or noted as requests.

use partita_trace::event::Event;
use partita_trace::names::IcrRefusal as TracedRefusal;
use partita_x86_policy::apic_events::Requests;
use partita_x86_policy::apic_view::VcpuMask;
use partita_x86_policy::icr::{self, IcrAction, IcrRefusal};

use super::Vcpu;
use crate::cpu::rdtsc;
use crate::virt::{Exception, VirtualCpu};
use crate::{apic, trace};

/// Length of WRMSR.
const LEN: u64 = 2;

const fn traced(cause: IcrRefusal) -> TracedRefusal {
    match cause {
        IcrRefusal::ReservedBits => TracedRefusal::ReservedBits,
        IcrRefusal::ReservedMode | IcrRefusal::LowestPriority => TracedRefusal::ReservedMode,
        IcrRefusal::Smi => TracedRefusal::Smi,
        IcrRefusal::Vector => TracedRefusal::IllegalVector,
        IcrRefusal::Foreign => TracedRefusal::ForeignDestination,
        IcrRefusal::Shorthand => TracedRefusal::Other,
    }
}

impl<V: VirtualCpu> Vcpu<V> {
    /// Does what a write asks for, and says to how many vCPUs it sent an interrupt itself.
    pub(super) fn write_icr(&mut self, value: u64) -> u16 {
        let view = &self.partition.apic_view;
        match icr::filter(view, self.number, value) {
            IcrAction::Fixed { vector, targets } => {
                for id in targets.filter_map(|vcpu| view.id(vcpu)) {
                    // SAFETY: a fixed interrupt to a pCPU of this very partition, whose guest owns its local APIC.
                    unsafe { apic::write_icr(icr::physical_icr(id, vector)) };
                }
                self.cpu.skip(LEN);
                targets.len() as u16
            }
            other => {
                self.rare_icr(other, value);
                0
            }
        }
    }

    #[cold]
    fn rare_icr(&mut self, action: IcrAction, icr: u64) {
        match action {
            IcrAction::Nmi { targets } => {
                self.request_each(targets, Requests::NMI, |target| Event::GuestNmi { target, icr });
            }
            IcrAction::Init { targets } => {
                self.request_each(targets, Requests::INIT, |target| Event::GuestInit { target, icr });
            }
            IcrAction::Sipi { targets, vector } => {
                self.request_each(targets, Requests::sipi(vector), |target| Event::GuestSipi { target, vector, icr });
            }
            IcrAction::Refuse(cause) => {
                self.partition.refusals.count_ipi();
                trace::record(rdtsc(), Event::IcrRefused { cause: traced(cause), icr });
                if cause.is_gp() {
                    self.cpu.inject_exception(Exception::GeneralProtection);
                    return;
                }
            }
            IcrAction::Ignore | IcrAction::Fixed { .. } => {}
        }
        self.cpu.skip(LEN);
    }

    /// Notes a request of each target and kicks it: this pCPU waits for nobody.
    fn request_each(&self, targets: VcpuMask, requests: Requests, event: impl Fn(u16) -> Event) {
        for vcpu in targets {
            if let Some(pcpu) = self.partition.pcpus.get(vcpu) {
                trace::record(rdtsc(), event(pcpu.0));
                self.partition.request(vcpu, requests);
            }
        }
    }
}
