//! The machine's debug port: what takes the trace out where the machine's RAM cannot be had, and ends the run. The stream is
//! described in [`partita_abi::debug_port`].

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use partita_abi::debug_port::{DEBUG_PORT, FrameWriter, PRESENT, SHUTDOWN, SHUTDOWN_PORT};
use x86_64::instructions::port::Port;

/// Bytes of memory that are left out together if they are all zero. A trace region is a multiple of it long.
const PIECE_LEN: usize = 1024;

/// How often a serial port is asked whether it has sent all: for longer than a full FIFO takes at 115,200 baud.
const PRINT_POLLS: u32 = 100_000;
/// Line status register, bit 6 (PC16550D data sheet, section 8.4).
const TRANSMITTER_EMPTY: u8 = 0x40;

static IS_ENABLED: AtomicBool = AtomicBool::new(false);
/// The number of the next frame.
static NEXT: AtomicU32 = AtomicU32::new(0);
/// The trace region, for [`end`]: its address, and its length, 0 for none.
static REGION: AtomicU64 = AtomicU64::new(0);
static REGION_LEN: AtomicU64 = AtomicU64::new(0);

/// Uses the port from now on. `false` if the machine has none.
pub fn enable() -> bool {
    let mut port: Port<u8> = Port::new(DEBUG_PORT);
    // SAFETY: nothing else of a PC is at this port; reading it has no effect.
    let is_there = unsafe { port.read() } == PRESENT;
    IS_ENABLED.store(is_there, Ordering::Relaxed);
    is_there
}

/// Whether the port is in use.
pub fn is_enabled() -> bool {
    IS_ENABLED.load(Ordering::Relaxed)
}

/// Notes where the program's own trace region lies: [`end`] writes it.
///
/// # Safety
/// The range must be mapped one to one, as long as the program runs, and have nothing but a trace region in it.
pub unsafe fn set_region(start: u64, len: u64) {
    REGION.store(start, Ordering::Relaxed);
    // Release: who sees the length sees the address.
    REGION_LEN.store(len, Ordering::Release);
}

/// Writes the memory at `start`, of `len` bytes rounded down to whole kibibytes, to the port, without what is zero. `address`
/// is where it lies physically.
///
/// # Safety
/// The range must be mapped, and be accessed as a trace region only: through atomics, or from outside the program.
pub unsafe fn write_memory(address: u64, start: *const u8, len: usize) {
    let mut writer = FrameWriter::new(NEXT.load(Ordering::Relaxed), write);
    let mut copy = [0; PIECE_LEN];
    for offset in (0..len / PIECE_LEN).map(|piece| piece * PIECE_LEN) {
        let mut all = 0;
        for (index, to) in copy.chunks_exact_mut(8).enumerate() {
            // SAFETY: the word lies in the range, aligned as the range is; volatile, because others may write to it.
            let word = unsafe { start.add(offset).cast::<u64>().add(index).read_volatile() };
            all |= word;
            to.copy_from_slice(&word.to_le_bytes());
        }
        if all != 0 {
            writer.memory(address + offset as u64, &copy);
        }
    }
    NEXT.store(writer.next(), Ordering::Relaxed);
}

/// Writes the trace region and the exit byte, and ends the emulator, if it is one that ends so; only if the port is in use.
pub(crate) fn end(byte: u8) {
    // Once: a fault on the way out has nothing to add but confusion.
    if !IS_ENABLED.swap(false, Ordering::Relaxed) {
        return;
    }
    let len = REGION_LEN.load(Ordering::Acquire) as usize;
    if len > 0 {
        let start = REGION.load(Ordering::Relaxed);
        // SAFETY: by the contract of `set_region`.
        unsafe { write_memory(start, start as usize as *const u8, len) };
    }
    FrameWriter::new(NEXT.load(Ordering::Relaxed), write).exit(byte);
    finish_printing();
    let mut port: Port<u8> = Port::new(SHUTDOWN_PORT);
    for byte in SHUTDOWN {
        // SAFETY: the port ends the emulator, or does nothing.
        unsafe { port.write(byte) };
    }
}

/// Waits until the serial ports have sent all that they were given, COM1 to COM4: what is in them when the emulator ends is lost.
fn finish_printing() {
    for base in [0x3F8, 0x2F8, 0x3E8, 0x2E8] {
        let mut line_status: Port<u8> = Port::new(base + 5);
        for _ in 0..PRINT_POLLS {
            // SAFETY: reading a line status register clears error bits only, in which nobody is interested any more.
            let status = unsafe { line_status.read() };
            // All ones is what a missing port reads as.
            if status & TRANSMITTER_EMPTY != 0 {
                break;
            }
        }
    }
}

fn write(bytes: &[u8]) {
    // SAFETY: the instruction reads the slice; what the port does with it has no effect on the program. The direction flag
    // is clear in all Rust code.
    unsafe {
        asm!(
            "rep outsb",
            in("dx") DEBUG_PORT,
            inout("rcx") bytes.len() => _,
            inout("rsi") bytes.as_ptr() => _,
            options(readonly, nostack, preserves_flags)
        );
    }
}
