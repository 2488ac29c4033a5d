//! How much memory the hypervisor wants for itself, before it has any.

use core::mem::{align_of, size_of};

use partita_core::smp_call::{Mailbox, Round, Slot, SmpCalls};
use partita_core::system::SystemConfig;
use partita_trace::layout::{RegionSpec, WriterKind};
use partita_trace::ring::SLOT_LEN;
use partita_x86_policy::msr::MSRPM_LEN;
use partita_x86_policy::ports::IOPM_LEN;

use crate::arch::X86;
use crate::cpu::percpu::BLOCK_LEN;
use crate::memory::nested;
use crate::memory::pool::PAGE;

/// Pages for the upper levels of the hypervisor's own page tables, and for what is rounded up to a page.
const TABLE_PAGES: usize = 64;
/// Pages for each partition beside its maps: nested tables for at most 3 GiB, those of its window, and its description.
const PARTITION_PAGES: usize = 13;
/// Pages of each pCPU beside its block: host save area, VMCB, vCPU.
const PCPU_PAGES: usize = 3;

/// The trace region of a system on so many pCPUs.
pub fn region_spec(config: &SystemConfig, pcpus: usize, tsc_hz: u64) -> RegionSpec {
    RegionSpec {
        writer: WriterKind::Hypervisor,
        pcpus: pcpus as u16,
        ring_slots: config.trace.ring_bytes / SLOT_LEN as u32,
        histograms: true,
        tsc_hz,
        build_id: crate::build_id(),
    }
}

/// Bytes that one page of page tables maps.
const TABLE_REACH: u64 = 2 << 20;

/// Bytes that the hypervisor wants for itself, besides its image. It also maps the bundle, of `bundle` bytes.
pub fn pool_bytes(config: &SystemConfig, pcpus: usize, bundle: u64) -> u64 {
    let calls = pcpus * (size_of::<Mailbox>() + align_of::<Mailbox>())
        + SmpCalls::<X86>::slots_for(pcpus) * size_of::<Slot>()
        + SmpCalls::<X86>::rounds_for(pcpus) * size_of::<Round>();
    let bytes = region_spec(config, pcpus, 0).len()
        + pcpus * (BLOCK_LEN + PCPU_PAGES * PAGE)
        + calls
        + config.partitions.len() * (MSRPM_LEN + IOPM_LEN + PARTITION_PAGES * PAGE)
        + TABLE_PAGES * PAGE;
    let devices = config.partitions.iter().flat_map(|partition| &partition.mmio);
    let device_pages: u64 = devices.map(|device| nested::device_table_pages(device.bytes)).sum();
    let bytes = bytes + device_pages as usize * PAGE;
    let tables = (bytes as u64 + bundle).div_ceil(TABLE_REACH) * PAGE as u64;
    (bytes as u64 + tables).next_multiple_of(PAGE as u64)
}
