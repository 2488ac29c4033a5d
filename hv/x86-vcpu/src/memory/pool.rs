//! The pool: one contiguous range of host-physical memory, mapped one to one, from which everything that the
//! hypervisor needs is carved at boot, and never given back.

/// Not enough memory left in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolExhausted {
    /// Bytes asked for.
    pub wanted: usize,
    /// Bytes left.
    pub left: usize,
}

impl core::fmt::Display for PoolExhausted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "the hypervisor's memory pool is exhausted: {} bytes wanted, {} left; use fewer pCPUs or smaller trace rings",
            self.wanted, self.left
        )
    }
}

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// The pool.
#[derive(Debug)]
pub struct Pool {
    start: u64,
    next: u64,
    end: u64,
}

impl Pool {
    /// A pool over a range of memory.
    ///
    /// # Safety
    /// The range must be unused RAM, mapped one to one and writable for as long as the pool and everything
    /// carved from it is in use.
    pub unsafe fn new(start: u64, len: u64) -> Self {
        Self { start, next: start, end: start.saturating_add(len) }
    }

    /// Carves `len` zeroed bytes, aligned to `align` (a power of two, at least a page).
    ///
    /// # Errors
    /// If the pool is exhausted.
    pub fn carve(&mut self, len: usize, align: usize) -> Result<*mut u8, PoolExhausted> {
        let align = align.max(PAGE) as u64;
        let left = self.end.saturating_sub(self.next) as usize;
        let exhausted = PoolExhausted { wanted: len, left };
        let at = self.next.checked_next_multiple_of(align).ok_or(exhausted)?;
        let next = at.checked_add(len.next_multiple_of(PAGE) as u64).ok_or(exhausted)?;
        if next > self.end {
            return Err(exhausted);
        }
        self.next = next;
        let pointer = at as *mut u8;
        // SAFETY: [at, next) lies in the pool, and was not handed out before.
        unsafe { pointer.write_bytes(0, (next - at) as usize) };
        Ok(pointer)
    }

    /// Carves one zeroed page.
    ///
    /// # Errors
    /// If the pool is exhausted.
    pub fn page(&mut self) -> Result<*mut u8, PoolExhausted> {
        self.carve(PAGE, PAGE)
    }

    /// First address and length of the pool.
    pub const fn range(&self) -> (u64, u64) {
        (self.start, self.end - self.start)
    }

    /// Bytes handed out so far.
    pub const fn used(&self) -> u64 {
        self.next - self.start
    }
}
