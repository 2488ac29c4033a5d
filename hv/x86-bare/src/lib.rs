//! The bare x86 machine, for programs that own it: the hypervisor, and the payloads, on the machine or in a partition.
//!
//! It brings a program from a PVH or multiboot2 loader into 64-bit Rust, finds the other CPUs and starts them, and has thin
//! access to the registers that both kinds of program need. The binary provides a block of memory and its main function:
//!
//! ```ignore
//! #[unsafe(no_mangle)]
//! static boot_block: BootBlock = BootBlock::new();
//!
//! #[unsafe(no_mangle)]
//! fn bare_main(boot: Result<BootInfo, BootInfoError>) -> ! { ... }
//! ```

#![no_std]

pub mod apic;
pub mod application;
pub mod boot_info;
pub mod debug_port;
pub mod discover;
pub mod entry;
pub mod exceptions;
pub mod multiboot2;
pub mod pm_timer;
pub mod pvh;
pub mod uart;

use core::arch::asm;
use core::cell::UnsafeCell;

use partita_abi::report::EXIT_PORT;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

/// The first stack, and a page above it that is the program's own: aligned to its size.
#[repr(C, align(65536))]
pub struct BootBlock(UnsafeCell<[u8; entry::BOOT_BLOCK_LEN]>);

// SAFETY: only the boot CPU uses it.
unsafe impl Sync for BootBlock {}

impl BootBlock {
    /// A block of zeros.
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; entry::BOOT_BLOCK_LEN]))
    }

    /// Where it lies.
    pub fn address(&self) -> u64 {
        self.0.get() as u64
    }
}

impl Default for BootBlock {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads the time-stamp counter, in program order with respect to the instructions around it only as far as the
/// CPU keeps it: the exit path does not serialise (APM vol. 3, RDTSC).
#[inline(always)]
pub fn rdtsc() -> u64 {
    // SAFETY: RDTSC reads a counter and nothing else; CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Reads a model-specific register that this CPU is known to have.
///
/// # Safety
/// The register must exist: callers do not survive a #GP.
#[inline(always)]
pub unsafe fn read_msr(msr: u32) -> u64 {
    // SAFETY: by the contract above.
    unsafe { Msr::new(msr).read() }
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must exist, take the value, and have no effect that breaks memory safety.
#[inline(always)]
pub unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: by the contract above.
    unsafe { Msr::new(msr).write(value) }
}

/// Masks every line of the legacy 8259 interrupt controllers, which a BIOS leaves on: their vectors are exceptions' until
/// someone programs them.
pub fn mask_legacy_controllers() {
    for port in [0x21, 0xA1] {
        let mut mask: Port<u8> = Port::new(port);
        // SAFETY: masks interrupts; where there is no controller, nothing happens.
        unsafe { mask.write(0xFF) };
    }
}

/// Tells the CPU that it is spinning.
#[inline(always)]
pub fn relax() {
    core::hint::spin_loop();
}

/// Halts this CPU for good: interrupts off, and back to sleep after each NMI.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: HLT with interrupts off only waits; an NMI handler returns here.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Ends the run: of the machine, if it has QEMU's `isa-debug-exit` device or a debug port that is in use, or of the partition.
/// Elsewhere the write has no reader, and the CPU halts.
pub fn end_run(byte: u8) -> ! {
    debug_port::end(byte);
    let mut port: Port<u8> = Port::new(EXIT_PORT);
    // SAFETY: the port ends the run or does nothing.
    unsafe { port.write(byte) };
    halt_forever()
}
