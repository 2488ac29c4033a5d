//! Where the payload runs: on the bare machine or in a partition.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, CpuidResult};
use core::sync::atomic::{AtomicBool, Ordering};

use partita_abi::cpuid::{LEAF_PARTITION, LEAF_SIGNATURE, LEAF_TIMING, signature_registers};

use crate::clock::Clocks;

/// Where the payload runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It owns the machine.
    Bare,
    /// It is a partition of Partita.
    Partition(Partition),
}

/// What Partita tells a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub number: u32,
    /// How many vCPUs it has.
    pub vcpus: u32,
    /// I/O base of its own serial port, if it has one.
    pub console: Option<u16>,
    /// The frequencies.
    pub clocks: Clocks,
}

/// Leaf 1, ECX bit 31: there is a hypervisor.
const FEATURE_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, ECX bit 21.
const FEATURE_X2APIC: u32 = 1 << 21;

/// Whether the hypercall instruction is AMD's.
static IS_AMD: AtomicBool = AtomicBool::new(false);

impl Place {
    /// Looks. To be called once, on the boot CPU.
    pub(crate) fn detect() -> Self {
        IS_AMD.store(vendor_is_amd(), Ordering::Relaxed);
        if __cpuid(1).ecx & FEATURE_HYPERVISOR == 0 {
            return Self::Bare;
        }
        let CpuidResult { eax, ebx, ecx, edx } = __cpuid(LEAF_SIGNATURE);
        if [ebx, ecx, edx] != signature_registers() || eax < LEAF_PARTITION {
            return Self::Bare;
        }
        let timing = __cpuid(LEAF_TIMING);
        let clocks = Clocks { tsc_hz: u64::from(timing.ebx) * 1000, lapic_hz: u64::from(timing.ecx) * 1000 };
        let own = __cpuid(LEAF_PARTITION);
        let console = u16::try_from(own.edx).ok().filter(|base| *base != 0);
        Self::Partition(Partition { number: own.eax, vcpus: own.ecx, console, clocks })
    }

    /// Whether it is a partition.
    pub const fn is_partition(&self) -> bool {
        matches!(self, Self::Partition(_))
    }
}

/// Whether the CPU has x2APIC mode.
pub(crate) fn has_x2apic() -> bool {
    __cpuid(1).ecx & FEATURE_X2APIC != 0
}

fn vendor_is_amd() -> bool {
    let CpuidResult { ebx, ecx, edx, .. } = __cpuid(0);
    [ebx, edx, ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

/// Whether hypercalls are made by VMMCALL, else by VMCALL.
pub fn uses_vmmcall() -> bool {
    IS_AMD.load(Ordering::Relaxed)
}

/// Calls the hypervisor, with the instruction of this CPU's vendor. Only for partitions: #UD elsewhere.
///
/// # Safety
/// The call must not break memory safety: it may end the partition, or name memory that the hypervisor is to read.
pub unsafe fn hypercall(number: u32, first: u64, second: u64) -> u64 {
    let mut result = u64::from(number);
    // RBX is the compiler's own: it is exchanged for the first argument meanwhile.
    // SAFETY: by the contract above; all registers but RAX are preserved (`partita_abi::hypercall`).
    unsafe {
        if uses_vmmcall() {
            asm!("xchg rbx, {0}", "vmmcall", "xchg rbx, {0}", inout(reg) first => _, in("rcx") second,
                inout("rax") result);
        } else {
            asm!("xchg rbx, {0}", "vmcall", "xchg rbx, {0}", inout(reg) first => _, in("rcx") second,
                inout("rax") result);
        }
    }
    result
}

/// Writes to the POST port, 0x80: nobody minds on any machine, and no partition owns it.
pub fn write_post_port() {
    // SAFETY: the port has no effect, or shows the byte on a diagnostic display.
    unsafe { asm!("out 0x80, al", in("al") 0u8, options(nomem, nostack, preserves_flags)) };
}
