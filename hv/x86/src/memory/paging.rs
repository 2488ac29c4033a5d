//! The hypervisor's own page tables: what it needs, with the rights it needs, and nothing else.
//!
//! Text is read-only and executable, constants read-only, everything else without execute. Stacks have an
//! unmapped page below them. The memory of a partition is not mapped, except in its window while its own pCPU loads it, and
//! in the housekeeping core's while that looks at it. All pCPUs share the tables, which only the boot pCPU changes; a
//! window has been used by one pCPU alone, which forgets its translations when it is done.

use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::pool::{PAGE, Pool, PoolExhausted};
use crate::cpu::percpu::{self, GUARD_LEN};
use partita_core::arch::PcpuId;
use partita_core::system::PARTITIONS_MAX;
use partita_x86_policy::capabilities::Backend;

/// What a mapping allows. Nothing is both writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    ReadExecute,
    /// Read and write a device's registers, uncached.
    Device,
}

impl Access {
    fn flags(self) -> PageTableFlags {
        let present = PageTableFlags::PRESENT;
        match self {
            Self::Read => present | PageTableFlags::NO_EXECUTE,
            Self::ReadWrite => present | PageTableFlags::NO_EXECUTE | PageTableFlags::WRITABLE,
            Self::ReadExecute => present,
            Self::Device => present | PageTableFlags::NO_EXECUTE | PageTableFlags::WRITABLE | PageTableFlags::NO_CACHE,
        }
    }
}

/// Why a mapping failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory for page tables.
    Pool(PoolExhausted),
    /// Two mappings of one address: an error of the hypervisor, with the address.
    Overlap(u64),
}

impl core::fmt::Display for MapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Pool(error) => error.fmt(f),
            Self::Overlap(address) => write!(f, "the hypervisor's own mappings overlap at {address:#x}"),
        }
    }
}

impl From<PoolExhausted> for MapError {
    fn from(error: PoolExhausted) -> Self {
        Self::Pool(error)
    }
}

struct TableFrames<'a>(&'a mut Pool);

// SAFETY: every frame comes fresh from the pool.
unsafe impl FrameAllocator<Size4KiB> for TableFrames<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        self.0.page().ok().map(|page| PhysFrame::containing_address(PhysAddr::new(page as u64)))
    }
}

/// Where the windows into partitions' memory begin; far from everything that is mapped one to one. Each has an entry of
/// the root table of its own.
const WINDOWS: u64 = 1 << 39;
/// Bytes from one window to the next.
const WINDOW_STRIDE: u64 = 1 << 39;
/// The window of the housekeeping core, behind those of the partitions.
const LOOKING: usize = PARTITIONS_MAX;

/// Where the memory of a partition is mapped while it is loaded.
pub const fn window_of(partition: u16) -> u64 {
    window(partition as usize)
}

const fn window(number: usize) -> u64 {
    WINDOWS + number as u64 * WINDOW_STRIDE
}

fn window_page(window: u64, number: u64) -> Page<Size2MiB> {
    Page::containing_address(VirtAddr::new_truncate(window + number * Size2MiB::SIZE))
}

/// The hypervisor's address space.
#[derive(Debug)]
pub struct AddressSpace {
    root: u64,
    tables: OffsetPageTable<'static>,
}

unsafe extern "C" {
    static __boot_text_start: u8;
    static __boot_text_end: u8;
    static __svm_text_start: u8;
    static __svm_text_end: u8;
    static __vmx_text_start: u8;
    static __vmx_text_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __image_start: u8;
    static __image_end: u8;
}

/// First address and length of the hypervisor's image in memory.
pub fn image_range() -> (u64, u64) {
    range(&raw const __image_start, &raw const __image_end)
}

fn range(from: *const u8, to: *const u8) -> (u64, u64) {
    (from as u64, to as u64 - from as u64)
}

/// First address and length of the code that only boot needs.
pub fn boot_text() -> (u64, u64) {
    range(&raw const __boot_text_start, &raw const __boot_text_end)
}

/// First address and length of the code that only a vendor's CPUs need.
pub fn vendor_text(backend: Backend) -> (u64, u64) {
    match backend {
        Backend::Svm => range(&raw const __svm_text_start, &raw const __svm_text_end),
        Backend::Vmx => range(&raw const __vmx_text_start, &raw const __vmx_text_end),
    }
}

impl AddressSpace {
    /// Builds the address space with the image and the pool in it. It is not yet in use.
    ///
    /// # Errors
    /// If the pool cannot hold the tables.
    pub fn new(pool: &mut Pool) -> Result<Self, MapError> {
        let root = pool.page()?;
        // SAFETY: the page is zeroed, which is an empty table, and belongs to this address space alone; all tables
        // come from the pool, which is mapped one to one.
        let tables = unsafe { OffsetPageTable::new(&mut *root.cast::<PageTable>(), VirtAddr::new(0)) };
        let mut space = Self { root: root as u64, tables };
        let sections = [
            (boot_text(), Access::ReadExecute),
            (vendor_text(Backend::Svm), Access::ReadExecute),
            (vendor_text(Backend::Vmx), Access::ReadExecute),
            (range(&raw const __text_start, &raw const __text_end), Access::ReadExecute),
            (range(&raw const __rodata_start, &raw const __rodata_end), Access::Read),
            (range(&raw const __data_start, &raw const __data_end), Access::ReadWrite),
        ];
        for ((start, len), access) in sections {
            space.map(start, len, access, pool)?;
        }
        let (start, len) = pool.range();
        space.map(start, len, Access::ReadWrite, pool)?;
        Ok(space)
    }

