//! Breakpoints on I/O ports (APM vol. 2 section 13.1.1): an IN or OUT that the hypervisor executes for its guest traps
//! behind itself, as the CPU would have it.

use crate::ports::IoAccess;

const CR4_DEBUG_EXTENSIONS: u64 = 1 << 3;
/// Bits of DR7: any of the four breakpoints is on.
pub const ENABLES: u64 = 0xFF;
const ON_IO: u64 = 2;

/// Whether it is worth to look at the breakpoints' addresses.
#[inline]
pub const fn may_hit(dr7: u64) -> bool {
    dr7 & ENABLES != 0
}

/// Bits B0 to B3 of DR6 for the breakpoints that `access` hits; 0 for none. `addresses` are DR0 to DR3.
pub fn hits(access: IoAccess, dr7: u64, cr4: u64, addresses: [u64; 4]) -> u64 {
    if cr4 & CR4_DEBUG_EXTENSIONS == 0 {
        return 0;
    }
    let (first, last) = (u64::from(access.port), u64::from(access.port) + u64::from(access.size).saturating_sub(1));
    let is_hit = |number: usize, address: u64| {
        let is_on = dr7 >> (2 * number) & 3 != 0 && dr7 >> (16 + 4 * number) & 3 == ON_IO;
        // 00 is one byte, 01 two, 11 four; 10 is eight bytes, or undefined.
        let ahead = dr7 >> (18 + 4 * number) & 3;
        let ahead = if ahead == 2 { 7 } else { ahead };
        let from = address & !ahead;
        is_on && from <= last && first <= from | ahead
    };
    (0..)
        .zip(addresses)
        .filter(|&(number, address)| is_hit(number, address))
        .fold(0, |bits, (number, _)| bits | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn out(port: u16, size: u8) -> IoAccess {
        IoAccess { port, size, input: false, string: false, rep: false }
    }

    /// Breakpoint `number` on so many bytes of I/O.
    const fn dr7(number: u64, len: u64) -> u64 {
        1 << (2 * number) | (ON_IO | (len - 1) << 2) << (16 + 4 * number)
    }

    #[test]
    fn a_breakpoint_on_io_hits_its_ports_and_no_others() {
        let at = |access, dr7| hits(access, dr7, CR4_DEBUG_EXTENSIONS, [0x80, 0x80, 0x80, 0x80]);
        assert_eq!(at(out(0x80, 1), dr7(0, 1)), 1);
        assert_eq!(at(out(0x80, 1), dr7(3, 1)), 8);
        assert_eq!(at(out(0x81, 1), dr7(0, 1)), 0);
        assert_eq!(at(out(0x7F, 1), dr7(0, 1)), 0);
        assert_eq!(at(out(0x7F, 2), dr7(0, 1)), 1);
        assert_eq!(at(out(0x83, 1), dr7(1, 4)), 2);
        assert_eq!(at(out(0x84, 1), dr7(1, 4)), 0);
        assert_eq!(at(out(0x80, 4), dr7(0, 1) | dr7(2, 2)), 5);
        assert_eq!(at(out(0xFFFF, 4), dr7(0, 1)), 0);
        assert_eq!(hits(out(0xFFFF, 4), dr7(2, 1), CR4_DEBUG_EXTENSIONS, [0, 0, 0xFFFF, 0]), 4, "at the last port");
        assert_eq!(hits(out(0x82, 1), dr7(1, 2), CR4_DEBUG_EXTENSIONS, [0, 0x83, 0, 0]), 2, "aligned by its length");
        assert_eq!(hits(out(0x87, 1), dr7(1, 3), CR4_DEBUG_EXTENSIONS, [0, 0x80, 0, 0]), 2, "eight bytes");
        assert_eq!(at(IoAccess { input: true, ..out(0x80, 1) }, dr7(0, 1)), 1, "an IN, too");
        assert_eq!(at(out(0x80, 1), dr7(0, 1) & !1 | 2), 1, "by its global enable");
    }

    #[test]
    fn one_that_is_off_or_on_memory_or_without_extensions_hits_nothing() {
        let addresses = [0x80; 4];
        assert_eq!(hits(out(0x80, 1), dr7(0, 1), 0, addresses), 0);
        assert_eq!(hits(out(0x80, 1), dr7(0, 1) & !ENABLES, CR4_DEBUG_EXTENSIONS, addresses), 0);
        assert_eq!(hits(out(0x80, 1), 1 | 3 << 16, CR4_DEBUG_EXTENSIONS, addresses), 0);
        assert!(may_hit(dr7(2, 1)) && !may_hit(0x400));
    }
}
