//! The stream that a program writes to the machine's debug port where the machine's RAM cannot be had: pieces of memory,
//! and at the end the byte that would go to [`EXIT_PORT`](crate::report::EXIT_PORT). Bochs prints what is written to the port
//! on its standard output, amid text of its own, so that each piece is framed and has checksums.
//!
//! A frame, little-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | [`MAGIC`] |
//! | 8 | 4 | kind: [`KIND_MEMORY`], [`KIND_EXIT`] |
//! | 12 | 4 | number of the frame, from 0 on |
//! | 16 | 8 | `MEMORY`: physical address; `EXIT`: the byte |
//! | 24 | 4 | bytes of payload: `MEMORY`: 1 to [`PAYLOAD_MAX`]; `EXIT`: 0 |
//! | 28 | 4 | CRC-32 (ISO HDLC) of bytes 8 to 27 |
//! | 32 | | payload |
//! | | 4 | CRC-32 of the payload |
//!
//! Memory that is not in the stream is zero. The exit frame is the last one: with the numbers of the frames it tells whether
//! any is missing.

use crc::{CRC_32_ISO_HDLC, Crc};

const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// The port. Where Bochs' `port_e9_hack` is on, it reads as its own number, [`PRESENT`].
pub const DEBUG_PORT: u16 = 0xE9;
/// What [`DEBUG_PORT`] reads as where it is one.
pub const PRESENT: u8 = 0xE9;
/// The port by which Bochs ends, once [`SHUTDOWN`] has been written to it byte by byte.
pub const SHUTDOWN_PORT: u16 = 0x8900;
/// What ends Bochs at [`SHUTDOWN_PORT`].
pub const SHUTDOWN: [u8; 8] = *b"Shutdown";
/// The word on a program's command line that has it write the stream.
pub const OPTION: &str = "debug-port";

/// First bytes of a frame.
pub const MAGIC: [u8; 8] = *b"\xE9PtFrame";
/// Kind of a frame with a piece of memory.
pub const KIND_MEMORY: u32 = 1;
/// Kind of the last frame, with the exit byte.
pub const KIND_EXIT: u32 = 2;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 32;
/// Bytes behind the payload.
pub const TRAILER_LEN: usize = 4;
/// Longest payload in bytes.
pub const PAYLOAD_MAX: usize = 4096;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A piece of memory, which is the payload.
    Memory {
        /// Its physical address.
        address: u64,
    },
    /// The end.
    Exit {
        /// The byte for the exit port.
        byte: u8,
    },
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame carries.
    pub content: Content,
    /// Its number.
    pub number: u32,
    /// Bytes of its payload, at most [`PAYLOAD_MAX`].
    pub len: usize,
}

/// The checksum of headers and payloads.
pub fn checksum(bytes: &[u8]) -> u32 {
    CRC32.checksum(bytes)
}

impl FrameHeader {
    /// The header as it is written.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let (kind, value) = match self.content {
            Content::Memory { address } => (KIND_MEMORY, address),
            Content::Exit { byte } => (KIND_EXIT, byte.into()),
        };
        let mut bytes = [0; HEADER_LEN];
        let mut fields = bytes.iter_mut();
        let mut put = |field: &[u8]| fields.by_ref().zip(field).for_each(|(to, from)| *to = *from);
        put(&MAGIC);
        put(&kind.to_le_bytes());
        put(&self.number.to_le_bytes());
        put(&value.to_le_bytes());
        put(&(self.len as u32).to_le_bytes());
        let sum = checksum(bytes.get(MAGIC.len()..HEADER_LEN - 4).unwrap_or_default());
        bytes.iter_mut().skip(HEADER_LEN - 4).zip(sum.to_le_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Reads the first [`HEADER_LEN`] of `bytes`; `None` if they are no header, or not one that can be.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let body = bytes.get(MAGIC.len()..HEADER_LEN - 4)?;
        if !bytes.starts_with(&MAGIC) || word(HEADER_LEN - 4)? != checksum(body) {
            return None;
        }
        let value = u64::from(word(16)?) | u64::from(word(20)?) << 32;
        let len = usize::try_from(word(24)?).ok()?;
        let content = match (word(8)?, len) {
            (KIND_MEMORY, 1..=PAYLOAD_MAX) => Content::Memory { address: value },
            (KIND_EXIT, 0) => Content::Exit { byte: u8::try_from(value).ok()? },
            _ => return None,
        };
        Some(Self { content, number: word(12)?, len })
    }
}

