//! The architecture contract, answered by x86: see `partita_core::arch`.

use partita_core::arch::{Arch, Kicks, PcpuId};
use partita_core::smp_call::{Inbox, Mailbox, Round, Served, Slot, SmpCalls, Stamps};
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::KickKind;
use spin::Once;

use crate::cpu::percpu::{self, KickMode, OTHER_CLUSTER};
use crate::cpu::{rdtsc, relax};
use crate::{apic, clock, trace};

/// x86_64, as common code sees it.
#[derive(Debug)]
pub struct X86;

impl Arch for X86 {
    type Kicks = ClusterNmi;

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
        percpu::set_kick_mode(KickMode::Vector);
    }

    #[inline(always)]
    fn arch_smp_call_kick_pcpu(target: PcpuId) {
        kick(target);
    }

    // `in_nmi_context` stays false: the NMI handlers are a few instructions of assembly, and call nothing.

    #[inline(always)]
    fn smp_call_served(served: &Served) {
        if let Some(stamps) = &served.stamps {
            trace_unawaited(served.caller, stamps);
        }
    }

    #[inline(always)]
    fn kick_note(target: PcpuId) -> u8 {
        KickKind::from(percpu::public(target).kick_mode()) as u8
    }

    #[inline]
    fn smp_call_answered(target: PcpuId, kick_note: u8, stamps: &Stamps) {
        let kind = KickKind::from_raw(kick_note).unwrap_or(KickKind::Vector);
        trace_call(CallEnds { peer: target, kind, by_caller: true }, stamps);
    }
}

/// One NMI to pCPUs of one cluster of x2APIC IDs: a logical destination (SDM vol. 3, "Logical Destination Mode in x2APIC
/// Mode"). A guest that has its local APIC cannot change its logical ID, as it does not leave x2APIC mode.
#[derive(Debug)]
pub struct ClusterNmi {
    /// What the destinations have together, and what each of them has.
    any: u32,
    all: u32,
}

impl Default for ClusterNmi {
    fn default() -> Self {
        Self { any: 0, all: u32::MAX }
    }
}

impl Kicks for ClusterNmi {
    const NOTE: u8 = KickKind::Nmi as u8;

    #[inline(always)]
    fn gather(&mut self, target: PcpuId) {
        let destination = percpu::public(target).nmi_destination();
        self.any |= destination;
        // The bits below the cluster may differ.
        self.all &= destination | !OTHER_CLUSTER;
    }

    #[inline(always)]
    fn can_be_sent(&self) -> bool {
        let cluster = self.any & OTHER_CLUSTER;
        cluster == self.all & OTHER_CLUSTER && cluster != 0
    }

    #[inline(always)]
    fn send(self) {
        apic::send_nmi_logical(self.any ^ OTHER_CLUSTER);
    }
}

/// The target traces a call that nobody waits for. Others are traced by their callers, to save the targets' time.
#[cold]
#[inline(never)]
fn trace_unawaited(caller: PcpuId, stamps: &Stamps) {
    let kind = percpu::private().kick_kind.get();
    trace_call(CallEnds { peer: caller, kind, by_caller: false }, stamps);
}

struct CallEnds {
    /// The other one.
    peer: PcpuId,
    kind: KickKind,
    by_caller: bool,
}

/// Traces a call that was served, and counts how long its kick took.
#[inline]
fn trace_call(ends: CallEnds, stamps: &Stamps) {
    let Stamps { posted, kicked, entered, run, done } = *stamps;
    // A call that was found before its kick was even sent counts from its posting; one that came while the target was out
    // of its guest already was noticed when it was run.
    let kick = if kicked == 0 { posted } else { kicked };
    let exit = if entered >= kick { entered } else { run };
    // One comparison tells whether every leg fits; if not, each is cut by itself.
    let fits = done.wrapping_sub(posted) <= u32::MAX.into() && kick >= posted && exit >= kick && run >= exit;
    let leg = |from: u64, to: u64| {
        if fits { to.wrapping_sub(from) as u32 } else { to.saturating_sub(from).min(u32::MAX.into()) as u32 }
    };
    let CallEnds { peer: PcpuId(peer), kind, by_caller } = ends;
    let event = Event::SmpCallServed {
        peer,
        kind,
        by_caller,
        post_to_kick: leg(posted, kick),
        kick_to_exit: leg(kick, exit),
        exit_to_run: leg(exit, run),
        run_to_ack: leg(run, done),
    };
    let id = if kind == KickKind::Nmi { HistogramId::KickNmi } else { HistogramId::KickVector };
    trace::record_and_count(exit, event, id, exit.saturating_sub(kick));
}

/// Makes a pCPU look at its mailbox and requests: by NMI if its local APIC is its guest's, else by vector.
#[inline(always)]
pub fn kick(target: PcpuId) {
    let public = percpu::public(target);
    let id = public.apic_id();
    if public.kick_mode() == KickMode::Nmi || !public.kick_by_vector(X86::pcpu(), || apic::send_kick_vector(id)) {
        apic::send_nmi(id);
    }
}

static CALLS: Once<SmpCalls<'static, X86>> = Once::new();

/// Sets the storage of SMP calls up, once, on the boot pCPU. Returns whether the storage has the right size.
pub fn set_up_calls(mailboxes: &'static [Mailbox], slots: &'static [Slot], rounds: &'static [Round]) -> bool {
    SmpCalls::new(mailboxes, slots, rounds).map(|calls| CALLS.call_once(|| calls)).is_some()
}

/// The machine's SMP calls; `None` before [`set_up_calls`].
pub fn calls() -> Option<&'static SmpCalls<'static, X86>> {
    CALLS.get()
}

/// Publishes that this pCPU is out of service after a fault, so that nobody waits for it.
pub fn stop_serving() {
    if let Some(calls) = calls() {
        calls.stop_serving();
    }
}

/// The inbox of a pCPU, for its exit path.
pub fn inbox(pcpu: PcpuId) -> Option<Inbox<'static, X86>> {
    calls()?.inbox(pcpu)
}
