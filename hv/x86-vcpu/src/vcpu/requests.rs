//! What others ask of a vCPU: requests of its siblings and of the housekeeping core, and SMP calls.

use core::sync::atomic::Ordering;

use partita_core::arch::Arch;
use partita_trace::event::Event;
use partita_x86_policy::apic_events::{NmiState, Requests, VcpuAction};
use partita_x86_policy::start_state::StartState;

use super::Vcpu;
use super::common::Unrecorded;
use crate::arch::{X86, kick};
use crate::cpu::idt::WokenBy;
use crate::cpu::percpu::{self, Order};
use crate::cpu::{extended, features, rdtsc};
use crate::virt::{GuestRegisters, VirtualCpu};
use crate::{apic, dump, soak, trace};

impl<V: VirtualCpu> Vcpu<V> {
    /// Serves what is asked. Returns when the guest may be entered: a vCPU that waits for its start, or is down, stays
    /// here, and goes on serving its pCPU's SMP calls. `exit` is recorded when it is over: at the end, or before the vCPU
    /// waits.
    #[cold]
    pub fn serve(&mut self, registers: &mut GuestRegisters, exit: Option<Unrecorded>) {
        let mut exit = exit;
        let mut since = exit.as_ref().map_or_else(rdtsc, |exit| exit.entered);
        while !self.serve_once(registers, since, &mut exit) {
            since = rdtsc();
        }
        if core::mem::take(&mut self.is_fresh) {
            // Not earlier: the exit that finds this note ends what a start asks of one entry only.
            self.requests.note_start();
        }
        self.record_pending(&mut exit);
    }

    // Inlined, as everything that has nothing of a vendor would be one function for both vendors, in the code of one of them.
    #[inline(always)]
    fn record_pending(&self, exit: &mut Option<Unrecorded>) {
        if let Some(exit) = exit.take() {
            self.record(exit);
        }
    }

    /// Serves what is there. `true` if the guest may be entered, `false` if it has been waited.
    fn serve_once(&mut self, registers: &mut GuestRegisters, since: u64, exit: &mut Option<Unrecorded>) -> bool {
        let order = &percpu::private().order;
        self.inbox.handle_smp_call(since);
        self.requests.forget_order();
        match order.replace(Order::None) {
            Order::Dump => dump::note(X86::pcpu(), &self.cpu.registers(registers)),
            order @ (Order::Storm | Order::Hold) => {
                soak::obey(order);
                // What was served meanwhile may have left another order.
                return false;
            }
            // Only given to a pCPU without a guest.
            Order::None | Order::Load | Order::Start | Order::Park => {}
        }
        if self.events.nmi() == NmiState::Stepping && !self.cpu.steps_nmi_return() && !self.cpu.delivers() {
            // The IRET that was to be stepped over has faulted: the guest is out of its NMI handler in another way.
            let action = self.events.on_step();
            self.after_nmi(action);
        }
        let waiting = self.requests.peek();
        if self.cpu.delivers() && !Requests::from_word(waiting).drops_events() {
            // One event at a time: requests wait for the exit that this NMI forces right behind it.
            if waiting != 0 {
                kick(X86::pcpu());
            }
            return true;
        }
        let (requests, just_started) = self.requests.take();
        if just_started {
            self.cpu.started();
        }
        if requests.init() {
            V::let_in(apic::reset);
            self.cpu.discard_events();
        }
        match self.events.on_request(requests, self.cpu.rip()) {
            VcpuAction::Enter => true,
            VcpuAction::InjectNmi => {
                self.inject_nmi();
                true
            }
            VcpuAction::StepOverIret => {
                self.cpu.step_nmi_return();
                true
            }
            VcpuAction::Start { vector } => {
                self.shadow_behind_nmi = false;
                let state = StartState::start_up(features::signature(), self.cpu.cr0(), vector);
                self.cpu.start_up(&state, registers);
                extended::clear_breakpoints();
                self.is_fresh = true;
                // A kick may have come while the local APIC was reset, when it is not kept for the next entry.
                !self.has_news()
            }
            VcpuAction::Wait => {
                self.record_pending(exit);
                let (requests, inbox) = (self.requests, self.inbox);
                let waits = &percpu::public(X86::pcpu()).waits_for_sipi;
                waits.store(true, Ordering::Relaxed);
                V::park_while(WokenBy::Nmis, || {
                    requests.peek() == 0 && !inbox.has_pending() && order.get() == Order::None
                });
                waits.store(false, Ordering::Relaxed);
                false
            }
            VcpuAction::Stop => {
                self.record_pending(exit);
                self.stay_down(registers);
                false
            }
        }
    }

    fn inject_nmi(&mut self) {
        let another = self.events.nmi() == NmiState::BlockedPending;
        trace::record(rdtsc(), Event::NmiInjected { another, rip: self.cpu.rip() });
        self.shadow_behind_nmi |= self.cpu.in_shadow();
        self.cpu.inject_nmi();
    }

    /// The guest is about to execute the IRET that ends its NMI handler.
    pub(super) fn nmi_returns(&mut self) {
        let action = self.events.on_iret(self.cpu.rip());
        self.cpu.watch_nmi_return(self.events.intercepts_iret());
        if self.shadow_behind_nmi && action == VcpuAction::Enter {
            self.cpu.step_nmi_return();
        }
        self.after_nmi(action);
    }

    /// A #DB came: `true` if it was the hypervisor's alone, behind the guest's IRET from its NMI handler.
    pub(super) fn nmi_returned(&mut self) -> bool {
        if !self.cpu.has_stepped() {
            return false;
        }
        let stepping = self.events.nmi() == NmiState::Stepping;
        if stepping {
            let action = self.events.on_step();
            self.after_nmi(action);
        } else if self.shadow_behind_nmi {
            self.shadow_behind_nmi = false;
            self.cpu.enter_shadow();
        } else {
            return false;
        }
        // One event at a time: an NMI goes before a #DB that the guest's own IRET caused.
        !self.cpu.end_nmi_return() || self.cpu.delivers()
    }

    fn after_nmi(&mut self, action: VcpuAction) {
        match action {
            VcpuAction::StepOverIret => self.cpu.step_nmi_return(),
            VcpuAction::InjectNmi => self.inject_nmi(),
            _ => {}
        }
    }
}
