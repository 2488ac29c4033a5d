//! Which model-specific registers may not be written from the console: those that the hypervisor itself lives by.

/// Whether whoever is at the console may write the register. What is allowed can still harm the guest that runs there.
///
/// # Errors
/// Why not.
pub const fn may_write(msr: u32) -> Result<(), &'static str> {
    match msr {
        0x10 | 0x3B => Err("the time-stamp counters are the trace's clock"),
        0x1B => Err("the local APIC has to stay in x2APIC mode"),
        0x1D9 => Err("the hypervisor would be traced with its guests"),
        0x200..=0x20F | 0x250..=0x26F | 0x277 | 0x2FF => Err("the hypervisor's memory has its types by it"),
        0x830 | 0x83F => Err("an interrupt of this kind could hit any pCPU"),
        0x800..=0x8FF => Err("the local APIC is its partition's, or the hypervisor's"),
        0xC000_0080 => Err("EFER holds the hypervisor's own mode"),
        0xC000_0104 => Err("guests' time-stamp counters are the trace's clock, too"),
        0xC001_0015 => Err("it sets how the CPU works"),
        0xC001_0020 => Err("the CPU's microcode is the firmware's"),
        0xC001_0010 | 0xC001_0016..=0xC001_001D | 0xC001_0058 => Err("it says what is RAM"),
        0xC001_0111..=0xC001_0113 => Err("the firmware's management mode lives by it"),
        0xC001_0114..=0xC001_0118 => Err("virtualisation lives by it"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::may_write;

    #[test]
    fn what_the_hypervisor_lives_by_is_refused() {
        const REFUSED: [u32; 14] = [
            0x10,
            0x1B,
            0x200,
            0x277,
            0x80B,
            0x830,
            0x8FF,
            0xC000_0080,
            0xC000_0104,
            0xC001_0015,
            0xC001_0020,
            0xC001_001A,
            0xC001_0112,
            0xC001_0117,
        ];
        for msr in REFUSED {
            assert!(may_write(msr).is_err(), "{msr:#x}");
        }
        for msr in [0x48, 0x174, 0x900, 0xC000_0082, 0xC000_0103, 0xC001_1029] {
            assert_eq!(may_write(msr), Ok(()), "{msr:#x}");
        }
    }
}
