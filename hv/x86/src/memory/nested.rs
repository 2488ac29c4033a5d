//! Nested page tables: a partition's memory, from guest-physical 0 on, in 2 MiB pages. Everything else is absent,
//! the APIC page included.

use x86_64::PhysAddr;
use x86_64::structures::paging::{PageTable, PageTableFlags};

use super::pool::{Pool, PoolExhausted};

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
