//! The hypervisor's end of the trace: each pCPU's ring and histograms, found from its stack. What the boot pCPU logs before
//! there is a trace region goes into a small ring of its own, whose frames move into the region later.

use core::cell::UnsafeCell;

use partita_core::arch::PcpuId;
use partita_trace::early::StaticRing;
use partita_trace::event::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::raw::RawRing;
use partita_trace::ring::Writer;

use crate::cpu::percpu::private;
use crate::cpu::rdtsc;
use crate::tracer::Tracer;

static EARLY_RING: StaticRing<128> = StaticRing::new();

/// The early ring's writer.
struct EarlyWriter(UnsafeCell<Option<Writer<'static>>>);

// SAFETY: only the boot pCPU uses it.
unsafe impl Sync for EarlyWriter {}

static EARLY_WRITER: EarlyWriter = EarlyWriter(UnsafeCell::new(None));

/// Moves what was logged early into the boot pCPU's ring, which takes over.
pub fn adopt_early(tracer: &mut Tracer) {
    tracer.writer.adopt(EARLY_RING.ring());
}

/// This pCPU's tracer, not there before it has one.
///
/// Whoever makes a reference of it holds it only until the next call into the trace, and calls nothing meanwhile: the
/// one context of a pCPU that traces is never interrupted by another that does (NMI handlers do not).
#[inline(always)]
pub fn tracer() -> *mut Tracer {
    private().tracer.get().cast::<Tracer>()
}

fn has_tracer() -> bool {
    private().has_tracer.get()
}

/// Records an event of this pCPU. Nothing happens before it has a tracer.
#[inline(never)]
pub fn record(tsc: u64, event: Event) {
    record_inline(tsc, event);
}

/// The same as a part of its caller: short if the kind of event is known there.
#[inline(always)]
pub fn record_inline(tsc: u64, event: Event) {
    if has_tracer() {
        // SAFETY: there is a tracer, and nothing else refers to it, by the contract of `tracer`.
        unsafe { (*tracer()).writer.record(tsc, event) };
    }
}

/// Counts a duration in one of this pCPU's histograms.
#[inline]
pub fn count(id: HistogramId, ticks: u64) {
    if has_tracer() {
        // SAFETY: as in `record`.
        unsafe { (*tracer()).histograms.record(id, ticks) };
    }
}

/// Records an event and counts its duration, on a pCPU that runs a vCPU, which has had its tracer since before its first
/// entry.
#[inline(always)]
pub fn record_and_count(tsc: u64, event: Event, id: HistogramId, ticks: u64) {
    let encoded = event.encode();
    put_and_count(tsc, encoded.kind_arg, [encoded.a, encoded.b], id, ticks);
}

/// The same for an event that is encoded already: its kind and argument, and its payload.
#[inline(always)]
pub fn put_and_count(tsc: u64, kind_arg: u32, [a, b]: [u64; 2], id: HistogramId, ticks: u64) {
    debug_assert!(has_tracer());
    // SAFETY: vCPUs are only started on pCPUs that have a tracer; nothing else refers to it meanwhile.
    let tracer = unsafe { &mut *tracer() };
    tracer.writer.put(kind_arg, tsc, a, b);
    tracer.histograms.record(id, ticks);
}

/// Where this pCPU's ring and histograms lie, for the [quick exits](crate::vcpu::quick): on a pCPU that runs a vCPU.
pub fn raw() -> (RawRing, u64) {
    debug_assert!(has_tracer());
    // SAFETY: as above.
    let tracer = unsafe { &*tracer() };
    (tracer.writer.raw(), tracer.histograms.base())
}

/// The writer of this pCPU, for defmt's logger.
#[unsafe(no_mangle)]
fn partita_trace_writer() -> *mut Writer<'static> {
    if has_tracer() {
        // SAFETY: there is a tracer; only the address of its field is taken.
        unsafe { &raw mut (*tracer()).writer }
    } else if private().id == PcpuId(0) {
        // SAFETY: only the boot pCPU comes here, and no log statement runs inside another.
        let writer = unsafe { &mut *EARLY_WRITER.0.get() };
        writer.get_or_insert_with(|| EARLY_RING.ring().writer())
    } else {
        core::ptr::null_mut()
    }
}

/// The time of log frames.
#[unsafe(no_mangle)]
fn partita_trace_now() -> u64 {
    rdtsc()
}
