//! defmt's global logger: each log frame is staged in the pCPU's [`Writer`] and committed whole.
//!
//! The binary that uses it provides two functions, and says `use partita_trace as _;` if nothing else does:
//!
//! ```ignore
//! /// The writer of the pCPU that runs this, or null before there is one.
//! #[unsafe(no_mangle)]
//! fn partita_trace_writer() -> *mut partita_trace::Writer<'static> { ... }
//!
//! /// The time in ticks of the TSC.
//! #[unsafe(no_mangle)]
//! fn partita_trace_now() -> u64 { ... }
//! ```
//! The pointer stays valid, names the same writer, and no reference to that writer is in use, from a log
//! statement's start to its end. The time is the frame's own, taken when the frame is complete, so that
//! `defmt::timestamp!` is not needed.
//!
//! An interrupt handler may log: a frame that begins inside another one is dropped and counted, in the ring's
//! head. NMI handlers must not.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::ring::Writer;

unsafe extern "Rust" {
    fn partita_trace_writer() -> *mut Writer<'static>;
    safe fn partita_trace_now() -> u64;
}

/// Log frames that found no writer.
static WITHOUT_WRITER: AtomicU64 = AtomicU64::new(0);

/// How many log frames were dropped because there was no writer yet.
pub fn dropped_without_writer() -> u64 {
    WITHOUT_WRITER.load(Ordering::Relaxed)
}

/// Runs `f` on this pCPU's writer, if there is one.
fn with_writer(f: impl FnOnce(&mut Writer<'static>)) -> bool {
    // SAFETY: the binary provides it; it returns null or a writer that nothing else uses meanwhile (see above).
    match unsafe { partita_trace_writer().as_mut() } {
        Some(writer) => {
            f(writer);
            true
        }
        None => false,
    }
}

#[defmt::global_logger]
struct RingLogger;

// SAFETY: each pCPU stages into its own writer; a frame opened inside another is dropped by the writer.
unsafe impl defmt::Logger for RingLogger {
    fn acquire() {
        if !with_writer(Writer::log_begin) {
            WITHOUT_WRITER.fetch_add(1, Ordering::Relaxed);
        }
    }

    unsafe fn flush() {}

    unsafe fn release() {
        let now = partita_trace_now();
        with_writer(|writer| writer.log_end(now));
    }

    unsafe fn write(bytes: &[u8]) {
        // Raw encoding is the identity: there is no encoder's state to keep.
        with_writer(|writer| writer.log_extend(bytes));
    }
}
