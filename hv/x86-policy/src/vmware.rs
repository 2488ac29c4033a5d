//! The VMware identity, as far as Linux needs it: it tells both frequencies, and that x2APIC works without
//! interrupt remapping (Linux, arch/x86/kernel/cpu/vmware.c).

use partita_abi::hypercall::VMWARE_MAGIC;

use crate::cpuid::{CpuidContext, HypercallInstruction};

/// CPUID leaf with EAX = [`LEAF_TIMING`] and the signature.
pub(crate) const LEAF_SIGNATURE: u32 = 0x4000_0000;
/// CPUID leaf with EAX = TSC kHz, EBX = APIC timer kHz, ECX = how to call.
pub(crate) const LEAF_TIMING: u32 = 0x4000_0010;
/// "VMwareVMware" in EBX, ECX, EDX.
pub(crate) const SIGNATURE: [u32; 3] =
    [u32::from_le_bytes(*b"VMwa"), u32::from_le_bytes(*b"reVM"), u32::from_le_bytes(*b"ware")];

/// The backdoor port, for guests that do not call by an instruction.
pub const BACKDOOR_PORT: u16 = 0x5658;

/// Which instruction calls, in ECX of the timing leaf.
pub(crate) const fn hypercall_flag(instruction: HypercallInstruction) -> u32 {
    match instruction {
        HypercallInstruction::Vmmcall => 1,
        HypercallInstruction::Vmcall => 2,
    }
}

const GET_HZ: u16 = 45;
const GET_VCPU_INFO: u16 = 68;
/// Answer to [`GET_VCPU_INFO`]: x2APIC works without interrupt remapping.
const LEGACY_X2APIC: u32 = 1 << 3;

/// Whether a hypercall with this EAX, or an IN from [`BACKDOOR_PORT`] with it, is VMware's.
#[inline]
pub const fn is_vmware_call(eax: u32) -> bool {
    eax == VMWARE_MAGIC
}

/// Answers a VMware call: the new EAX, EBX and ECX. The command is in bits 15 to 0 of ECX. An unknown one gets
/// all ones.
pub const fn vmware_call(ecx: u32, context: &CpuidContext) -> [u32; 3] {
    match ecx as u16 {
        GET_HZ => {
            let tsc = context.tsc_khz as u64 * 1000;
            let lapic = context.lapic_khz as u64 * 1000;
            let lapic = if lapic > u32::MAX as u64 { u32::MAX } else { lapic as u32 };
            [tsc as u32, (tsc >> 32) as u32, lapic]
        }
        GET_VCPU_INFO => [LEGACY_X2APIC, 0, 0],
        _ => [u32::MAX; 3],
    }
}
