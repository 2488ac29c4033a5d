//! Nested page tables: a partition's memory, from guest-physical 0 on, in 2 MiB pages, and the device memory that it
//! owns, in 4 KiB pages. Everything else is absent, the APIC page included.

use x86_64::PhysAddr;
use x86_64::structures::paging::{PageTable, PageTableFlags};

use partita_core::system::MmioRange;

use super::pool::{PAGE, Pool, PoolExhausted};

const PAGE_2M: u64 = 2 << 20;
const ENTRIES: u64 = 512;

/// Nested walks are user accesses: each level has to allow those (APM vol. 2 section 15.25.5).
const TABLE: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::USER_ACCESSIBLE);
const LEAF: PageTableFlags = TABLE.union(PageTableFlags::HUGE_PAGE);

/// Builds the tables for `len` bytes of guest-physical memory, which lie at host-physical `hpa`. Both are
/// multiples of 2 MiB. Returns the host-physical address of the root.
///
/// # Errors
/// If the pool is exhausted.
pub fn build(pool: &mut Pool, hpa: u64, len: u64) -> Result<u64, PoolExhausted> {
    let mut table = || {
        let page = pool.page()?.cast::<PageTable>();
        // SAFETY: a zeroed page of the pool, which nobody else has, is an empty page table.
        Ok(unsafe { &mut *page })
    };
    let address = |table: &PageTable| PhysAddr::new(&raw const *table as u64);
    let root: &mut PageTable = table()?;
    let third: &mut PageTable = table()?;
    root[0].set_addr(address(third), TABLE);
    let pages = len / PAGE_2M;
    for first in (0..pages).step_by(ENTRIES as usize) {
        let second: &mut PageTable = table()?;
        for n in first..pages.min(first + ENTRIES) {
            second[(n - first) as usize].set_addr(PhysAddr::new_truncate(hpa + n * PAGE_2M), LEAF);
        }
        third[(first / ENTRIES) as usize].set_addr(address(second), TABLE);
    }
    Ok(address(root).as_u64())
}

/// Device memory: not cached, and no instructions are fetched from it.
const DEVICE: PageTableFlags =
    TABLE.union(PageTableFlags::NO_CACHE).union(PageTableFlags::WRITE_THROUGH).union(PageTableFlags::NO_EXECUTE);

/// Adds device memory to the tables of `root`, which [`build`] made. The rules hold for it: whole pages, behind the
/// partition's memory, below what one third-level table reaches.
///
/// # Errors
/// If the pool is exhausted.
///
/// # Safety
/// The tables must be nobody else's yet.
pub unsafe fn add_device(pool: &mut Pool, root: u64, device: &MmioRange) -> Result<(), PoolExhausted> {
    for offset in (0..device.bytes).step_by(PAGE) {
        let gpa = device.gpa + offset;
        let mut table = root;
        for shift in [39, 30, 21] {
            // SAFETY: the tables are whole pages of the pool, mapped one to one; by the contract above nobody else uses them.
            let entries = unsafe { &mut *(table as *mut PageTable) };
            let entry = &mut entries[index(gpa, shift)];
            if entry.is_unused() {
                entry.set_addr(PhysAddr::new_truncate(pool.page()? as u64), TABLE);
            }
            table = entry.addr().as_u64();
        }
        // SAFETY: as above.
        let entries = unsafe { &mut *(table as *mut PageTable) };
        entries[index(gpa, 12)].set_addr(PhysAddr::new_truncate(device.hpa + offset), DEVICE);
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
