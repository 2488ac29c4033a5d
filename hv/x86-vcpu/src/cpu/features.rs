//! What this CPU can do, as CPUID and the firmware's settings say.

use partita_x86_policy::capabilities::{CpuFacts, Missing, Virtualization};
use raw_cpuid::native_cpuid::cpuid_count;

use super::idt::read_msr_checked;

/// CPUID of this pCPU: EAX, EBX, ECX, EDX.
#[inline]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// Family, model and stepping of this pCPU: EAX of leaf 1.
pub fn signature() -> u32 {
    cpuid(1, 0)[0]
}

/// What this pCPU can virtualise by.
///
/// # Errors
/// What it lacks.
pub fn virtualization() -> Result<Virtualization, Missing> {
    // Bochs 2.7 has SVM without VM_CR: what is not there is not set.
    CpuFacts::collect(cpuid).virtualization(|msr| read_msr_checked(msr).unwrap_or(0))
}
