//! The option `serial=PORT[,BAUD]`: the serial port that is the hypervisor's console.

use core::fmt::{Display, Formatter, Result as FmtResult};

/// Baud of a 16550 with a divisor of one.
const BAUD_MAX: u32 = 115_200;
/// I/O ports of a 16550, and the alignment of the first one.
const PORTS: u16 = 8;
/// Below this are the devices of a PC's board.
const FIRST_MIN: u16 = 0x100;

/// The ports that have names: the first I/O port of each, and its interrupt on the ISA bus.
const NAMED: [(&str, u16, u8); 4] = [("com1", 0x3F8, 4), ("com2", 0x2F8, 3), ("com3", 0x3E8, 4), ("com4", 0x2E8, 3)];

/// A serial port and its speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial {
    /// Its first I/O port.
    pub base: u16,
    /// What the 16550 divides 115,200 baud by.
    pub divisor: u16,
}

/// Why the option is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialError<'a> {
    /// There is no such port.
    Port(&'a str),
    /// The speed cannot be had.
    Baud(&'a str),
}

impl Serial {
    /// COM1 at 115,200 baud.
    pub const DEFAULT: Self = Self { base: 0x3F8, divisor: 1 };

    /// Reads the option's value: `com1` to `com4` or an I/O port such as `0x3f8`, and a speed if it is not 115,200 baud.
    ///
    /// # Errors
    /// The part that is none.
    pub fn parse(text: &str) -> Result<Self, SerialError<'_>> {
        let (port, baud) = text.split_once(',').map_or((text, None), |(port, baud)| (port, Some(baud)));
        let by_name = NAMED.iter().find(|(name, ..)| *name == port).map(|&(_, base, _)| base);
        let base = by_name.or_else(|| by_number(port)).ok_or(SerialError::Port(port))?;
        let divisor = baud.map_or(Ok(1), |baud| divisor(baud).ok_or(SerialError::Baud(baud)))?;
        Ok(Self { base, divisor })
    }

    /// Its interrupt on the ISA bus, if it is a port with a name.
    pub fn irq(&self) -> Option<u8> {
        NAMED.iter().find(|(_, base, _)| *base == self.base).map(|&(.., irq)| irq)
    }

    /// Whether one of the I/O ports from `first` to `last` is its.
    pub const fn overlaps(&self, first: u16, last: u16) -> bool {
        first <= self.base.saturating_add(PORTS - 1) && self.base <= last
    }
}

fn by_number(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("0x")?;
    // A sign is no digit.
    let number =
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())??;
    (number >= FIRST_MIN && number.is_multiple_of(PORTS)).then_some(number)
}

fn divisor(text: &str) -> Option<u16> {
    let baud: u32 = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())??;
    let divisor = BAUD_MAX.checked_div(baud)?;
    u16::try_from(divisor).ok().filter(|_| divisor * baud == BAUD_MAX)
}

impl Display for Serial {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match NAMED.iter().find(|(_, base, _)| *base == self.base) {
            Some((name, ..)) => name.chars().try_for_each(|c| write!(f, "{}", c.to_ascii_uppercase())),
            None => write!(f, "the serial port at {:#x}", self.base),
        }
    }
}

impl Display for SerialError<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        match self {
            Self::Port(text) => write!(
                f,
                "the option serial: {text:?} is no serial port; write com1, com2, com3, com4, or an I/O port from 0x100 on \
                 that is a multiple of 8, such as 0x3f8"
            ),
            Self::Baud(text) => {
                write!(
                    f,
                    "the option serial: {text:?} baud cannot be had; write 115200 or a divisor of it, such as 9600"
                )
            }
        }
    }
}

impl core::error::Error for SerialError<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports_are_named_or_numbered() {
        let parse = |text| Serial::parse(text).map(|serial| (serial.base, serial.divisor, serial.irq()));
        assert_eq!(parse("com1"), Ok((0x3F8, 1, Some(4))));
        assert_eq!(parse("com2,9600"), Ok((0x2F8, 12, Some(3))));
        assert_eq!(parse("0x3f8,115200"), Ok((0x3F8, 1, Some(4))));
        assert_eq!(parse("0xE010,50"), Ok((0xE010, 2304, None)));
        assert_eq!(Serial::parse("com1"), Ok(Serial::DEFAULT));
        assert_eq!(Serial::DEFAULT.to_string(), "COM1");
        assert_eq!(Serial::parse("0xe010").unwrap().to_string(), "the serial port at 0xe010");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for port in ["", "COM1", "com5", "3f8", "0x", "0x+f8", "0x3f9", "0xf8", "0x10000", "ttyS0"] {
            assert_eq!(Serial::parse(port), Err(SerialError::Port(port)));
        }
        for baud in ["", "0", "+9600", "115201", "230400", "7000", "1", "fast", "9600,8n1"] {
            let error = Serial::parse(&["com1,", baud].concat()).map_err(|error| error.to_string()).unwrap_err();
            assert!(error.contains(&format!("{baud:?} baud")) && error.contains("such as 9600"), "{error}");
        }
    }

    #[test]
    fn its_ports_are_eight() {
        let serial = Serial { base: 0x3F8, divisor: 1 };
        assert!(serial.overlaps(0x3FF, 0x400) && serial.overlaps(0, 0x3F8) && serial.overlaps(0, u16::MAX));
        assert!(!serial.overlaps(0x400, 0x500) && !serial.overlaps(0, 0x3F7));
        assert!(Serial { base: 0xFFF8, divisor: 1 }.overlaps(0xFFFF, 0xFFFF));
    }

    proptest! {
        #[test]
        fn any_text_can_be_asked(text in "\\PC{0,20}") {
            if let Ok(serial) = Serial::parse(&text) {
                prop_assert!(serial.base >= 0x100 && serial.base % 8 == 0 && serial.divisor > 0);
            }
        }
    }
}
