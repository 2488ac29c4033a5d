//! A real-time clock that stands still: enough for a guest to read a date without waiting.
//!
//! Without it an all-ones register A says "update in progress" for ever, which costs a booting Linux a second and
//! 40,000 exits.

/// The CMOS memory and its clock, behind ports 0x70 and 0x71. One per partition or per vCPU: it has no time of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cmos {
    index: u8,
}

impl Cmos {
    /// OUT to port 0x70. Bit 7 masks NMIs on a PC, and does nothing here.
    #[inline]
    pub const fn select(&mut self, value: u8) {
        self.index = value & 0x7F;
    }

    /// IN from port 0x71: 2026-01-01, 00:00:00, a Thursday, in BCD.
    #[rustfmt::skip]
    pub const fn read(self) -> u8 {
        match self.index {
            0x00 | 0x02 | 0x04 => 0x00, // seconds, minutes, hours
            0x06 => 0x05,               // day of the week, Sunday is 1
            0x07 => 0x01,               // day
            0x08 => 0x01,               // month
            0x09 => 0x26,               // year
            0x32 => 0x20,               // century
            0x0A => 0x26,               // 32,768 Hz, no update in progress
            0x0B => 0x02,               // 24 hours, BCD, no interrupts
            0x0D => 0x80,               // the battery is good
            _ => 0x00,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(index: u8) -> u8 {
        let mut cmos = Cmos::default();
        cmos.select(index);
        cmos.read()
    }

    #[test]
    fn the_date_is_readable_at_once() {
        assert_eq!(read(0x0A) & 0x80, 0, "no update in progress");
        assert_eq!(read(0x0B) & 0x06, 0x02, "24 hours, BCD");
        assert_eq!([read(0x32), read(9), read(8), read(7), read(6)], [0x20, 0x26, 1, 1, 5]);
        assert_eq!(read(0x0D), 0x80);
    }

    #[test]
    fn the_nmi_mask_bit_selects_nothing() {
        for index in 0..0x80 {
            assert_eq!(read(index), read(index | 0x80));
        }
    }
}
