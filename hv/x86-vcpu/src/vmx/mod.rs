//! Intel's virtualisation extension (SDM vol. 3, chapters 24 to 33).
//!
//! Beside SVM's ways: an entry loads all of the guest's state and an exit all of the hypervisor's, but for general-purpose
//! registers, DR0 to DR3, DR6, and what SYSCALL uses. NMIs cannot be held back in the hypervisor: one that comes there arms the
//! guest's preemption timer at 0, so that the next entry ends at once (`crate::cpu::idt`). Nothing is lost, and the exit path
//! has nothing to check for it.

pub mod entry;
mod event;
mod exit;
mod explain;
mod instruction;
mod start;
mod vcpu;
mod vmcs;

use partita_x86_policy::capabilities::Vmx;
use partita_x86_policy::vmx::capability::{VmxCapabilities, msr};
use partita_x86_policy::vmx::control::PinBased;
use spin::Once;
use x86_64::registers::control::{Cr0, Cr4};

use crate::cpu::{features, idt, read_msr, write_msr};

pub use vcpu::VmxVcpu;

/// What all vCPUs run with: the boot pCPU's, and the others have to do with it.
static BOOT: Once<Vmx> = Once::new();

const CR4_OSXSAVE: u64 = 1 << 18;
const CPUID_1_ECX_XSAVE: u32 = 1 << 26;

/// Keeps what the boot pCPU has found out: once, before another pCPU is up.
pub fn set_up(boot: &Vmx) {
    let armed = boot.controls.pin | PinBased::ACTIVATE_PREEMPTION_TIMER;
    idt::set_armed_pin_controls(armed.bits());
    BOOT.call_once(|| *boot);
}

/// Switches VMX on, on this pCPU, with a page for the CPU's own use at this physical address. `false` if the CPU refuses.
///
/// # Safety
/// The CPU must have what the boot pCPU has, and the page belong to this pCPU alone.
pub unsafe fn enable(page: u64) -> bool {
    // SAFETY: the CPU has VMX, and with it these registers.
    let capabilities = VmxCapabilities::collect(|msr| unsafe { read_msr(msr) });
    let Ok(feature_control) = capabilities.feature_control.to_write() else { return false };
    // SAFETY: the bits that VMX demands and those that the CPU has; nothing of the hypervisor's depends on them. The page is
    // this pCPU's, by the contract above.
    unsafe {
        if let Some(value) = feature_control {
            write_msr(msr::FEATURE_CONTROL, value);
        }
        Cr0::write_raw(capabilities.cr0.apply(Cr0::read_raw()));
        // Guests' XSETBV is executed for them.
        let extended = if features::cpuid(1, 0)[2] & CPUID_1_ECX_XSAVE != 0 { CR4_OSXSAVE } else { 0 };
        Cr4::write_raw(capabilities.cr4.apply(Cr4::read_raw()) | extended);
        (page as *mut u32).write_volatile(capabilities.basic.revision());
        instruction::vmxon(page)
    }
}
