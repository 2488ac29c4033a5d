//! The architecture contract, answered by x86: see `partita_core::arch`.

use partita_core::arch::{Arch, PcpuId};
use partita_core::smp_call::{Inbox, Mailbox, Served, Slot, SmpCalls};
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::KickKind;
use spin::Once;

use crate::cpu::percpu::{self, KickMode};
use crate::cpu::{rdtsc, relax};
use crate::{apic, clock, trace};

/// x86_64, as common code sees it.
#[derive(Debug)]
pub struct X86;

impl Arch for X86 {
    #[inline(always)]
    fn pcpu() -> PcpuId {
        percpu::private().id
    }

    #[inline(always)]
    fn now() -> u64 {
        rdtsc()
    }

    #[inline]
    fn ticks_per_ms() -> u64 {
        clock::ticks_per_ms()
    }

    #[inline(always)]
    fn relax() {
        relax();
    }

    fn arch_init_smp_call() {
        percpu::public(Self::pcpu()).set_kick_mode(KickMode::Vector);
    }

    #[inline(always)]
    fn arch_smp_call_kick_pcpu(target: PcpuId) {
        kick(target);
    }

    #[inline]
    fn smp_call_served(served: &Served) {
        let stamps = &served.stamps;
        // A call that was found before its kick was even sent counts from its posting; one that came while the target was
        // out of its guest already was noticed when it was run.
        let sent = if stamps.kicked == 0 { stamps.posted } else { stamps.kicked };
        let noticed = if stamps.entered >= sent { stamps.entered } else { stamps.run };
        let ticks = noticed.saturating_sub(sent);
        let me = percpu::public(Self::pcpu());
        let (kind, id) = match me.kick_mode() {
            KickMode::Nmi => (KickKind::Nmi, HistogramId::KickNmi),
            KickMode::Vector => (KickKind::Vector, HistogramId::KickVector),
        };
        let sender = served.caller.0;
        trace::record(stamps.entered, Event::Kick { kind, sender, sent, ticks });
        trace::count(id, ticks);
        let ran = stamps.done.saturating_sub(stamps.run);
        trace::record(stamps.run, Event::SmpCallServed { caller: sender, posted: stamps.posted, ticks: ran });
    }
}

/// Makes a pCPU look at its mailbox and requests: by NMI if its local APIC is its guest's, else by vector.
#[inline(always)]
pub fn kick(target: PcpuId) {
    let public = percpu::public(target);
    match public.kick_mode() {
        KickMode::Nmi => apic::send_nmi(public.apic_id()),
        KickMode::Vector => apic::send_kick_vector(public.apic_id()),
    }
}

static CALLS: Once<SmpCalls<'static, X86>> = Once::new();

/// Sets the storage of SMP calls up, once, on the boot pCPU. Returns whether the storage has the right size.
pub fn set_up_calls(mailboxes: &'static [Mailbox], slots: &'static [Slot]) -> bool {
    SmpCalls::new(mailboxes, slots).map(|calls| CALLS.call_once(|| calls)).is_some()
}

/// The machine's SMP calls; `None` before [`set_up_calls`].
pub fn calls() -> Option<&'static SmpCalls<'static, X86>> {
    CALLS.get()
}

/// The inbox of a pCPU, for its exit path.
pub fn inbox(pcpu: PcpuId) -> Option<Inbox<'static, X86>> {
    calls()?.inbox(pcpu)
}
