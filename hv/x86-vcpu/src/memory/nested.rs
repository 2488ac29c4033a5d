//! Nested page tables: a partition's memory, from guest-physical 0 on, in 2 MiB pages, and the device memory that it
//! owns, in 4 KiB pages. Everything else is absent, the APIC page included.

use partita_core::system::MmioRange;
use partita_x86_policy::vmx::ept;
use x86_64::structures::paging::PageTableFlags;

use super::pool::{PAGE, Pool, PoolExhausted};

const PAGE_2M: u64 = 2 << 20;
const ENTRIES: u64 = 512;
/// Bits of the address in an entry, in both formats.
const ADDRESS: u64 = ept::ADDRESS;

/// What a vendor's entries say beside the address. Both have four levels of 512 entries, and 0 for what is absent.
#[derive(Clone, Copy, Debug)]
pub struct NestedFormat {
    /// Leads to a further table.
    table: u64,
    /// 2 MiB of RAM.
    ram: u64,
    /// 4 KiB of device memory: not cached, and no instructions are fetched from it.
    device: u64,
}

/// Nested walks are user accesses: each level has to allow those (APM vol. 2 section 15.25.5).
const NPT_TABLE: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::USER_ACCESSIBLE);
const NPT_DEVICE: PageTableFlags =
    NPT_TABLE.union(PageTableFlags::NO_CACHE).union(PageTableFlags::WRITE_THROUGH).union(PageTableFlags::NO_EXECUTE);

impl NestedFormat {
    /// AMD's nested page tables.
    pub const NPT: Self = Self {
        table: NPT_TABLE.bits(),
        ram: NPT_TABLE.union(PageTableFlags::HUGE_PAGE).bits(),
        device: NPT_DEVICE.bits(),
    };
    /// Intel's extended page tables.
    pub const EPT: Self = Self { table: ept::TABLE, ram: ept::RAM | ept::LARGE, device: ept::DEVICE };
}

type Table = [u64; ENTRIES as usize];

/// A new, empty table.
fn table(pool: &mut Pool) -> Result<&'static mut Table, PoolExhausted> {
    let page = pool.page()?.cast::<Table>();
    // SAFETY: a zeroed page of the pool, which nobody else has, is an empty table, mapped one to one.
    Ok(unsafe { &mut *page })
}

fn address(table: &Table) -> u64 {
    table.as_ptr() as u64
}

/// Builds the tables for `len` bytes of guest-physical memory, which lie at host-physical `hpa`. Both are
/// multiples of 2 MiB. Returns the host-physical address of the root.
///
/// # Errors
/// If the pool is exhausted.
pub fn build(pool: &mut Pool, format: NestedFormat, hpa: u64, len: u64) -> Result<u64, PoolExhausted> {
    let root = table(pool)?;
    let third = table(pool)?;
    root[0] = address(third) | format.table;
    let pages = len / PAGE_2M;
    for first in (0..pages).step_by(ENTRIES as usize) {
        let second = table(pool)?;
        for n in first..pages.min(first + ENTRIES) {
            second[(n - first) as usize] = (hpa + n * PAGE_2M) & ADDRESS | format.ram;
        }
        third[(first / ENTRIES) as usize] = address(second) | format.table;
    }
    Ok(address(root))
}

/// Adds device memory to the tables of `root`, which [`build`] made in this format. The rules hold for it: whole pages, behind
/// the partition's memory, below what one third-level table reaches.
///
/// # Errors
/// If the pool is exhausted.
///
/// # Safety
/// The tables must be nobody else's yet.
pub unsafe fn add_device(
    pool: &mut Pool,
    format: NestedFormat,
    root: u64,
    device: &MmioRange,
) -> Result<(), PoolExhausted> {
    for offset in (0..device.bytes).step_by(PAGE) {
        let gpa = device.gpa + offset;
        let mut at = root;
        for shift in [39, 30, 21] {
            // SAFETY: the tables are whole pages of the pool, mapped one to one; by the contract above nobody else uses them.
            let entries = unsafe { &mut *(at as *mut Table) };
            let entry = &mut entries[index(gpa, shift)];
            if *entry == 0 {
                *entry = address(table(pool)?) | format.table;
            }
            at = *entry & ADDRESS;
        }
        // SAFETY: as above.
        let entries = unsafe { &mut *(at as *mut Table) };
        entries[index(gpa, 12)] = (device.hpa + offset) & ADDRESS | format.device;
    }
    Ok(())
}

/// Most pages that the tables of a range of so many bytes take.
pub const fn device_table_pages(bytes: u64) -> u64 {
    const GIB: u64 = 1 << 30;
    // One more of each kind than is full, as a range need not begin at a boundary.
    (bytes.div_ceil(PAGE_2M) + 1) + (bytes.div_ceil(GIB) + 1)
}

const fn index(gpa: u64, shift: u32) -> usize {
    (gpa >> shift) as usize % ENTRIES as usize
}