/// Writes the frames of a stream.
#[derive(Debug)]
pub struct FrameWriter<F> {
    put: F,
    next: u32,
}

impl<F: FnMut(&[u8])> FrameWriter<F> {
    /// A stream whose next frame has this number; `put` writes bytes to the port.
    pub const fn new(next: u32, put: F) -> Self {
        Self { put, next }
    }

    /// The number of the next frame.
    pub const fn next(&self) -> u32 {
        self.next
    }

    /// Writes the memory at `address`, in as many frames as it needs.
    pub fn memory(&mut self, address: u64, bytes: &[u8]) {
        let mut address = address;
        for piece in bytes.chunks(PAYLOAD_MAX) {
            self.frame(Content::Memory { address }, piece);
            address = address.wrapping_add(piece.len() as u64);
        }
    }

    /// Writes the last frame.
    pub fn exit(&mut self, byte: u8) {
        self.frame(Content::Exit { byte }, &[]);
    }

    fn frame(&mut self, content: Content, payload: &[u8]) {
        let header = FrameHeader { content, number: self.next, len: payload.len() };
        self.next = self.next.wrapping_add(1);
        (self.put)(&header.to_bytes());
        (self.put)(payload);
        (self.put)(&checksum(payload).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(write: impl FnOnce(&mut FrameWriter<&mut dyn FnMut(&[u8])>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |piece: &[u8]| bytes.extend_from_slice(piece);
        write(&mut FrameWriter::new(0, &mut put));
        bytes
    }

    #[test]
    fn the_form_is_the_one_described() {
        let bytes = stream(|writer| {
            writer.memory(0x1_0020_0000, b"abc");
            writer.exit(0x10);
        });
        let (first, last) = bytes.split_at(HEADER_LEN + 3 + TRAILER_LEN);
        assert_eq!(first[..28], *b"\xE9PtFrame\x01\0\0\0\0\0\0\0\0\0\x20\0\x01\0\0\0\x03\0\0\0");
        // CRC-32 of "abc" is 352441C2.
        assert_eq!(first[HEADER_LEN..], *b"abc\xC2\x41\x24\x35");
        let header = FrameHeader::parse(last).unwrap();
        assert_eq!(header, FrameHeader { content: Content::Exit { byte: 0x10 }, number: 1, len: 0 });
        assert_eq!(last[HEADER_LEN..], [0; 4]);
    }

    #[test]
    fn long_memory_takes_several_frames() {
        let memory = vec![7; 2 * PAYLOAD_MAX + 1];
        let bytes = stream(|writer| writer.memory(0x1000, &memory));
        let mut at = 0;
        for (number, (address, len)) in
            [(0x1000, PAYLOAD_MAX), (0x2000, PAYLOAD_MAX), (0x3000, 1)].into_iter().enumerate()
        {
            let header = FrameHeader::parse(&bytes[at..]).unwrap();
            assert_eq!(header, FrameHeader { content: Content::Memory { address }, number: number as u32, len });
            at += HEADER_LEN + len + TRAILER_LEN;
        }
        assert_eq!(at, bytes.len());
        assert!(stream(|writer| writer.memory(0, &[])).is_empty());
    }

    #[test]
    fn what_cannot_be_is_no_header() {
        let good = FrameHeader { content: Content::Memory { address: 1 }, number: 2, len: 3 };
        let parse = |header: FrameHeader| FrameHeader::parse(&header.to_bytes());
        assert_eq!(parse(good), Some(good));
        for len in [0, PAYLOAD_MAX + 1] {
            assert_eq!(parse(FrameHeader { len, ..good }), None);
        }
        assert_eq!(parse(FrameHeader { content: Content::Exit { byte: 0 }, ..good }), None);
        assert_eq!(FrameHeader::parse(&good.to_bytes()[..HEADER_LEN - 1]), None);
    }

    proptest! {
        #[test]
        fn a_damaged_header_is_none(number: u32, address: u64, len in 1..=PAYLOAD_MAX, bit in 0..HEADER_LEN * 8) {
            let mut bytes = FrameHeader { content: Content::Memory { address }, number, len }.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(FrameHeader::parse(&bytes), None);
        }

        #[test]
        fn any_bytes_can_be_asked(bytes: Vec<u8>) {
            let _ = FrameHeader::parse(&bytes);
        }
    }
}
