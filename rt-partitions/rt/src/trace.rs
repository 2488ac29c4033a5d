//! The payload's own trace: one region in its memory, with a ring for each CPU. In a partition the hypervisor is told
//! where it lies.

use partita_abi::hypercall::{SUCCESS, TRACE_WINDOW};
use partita_abi::report::TRACE_REGION_AT;
use partita_trace::Event;
use partita_trace::layout::{Region, RegionSpec, WriterKind};
use partita_trace::ring::{FRAME_SLOTS_MAX, SLOTS_MAX, SLOTS_MIN, Writer};
use partita_x86_bare::{debug_port, rdtsc};
use spin::Once;

use crate::cpu;
use crate::error::Error;
use crate::machine::Machine;
use crate::place::hypercall;
use crate::println;

unsafe extern "C" {
    // From the linker script.
    static __trace_start: u8;
    static __trace_end: u8;
    static __build_id_start: u8;
    static __build_id_end: u8;
}

/// Bytes of an ELF note before a name of four bytes' descriptor.
const NOTE_HEAD: usize = 16;

static REGION: Once<Region<'static>> = Once::new();

/// Makes the region and announces it; CPU 0 has its ring from here on.
pub(crate) fn init(machine: &Machine) -> Result<(), Error> {
    let start = &raw const __trace_start as *mut u8;
    let room = &raw const __trace_end as usize - start as usize;
    let cpus = machine.apic_ids.len().min(cpu::CPUS_MAX);
    let mut spec = RegionSpec {
        writer: if machine.place.is_partition() { WriterKind::Guest } else { WriterKind::Bare },
        pcpus: cpus as u16,
        ring_slots: SLOTS_MAX,
        histograms: false,
        tsc_hz: machine.clocks.tsc_hz,
        build_id: build_id(),
    };
    while spec.len() > room && spec.ring_slots > SLOTS_MIN {
        spec.ring_slots /= 2;
    }
    // SAFETY: the linker script keeps this memory for the trace, and only this function takes it, once.
    let region = unsafe { Region::init(start, room, &spec) }?;
    REGION.call_once(|| region);
    // SAFETY: the same; a payload maps its memory one to one.
    unsafe { debug_port::set_region(start as u64, spec.len() as u64) };
    attach(0);
    println!("payload: {TRACE_REGION_AT} {:#x}, {} slots for each of {cpus} CPU(s)", start as u64, spec.ring_slots);
    if machine.place.is_partition() {
        // SAFETY: the hypervisor only reads the region.
        let result = unsafe { hypercall(TRACE_WINDOW, start as u64, spec.len() as u64) };
        if result != SUCCESS {
            return Err(Error::WindowRefused { result });
        }
    }
    Ok(())
}

fn build_id() -> [u8; 20] {
    let mut id = [0; 20];
    let start = &raw const __build_id_start;
    let len = &raw const __build_id_end as usize - start as usize;
    if len >= NOTE_HEAD + id.len() {
        // SAFETY: the note lies there, with a descriptor of at least 20 bytes.
        unsafe { core::ptr::copy_nonoverlapping(start.add(NOTE_HEAD), id.as_mut_ptr(), id.len()) };
    }
    id
}

/// Gives this CPU its ring.
pub(crate) fn attach(index: usize) {
    let ring = REGION.get().and_then(|region| region.ring(u16::try_from(index).unwrap_or(u16::MAX)));
    // SAFETY: this CPU's own, and no reference to it is in use.
    unsafe { *cpu::writer() = ring.map(|ring| ring.writer()) };
}

/// Records an event of this CPU, if it has a ring. Not for interrupt handlers.
pub fn record(tsc: u64, event: Event) {
    // SAFETY: this CPU's own, and the reference ends with the record.
    if let Some(writer) = unsafe { &mut *cpu::writer() } {
        writer.record(tsc, event);
    }
}

/// How many events a ring keeps, in this payload's trace.
pub fn capacity() -> usize {
    REGION.get().map_or(0, |region| region.header().spec.ring_slots as usize - FRAME_SLOTS_MAX)
}

/// The writer of this CPU, for defmt's logger.
#[unsafe(no_mangle)]
fn partita_trace_writer() -> *mut Writer<'static> {
    // SAFETY: this CPU's own; only a pointer to it leaves.
    unsafe { &mut *cpu::writer() }.as_mut().map_or(core::ptr::null_mut(), core::ptr::from_mut)
}

/// The time of log frames.
#[unsafe(no_mangle)]
fn partita_trace_now() -> u64 {
    rdtsc()
}
