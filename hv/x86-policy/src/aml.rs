//! A writer for the little AML that a guest's DSDT needs: names, constants, packages, devices and the resources of a
//! device (ACPI 6.5, chapter 20; resources: section 6.4).

// Opcodes (section 20.2).
const ZERO: u8 = 0x00;
const ONE: u8 = 0x01;
const NAME: u8 = 0x08;
const BYTE: u8 = 0x0A;
const DWORD: u8 = 0x0C;
const STRING: u8 = 0x0D;
const SCOPE: u8 = 0x10;
const BUFFER: u8 = 0x11;
const PACKAGE: u8 = 0x12;
const DEVICE: [u8; 2] = [0x5B, 0x82];

/// Small resource data type "I/O port", 7 bytes (section 6.4.2.5).
const IO_PORTS: u8 = 0x47;
const DECODES_16_BITS: u8 = 1;
/// Small resource data type "end tag", and a checksum of 0, which means none (section 6.4.2.9).
const END_OF_RESOURCES: [u8; 2] = [0x79, 0x00];

/// Four characters of a name, padded with underscores.
pub(crate) type NameSeg = [u8; 4];

/// AML that is being written to the start of an area. What does not fit is left out, and seen in [`Self::finish`].
#[derive(Debug)]
pub(crate) struct Aml<'a> {
    area: &'a mut [u8],
    len: usize,
}

impl<'a> Aml<'a> {
    pub(crate) const fn new(area: &'a mut [u8]) -> Self {
        Self { area, len: 0 }
    }

    /// Bytes written; `None` if they did not fit.
    pub(crate) const fn finish(self) -> Option<usize> {
        if self.len <= self.area.len() { Some(self.len) } else { None }
    }

    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.area.get_mut(self.len) {
                *place = *byte;
            }
            self.len = self.len.saturating_add(1);
        }
    }

    /// An opcode whose operands have a length before them, which counts itself (section 20.2.4): always in two bytes, for
    /// up to 4,095.
    fn sized(&mut self, opcode: &[u8], operands: impl FnOnce(&mut Self)) {
        const TWO_BYTES: u8 = 1 << 6;
        self.put(opcode);
        let at = self.len;
        self.put(&[0, 0]);
        operands(self);
        let len = self.len.wrapping_sub(at);
        for (place, byte) in self.area.iter_mut().skip(at).zip([TWO_BYTES | (len & 0xF) as u8, (len >> 4) as u8]) {
            *place = byte;
        }
    }

    /// `Scope (\NAME) { ... }`.
    pub(crate) fn scope(&mut self, name: NameSeg, terms: impl FnOnce(&mut Self)) {
        self.sized(&[SCOPE], |aml| {
            aml.put(b"\\");
            aml.put(&name);
            terms(aml);
        });
    }

    /// `Device (NAME) { ... }`.
    pub(crate) fn device(&mut self, name: NameSeg, terms: impl FnOnce(&mut Self)) {
        self.sized(&DEVICE, |aml| {
            aml.put(&name);
            terms(aml);
        });
    }

    /// `Name (NAME, ` and the object that `object` writes.
    pub(crate) fn name(&mut self, name: NameSeg, object: impl FnOnce(&mut Self)) {
        self.put(&[NAME]);
        self.put(&name);
        object(self);
    }

    /// An integer.
    pub(crate) fn byte(&mut self, value: u8) {
        match value {
            0 => self.put(&[ZERO]),
            1 => self.put(&[ONE]),
            _ => self.put(&[BYTE, value]),
        }
    }

    /// A string of ASCII characters.
    pub(crate) fn string(&mut self, text: &[u8]) {
        self.put(&[STRING]);
        self.put(text);
        self.put(&[0]);
    }

    /// `EisaId ("PNPxxxx")`: a Plug and Play ID by its last four hexadecimal digits (section 19.3.4).
    pub(crate) fn pnp_id(&mut self, product: u16) {
        // The manufacturer in three times five bits, 'A' being 1, the most significant byte first.
        const PNP: [u8; 2] = [0x41, 0xD0];
        self.put(&[DWORD]);
        self.put(&PNP);
        self.put(&product.to_be_bytes());
    }

    /// `Package (n) { ... }` of small integers.
    pub(crate) fn package(&mut self, values: [u8; 4]) {
        self.sized(&[PACKAGE], |aml| {
            aml.put(&[values.len() as u8]);
            for value in values {
                aml.byte(value);
            }
        });
    }

    /// `ResourceTemplate () { IO (Decode16, first, first, 1, count) }`.
    pub(crate) fn io_ports(&mut self, first: u16, count: u8) {
        let [low, high] = first.to_le_bytes();
        let ports = [IO_PORTS, DECODES_16_BITS, low, high, low, high, 1, count];
        self.sized(&[BUFFER], |aml| {
            aml.byte((ports.len() + END_OF_RESOURCES.len()) as u8);
            aml.put(&ports);
            aml.put(&END_OF_RESOURCES);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Aml<'_>)) -> Vec<u8> {
        let mut area = [0xAA; 128];
        let mut aml = Aml::new(&mut area);
        write(&mut aml);
        let len = aml.finish().unwrap();
        area[..len].to_vec()
    }

    #[test]
    fn terms_are_as_the_specification_says() {
        assert_eq!(written(|aml| aml.name(*b"_UID", |aml| aml.byte(2))), *b"\x08_UID\x0A\x02");
        assert_eq!(written(|aml| aml.name(*b"_HID", |aml| aml.pnp_id(0x0501))), *b"\x08_HID\x0C\x41\xD0\x05\x01");
        assert_eq!(written(|aml| aml.string(b"COM2")), *b"\x0DCOM2\0");
        // The length counts its own two bytes and what follows.
        assert_eq!(written(|aml| aml.package([5, 1, 0, 0])), *b"\x12\x48\x00\x04\x0A\x05\x01\x00\x00");
        assert_eq!(
            written(|aml| aml.io_ports(0x2F8, 8)),
            *b"\x11\x4E\x00\x0A\x0A\x47\x01\xF8\x02\xF8\x02\x01\x08\x79\x00"
        );
        assert_eq!(
            written(|aml| aml.scope(*b"_SB_", |aml| aml.device(*b"COM2", |aml| aml.byte(1)))),
            *b"\x10\x40\x01\\_SB_\x5B\x82\x47\x00COM2\x01"
        );
    }

    #[test]
    fn what_does_not_fit_is_seen() {
        let mut area = [0xAA; 5];
        let mut aml = Aml::new(&mut area);
        aml.package([5, 5, 0, 0]);
        assert_eq!(aml.finish(), None);
    }
}
