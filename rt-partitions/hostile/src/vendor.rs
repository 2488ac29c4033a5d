//! Whose CPU this is: what the hypervisor intercepts, and what the CPU refuses by itself, is not the same on both.

use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicBool, Ordering};

use partita_x86_policy::capabilities::{Backend, CpuFacts, Vendor};

static IS_AMD: AtomicBool = AtomicBool::new(false);

/// Looks. To be called once, on the boot vCPU: each look is an exit.
pub(crate) fn detect() {
    let facts = CpuFacts::collect(|leaf, subleaf| {
        let found = __cpuid_count(leaf, subleaf);
        [found.eax, found.ebx, found.ecx, found.edx]
    });
    IS_AMD.store(facts.vendor == Vendor::Amd, Ordering::Relaxed);
}

/// The extension that the hypervisor runs this guest by.
pub(crate) fn backend() -> Backend {
    if IS_AMD.load(Ordering::Relaxed) { Backend::Svm } else { Backend::Vmx }
}

/// Of what differs by the extension, what holds here: with SVM, or with VMX.
pub(crate) fn here<T>([svm, vmx]: [T; 2]) -> T {
    match backend() {
        Backend::Svm => svm,
        Backend::Vmx => vmx,
    }
}
