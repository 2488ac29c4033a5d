//! AMD's virtualisation extension (APM vol. 2, chapter 15).
//!
//! What the exit path does not do, because it need not: no VMSAVE and VMLOAD, as the host uses none of that state
//! (no FS, GS, TR, no SYSCALL); no FPU state, as the hypervisor uses none; no STGI, but to take an NMI.

pub mod entry;
mod explain;
mod start;
mod vcpu;
pub mod vmcb;

use core::arch::asm;

use crate::cpu::{read_msr, write_msr};

pub use vcpu::SvmVcpu;

const EFER: u32 = 0xC000_0080;
const EFER_SVME: u64 = 1 << 12;
const VM_HSAVE_PA: u32 = 0xC001_0117;

/// Switches SVM on, on this pCPU, with a page for the host's state at physical address `host_save`.
///
/// # Safety
/// The CPU must have SVM, and the page belong to this pCPU alone.
pub unsafe fn enable(host_save: u64) {
    // SAFETY: by the contract above.
    unsafe {
        write_msr(EFER, read_msr(EFER) | EFER_SVME);
        write_msr(VM_HSAVE_PA, host_save);
    }
}

/// Holds all interrupts back, NMIs included (APM vol. 2 section 15.17).
#[inline(always)]
pub fn clgi() {
    // SAFETY: SVM is on; the instruction only changes the global interrupt flag.
    unsafe { asm!("clgi", options(nostack, preserves_flags)) };
}

/// Lets NMIs in again; interrupts stay masked by RFLAGS.IF.
#[inline(always)]
pub fn stgi() {
    // SAFETY: as for `clgi`; the NMI handler harms nothing.
    unsafe { asm!("stgi", options(nostack, preserves_flags)) };
}
