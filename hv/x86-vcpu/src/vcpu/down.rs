//! A vCPU without a guest: its pCPU is the hypervisor's, with its local APIC, until the partition is started again.

use core::sync::atomic::Ordering;

use partita_core::arch::Arch;
use partita_core::smp_call::Deadline;
use partita_core::system::Entry;
use partita_trace::event::Event;
use partita_trace::names::StopCause;
use partita_x86_policy::apic_events::{Requests, RunState, VcpuEvents};
use partita_x86_policy::cmos::Cmos;
use partita_x86_policy::start_state::StartState;

use super::Vcpu;
use crate::arch::X86;
use crate::cpu::idt::WokenBy;
use crate::cpu::percpu::{self, KickMode, Order, Progress};
use crate::cpu::{extended, features, rdtsc};
use crate::virt::{GuestRegisters, VirtualCpu};
use crate::{apic, soak, trace};

/// How long another pCPU may take over its kick by vector, which is a few instructions.
const KICKER_DEADLINE_MS: u32 = 2000;

impl<V: VirtualCpu> Vcpu<V> {
    /// Takes this vCPU over, for ever, and returns when it is to be entered, with its general-purpose registers.
    ///
    /// # Safety
    /// As for [`VirtualCpu::take_over`].
    pub unsafe fn begin(&mut self) -> GuestRegisters {
        let mut registers = GuestRegisters::default();
        // SAFETY: by the contract above.
        unsafe { self.cpu.take_over() };
        self.answers.collect(|leaf| features::cpuid(leaf, 0), &self.cpuid);
        self.stay_down(&mut registers);
        self.serve(&mut registers, None);
        registers
    }

    /// Takes the pCPU back from the guest, serves SMP calls and orders, and returns when the vCPU is to start anew.
    #[cold]
    pub fn stay_down(&mut self, registers: &mut GuestRegisters) {
        self.take_back();
        loop {
            self.inbox.handle_smp_call(rdtsc());
            match percpu::private().order.replace(Order::None) {
                Order::Load if self.partition.loading.claim() => self.load_partition(),
                Order::Start if percpu::public(X86::pcpu()).is_start_wanted.swap(false, Ordering::AcqRel) => {
                    if self.hand_over() {
                        break;
                    }
                    self.take_back();
                }
                order @ (Order::Storm | Order::Hold) => soak::obey(order),
                // What came so late that it is wanted no longer, too.
                Order::None | Order::Park | Order::Dump | Order::Load | Order::Start => {
                    let (inbox, order) = (self.inbox, &percpu::private().order);
                    V::park_while(WokenBy::NmisAndInterrupts, || !inbox.has_pending() && order.get() == Order::None);
                }
            }
        }
        self.cpu.discard_events();
        self.shadow_behind_nmi = false;
        self.cmos = Cmos::default();
        let is_first = self.number == 0;
        self.events = VcpuEvents::new(if is_first { RunState::Running } else { RunState::WaitForSipi }, V::HOLDS_NMIS);
        // What its siblings asked was meant for the last life. What the housekeeping core asked is a stop, behind the end
        // of the partition's life, which shows it.
        self.requests.take();
        if !self.partition.life.is_running() {
            self.requests.add(Requests::STOP);
        }
        self.cpuid.starts = self.partition.starts.load(Ordering::Relaxed);
        let signature = features::signature();
        let entry = if is_first { &self.partition.config.entry } else { &Entry::Missing };
        self.cpu.power_on(&StartState::at(signature, entry), registers);
        self.is_fresh |= is_first;
        let public = percpu::public(X86::pcpu());
        public.set_progress(Progress::RunsVcpu);
        // Release: who sees the start sees the progress before it.
        public.starts.fetch_add(1, Ordering::Release);
    }

    /// The local APIC becomes the hypervisor's. From here on vectors reach it, and NMIs of those who have not noticed yet.
    fn take_back(&self) {
        V::let_in(apic::take_back);
        let public = percpu::public(X86::pcpu());
        percpu::set_kick_mode(KickMode::Vector);
        public.set_progress(Progress::VcpuDown);
    }

    /// The pCPU becomes its guest's: its local APIC as after a reset, and its registers that no entry loads. `false` if
    /// another pCPU did not come to an end with a kick by vector, which the guest would get.
    fn hand_over(&self) -> bool {
        let public = percpu::public(X86::pcpu());
        percpu::set_kick_mode(KickMode::Nmi);
        let deadline = Deadline::after_ms::<X86>(KICKER_DEADLINE_MS);
        while let Some(kicker) = public.vector_kicker() {
            if deadline.has_passed(X86::now()) {
                defmt::error!("pCPU {=u16} is late with a kick by vector", kicker.0);
                self.partition.stop(StopCause::Other, kicker.0.into());
                return false;
            }
            X86::relax();
        }
        V::let_in(apic::reset);
        extended::reset();
        true
    }

    /// Clears and loads the partition's memory, which the housekeeping core has mapped, and serves SMP calls meanwhile.
    fn load_partition(&self) {
        let public = percpu::public(X86::pcpu());
        public.set_progress(Progress::Loads);
        let started = rdtsc();
        let inbox = self.inbox;
        let between = || {
            if inbox.has_pending() {
                inbox.handle_smp_call(rdtsc());
            }
        };
        // SAFETY: the housekeeping core orders this only when it has mapped the partition's memory in its window, which
        // stays until this is done; no vCPU of the partition runs meanwhile.
        let fits = unsafe { self.partition.load(between) };
        // The window closes behind this.
        x86_64::instructions::tlb::flush_all();
        let (partition, bytes) = (self.partition.number, self.partition.config.memory_bytes);
        let ticks = rdtsc().wrapping_sub(started);
        trace::record(started, Event::PartitionLoaded { partition, bytes, ticks });
        public.set_progress(Progress::VcpuDown);
        self.partition.loading.finish(fits);
    }
}
