//! What others ask of a vCPU: requests of its siblings and of the housekeeping core, and SMP calls.

use partita_core::arch::Arch;
use partita_trace::event::Event;
use partita_x86_policy::apic_events::{NmiState, VcpuAction};

use super::Vcpu;
use crate::arch::{X86, kick};
use crate::cpu::rdtsc;
use crate::virt::{GuestRegisters, VirtualCpu};
use crate::{apic, trace};

impl<V: VirtualCpu> Vcpu<V> {
    /// Serves what is asked. Returns when the guest may be entered: a vCPU that waits for its start, or has ended, stays
    /// here, and goes on serving its pCPU's SMP calls.
    #[cold]
    pub fn serve(&mut self, registers: &mut GuestRegisters, entered: u64) {
        let mut entered = entered;
        loop {
            self.inbox.handle_smp_call(entered);
            if self.cpu.delivers() {
                // One event at a time: requests wait for the exit that this NMI forces right behind it.
                if self.requests.peek() != 0 {
                    kick(X86::pcpu());
                }
                return;
            }
            let (requests, just_started) = self.requests.take();
            if just_started {
                self.cpu.started();
            }
            if requests.init() {
                V::let_in(apic::reset);
            }
            match self.events.on_request(requests, self.cpu.rip()) {
                VcpuAction::Enter => return,
                VcpuAction::InjectNmi => return self.inject_nmi(),
                VcpuAction::StepOverIret => return self.cpu.step_nmi_return(),
                VcpuAction::Start { vector } => {
                    self.cpu.start_up(vector, registers);
                    return self.requests.note_start();
                }
                VcpuAction::Wait | VcpuAction::Stop => {
                    let (requests, inbox) = (self.requests, self.inbox);
                    V::park_while(|| requests.peek() == 0 && !inbox.has_pending());
                    entered = rdtsc();
                }
            }
        }
    }

    /// Puts a first vCPU into the state that its image asks for.
    pub fn start_first(&mut self, registers: &mut GuestRegisters) {
        self.cpu.start_at(&self.partition.config.entry, registers);
        self.requests.note_start();
    }

    fn inject_nmi(&mut self) {
        let another = self.events.nmi() == NmiState::BlockedPending;
        trace::record(rdtsc(), Event::NmiInjected { another, rip: self.cpu.rip() });
        self.cpu.inject_nmi();
    }

    /// The guest is about to execute the IRET that ends its NMI handler.
    pub(super) fn nmi_returns(&mut self) {
        let action = self.events.on_iret(self.cpu.rip());
        self.cpu.watch_nmi_return(self.events.intercepts_iret());
        self.after_nmi(action);
    }

    /// The IRET was stepped over.
    pub(super) fn nmi_returned(&mut self) {
        self.cpu.end_step();
        let action = self.events.on_step();
        self.after_nmi(action);
    }

    fn after_nmi(&mut self, action: VcpuAction) {
        match action {
            VcpuAction::StepOverIret => self.cpu.step_nmi_return(),
            VcpuAction::InjectNmi => self.inject_nmi(),
            _ => {}
        }
    }
}
