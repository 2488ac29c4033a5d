//! Partita's CPUID leaves.
//!
//! They start at `0x4000_0100`, the second slot of the hypervisor range, so that the first slot
//! (`0x4000_0000`) stays free for an identity that a guest already knows.

/// First Partita leaf: EAX = highest Partita leaf, EBX:ECX:EDX = [`SIGNATURE`].
pub const LEAF_SIGNATURE: u32 = 0x4000_0100;

/// EAX = [`INTERFACE_VERSION`], EBX = TSC frequency in kHz, ECX = local APIC timer frequency in kHz
/// (at divide-by-1), EDX = 0.
pub const LEAF_TIMING: u32 = 0x4000_0101;

/// EAX = partition number, EBX = number of this vCPU in its partition, ECX = the partition's vCPUs, EDX = I/O base of the
/// serial port that is its console, 0 for none.
pub const LEAF_PARTITION: u32 = 0x4000_0102;

/// EAX = how often this partition was started, this time included: from 1; EBX = ECX = EDX = 0.
pub const LEAF_LIFE: u32 = 0x4000_0103;

/// Highest leaf of the Partita range.
pub const LEAF_MAX: u32 = LEAF_LIFE;

/// Twelve bytes in EBX, ECX, EDX of [`LEAF_SIGNATURE`], little-endian.
pub const SIGNATURE: [u8; 12] = *b"PartitaRTHyp";

/// Version of the hypercall and CPUID interface. It changes when an old guest could misunderstand a new hypervisor.
pub const INTERFACE_VERSION: u32 = 1;

/// The signature as the three registers EBX, ECX, EDX.
pub const fn signature_registers() -> [u32; 3] {
    let s = SIGNATURE;
    [
        u32::from_le_bytes([s[0], s[1], s[2], s[3]]),
        u32::from_le_bytes([s[4], s[5], s[6], s[7]]),
        u32::from_le_bytes([s[8], s[9], s[10], s[11]]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_registers_spell_the_signature() {
        let bytes: Vec<u8> = signature_registers().iter().flat_map(|r| r.to_le_bytes()).collect();
        assert_eq!(bytes, SIGNATURE);
    }
}
