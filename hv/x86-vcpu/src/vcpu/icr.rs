//! Writes to the interrupt command register: filtered, then sent as unicasts, or noted as requests.

use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, IcrRefusal as TracedRefusal};
use partita_x86_policy::apic_events::Requests;
use partita_x86_policy::apic_view::VcpuMask;
use partita_x86_policy::icr::{self, IcrAction, IcrRefusal};

use super::{About, Then, Vcpu};
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
    #[inline(always)]
    pub(super) fn write_icr(&mut self, value: u64, entered: u64) -> Then {
        match icr::unicast(&self.partition.apic_view, self.cpuid.apic_id, value) {
            Some(icr) => {
                // SAFETY: a fixed interrupt to a pCPU of this very partition, whose guest owns its local APIC.
                unsafe { apic::write_icr(icr) };
                self.end_forwarded(value, 1, entered)
            }
            None => self.filter_icr(value, entered),
        }
    }

    /// Ends the exit for an IPI that has been sent. One stamp does for both: what comes behind the sending is short.
    #[inline(always)]
    fn end_forwarded(&mut self, icr: u64, targets: u16, entered: u64) -> Then {
        let ticks = rdtsc().wrapping_sub(entered);
        trace::count_on_vcpu(HistogramId::IcrForward, ticks);
        let about = About { low: targets, wide: icr };
        if self.cpu.go_on(LEN) {
            return self.end_step(ExitReason::IcrWrite, about, entered);
        }
        if self.has_news() {
            return self.put_off(ExitReason::IcrWrite, about, entered);
        }
        Self::record_ticks(ExitReason::IcrWrite, about, entered, ticks);
        Then::Enter
    }

    #[cold]
    #[inline(never)]
    fn filter_icr(&mut self, value: u64, entered: u64) -> Then {
        let view = &self.partition.apic_view;
        match icr::filter(view, self.number, value) {
            IcrAction::Fixed { vector, targets } => {
                for id in targets.filter_map(|vcpu| view.id(vcpu)) {
                    // SAFETY: as above.
                    unsafe { apic::write_icr(icr::physical_icr(id, vector)) };
                }
                self.end_forwarded(value, targets.len() as u16, entered)
            }
            other => {
                self.rare_icr(other, value);
                self.end_rare(ExitReason::IcrWrite, About::wide(value), entered)
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
