//! What this CPU can do, as CPUID and the firmware's settings say.

use partita_x86_policy::capabilities::{CpuFacts, VM_CR_MSR, VM_CR_SVMDIS};
use raw_cpuid::native_cpuid::cpuid_count;

use super::read_msr;

/// CPUID of this pCPU: EAX, EBX, ECX, EDX.
#[inline]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// The facts of this pCPU.
pub fn read() -> CpuFacts {
    let mut facts = CpuFacts::collect(cpuid);
    if facts.svm {
        // SAFETY: a CPU with SVM has VM_CR.
        facts.svm_disabled = unsafe { read_msr(VM_CR_MSR) } & VM_CR_SVMDIS != 0;
    }
    facts
}