    /// Maps a range one to one, in whole pages.
    ///
    /// # Errors
    /// If the pool is exhausted, or something is mapped there.
    pub fn map(&mut self, start: u64, len: u64, access: Access, pool: &mut Pool) -> Result<(), MapError> {
        let first = start & !(PAGE as u64 - 1);
        for address in (first..start.saturating_add(len)).step_by(PAGE) {
            let page = Page::<Size4KiB>::containing_address(VirtAddr::new_truncate(address));
            let frame = PhysFrame::containing_address(PhysAddr::new_truncate(address));
            self.map_page(page, frame, access.flags(), pool)?;
        }
        Ok(())
    }

    fn map_page<S: PageSize>(
        &mut self,
        page: Page<S>,
        frame: PhysFrame<S>,
        flags: PageTableFlags,
        pool: &mut Pool,
    ) -> Result<(), MapError>
    where
        OffsetPageTable<'static>: Mapper<S>,
    {
        // SAFETY: the frame is RAM that the hypervisor may use in this way: callers map the image by its own
        // sections, and else memory that no Rust object lies in.
        let mapped = unsafe { self.tables.map_to(page, frame, flags, &mut TableFrames(pool)) };
        match mapped {
            Ok(flush) => {
                flush.flush();
                Ok(())
            }
            Err(MapToError::FrameAllocationFailed) => Err(MapError::Pool(PoolExhausted { wanted: PAGE, left: 0 })),
            Err(_) => Err(MapError::Overlap(page.start_address().as_u64())),
        }
    }

    /// Unmaps the page below the stack of a pCPU, so that an overflow faults instead of corrupting.
    pub fn guard(&mut self, pcpu: PcpuId) {
        self.unmap(percpu::block_of(pcpu), GUARD_LEN as u64);
    }

    /// Unmaps a range of whole pages. What is not mapped stays so.
    pub fn unmap(&mut self, start: u64, len: u64) {
        for address in (start..start.saturating_add(len)).step_by(PAGE) {
            let page = Page::<Size4KiB>::containing_address(VirtAddr::new_truncate(address));
            if let Ok((_, flush)) = self.tables.unmap(page) {
                flush.flush();
            }
        }
    }

    /// Physical address of the root table, for CR3.
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// Switches this pCPU to the address space.
    ///
    /// # Safety
    /// Everything in use must be mapped in it: code, stack, and all that is referred to.
    pub unsafe fn activate(&self) {
        let frame = PhysFrame::containing_address(PhysAddr::new(self.root));
        // SAFETY: by the contract above.
        unsafe { x86_64::registers::control::Cr3::write(frame, x86_64::registers::control::Cr3Flags::empty()) };
    }

    /// Opens the window of a partition: maps `len` bytes from host-physical `hpa` there, both multiples of 2 MiB.
    ///
    /// # Errors
    /// If the pool cannot hold the tables; not when the same window was open before.
    ///
    /// # Safety
    /// The range must be the memory of this partition, and none of its guest's vCPUs run until the window is closed.
    pub unsafe fn open_window(&mut self, partition: u16, hpa: u64, len: u64, pool: &mut Pool) -> Result<(), MapError> {
        self.map_window(window_of(partition), hpa, len, pool)
    }

    /// Closes the window of a partition, of `len` bytes. The pCPU that used it forgets its translations itself.
    pub fn close_window(&mut self, partition: u16, len: u64) {
        self.unmap_window(window_of(partition), len);
    }

    fn map_window(&mut self, window: u64, hpa: u64, len: u64, pool: &mut Pool) -> Result<(), MapError> {
        for n in 0..len.div_ceil(Size2MiB::SIZE) {
            let frame = PhysFrame::containing_address(PhysAddr::new_truncate(hpa + n * Size2MiB::SIZE));
            if let Err(error) = self.map_page(window_page(window, n), frame, Access::ReadWrite.flags(), pool) {
                self.unmap_window(window, n * Size2MiB::SIZE);
                return Err(error);
            }
        }
        Ok(())
    }

    fn unmap_window(&mut self, window: u64, len: u64) {
        for n in 0..len.div_ceil(Size2MiB::SIZE) {
            if let Ok((_, flush)) = self.tables.unmap(window_page(window, n)) {
                flush.flush();
            }
        }
    }

    /// Maps `len` bytes of a partition's memory, from host-physical `hpa` (a multiple of 2 MiB), for the housekeeping core
    /// while `look` looks at it.
    ///
    /// # Errors
    /// If the pool cannot hold the tables.
    ///
    /// # Safety
    /// The range must be the memory of a partition. Its guest may change it meanwhile if it runs: then `look` must read
    /// it by volatile reads, and make no references to it.
    pub unsafe fn look_at<T>(
        &mut self,
        hpa: u64,
        len: u64,
        pool: &mut Pool,
        look: impl FnOnce(*mut u8) -> T,
    ) -> Result<T, MapError> {
        self.map_window(window(LOOKING), hpa, len, pool)?;
        let result = look(window(LOOKING) as *mut u8);
        self.unmap_window(window(LOOKING), len);
        Ok(result)
    }
}
