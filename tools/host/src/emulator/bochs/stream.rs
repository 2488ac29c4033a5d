//! What a machine wrote to its debug port, out of the standard output of Bochs, which has other text, too. The form is
//! described in [`partita_abi::debug_port`].
//!
//! A frame counts only whole. Behind a damaged one, reading goes on at the next magic number; whatever is missing is told by the
//! numbers of the frames.

use partita_abi::debug_port::{Content, FrameHeader, HEADER_LEN, MAGIC, TRAILER_LEN, checksum};
use std::fmt;

/// A piece of the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Physical address.
    pub address: u64,
    /// Content.
    pub bytes: &'a [u8],
}

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDamage {
    /// A magic number without a good header behind it.
    Header {
        /// Where, in bytes from the start of the output.
        offset: usize,
    },
    /// A frame whose payload is damaged, or not all there.
    Payload {
        /// Where the frame begins.
        offset: usize,
        /// Its number.
        number: u32,
        /// The memory that was in it, if it was memory.
        address: Option<u64>,
        /// Bytes of it.
        len: usize,
    },
    /// Frames that are not there, or not whole.
    Missing {
        /// The number of the first.
        first: u32,
        /// How many.
        count: u32,
    },
    /// A frame whose number had been there already, or is beyond the last one's: it is left out.
    OutOfTurn {
        /// Where it begins.
        offset: usize,
        /// Its number.
        number: u32,
    },
    /// The last frame is not there.
    NoEnd {
        /// The number of the first that is not there.
        next: u32,
    },
}

impl fmt::Display for StreamDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Header { offset } => write!(f, "the header of a frame at offset {offset:#x} is damaged"),
            Self::Payload { offset, number, address, len } => {
                write!(f, "frame {number} at offset {offset:#x} is damaged")?;
                address.map_or(Ok(()), |address| write!(f, ": {len} bytes of memory at {address:#x}"))
            }
            Self::Missing { first, count: 1 } => write!(f, "frame {first} is missing"),
            Self::Missing { first, count } => write!(f, "{count} frames are missing, from frame {first} on"),
            Self::OutOfTurn { offset, number } => {
                write!(f, "frame {number} at offset {offset:#x} is out of turn and left out")
            }
            Self::NoEnd { next } => write!(f, "it ends before frame {next}, without the last frame"),
        }
    }
}

/// A stream, as far as it is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream<'a> {
    /// The memory, in the order in which it was written.
    pub memory: Vec<Piece<'a>>,
    /// The byte for the exit port.
    pub exit: Option<u8>,
    /// What is wrong, in the order in which it was seen. If it is empty, the stream is whole, or there is none.
    pub damage: Vec<StreamDamage>,
}

impl<'a> Stream<'a> {
    /// Finds the stream in `output`.
    pub fn read(output: &'a [u8]) -> Self {
        let mut stream = Self::default();
        let mut next = 0;
        let mut at = 0;
        while let Some(offset) = find_magic(output, at) {
            at = match frame(output, offset) {
                Ok((header, payload)) => {
                    stream.take(offset, &header, payload, &mut next);
                    offset + HEADER_LEN + payload.len() + TRAILER_LEN
                }
                Err(damage) => {
                    stream.damage.push(damage);
                    offset + MAGIC.len()
                }
            };
        }
        let is_begun = next > 0 || !stream.damage.is_empty();
        if is_begun && stream.exit.is_none() {
            stream.damage.push(StreamDamage::NoEnd { next });
        }
        stream
    }

    fn take(&mut self, offset: usize, header: &FrameHeader, payload: &'a [u8], next: &mut u32) {
        let number = header.number;
        if number < *next || self.exit.is_some() {
            self.damage.push(StreamDamage::OutOfTurn { offset, number });
            return;
        }
        if number > *next {
            self.damage.push(StreamDamage::Missing { first: *next, count: number - *next });
        }
        *next = number.saturating_add(1);
        match header.content {
            Content::Memory { address } => self.memory.push(Piece { address, bytes: payload }),
            Content::Exit { byte } => self.exit = Some(byte),
        }
    }
}

fn find_magic(output: &[u8], from: usize) -> Option<usize> {
    let rest = output.get(from..)?;
    rest.windows(MAGIC.len()).position(|bytes| bytes == MAGIC).map(|at| from + at)
}

/// The whole frame at an offset.
fn frame(output: &[u8], offset: usize) -> Result<(FrameHeader, &[u8]), StreamDamage> {
    let bytes = output.get(offset..).unwrap_or_default();
    let header = FrameHeader::parse(bytes).ok_or(StreamDamage::Header { offset })?;
    let FrameHeader { content, number, len } = header;
    let address = if let Content::Memory { address } = content { Some(address) } else { None };
    let payload = bytes.get(HEADER_LEN..HEADER_LEN + len);
    let sum = bytes.get(HEADER_LEN + len..HEADER_LEN + len + TRAILER_LEN);
    let is_whole = |payload: &&[u8]| sum == Some(checksum(payload).to_le_bytes().as_slice());
    match payload.filter(is_whole) {
        Some(payload) => Ok((header, payload)),
        None => Err(StreamDamage::Payload { offset, number, address, len }),
    }
}

#[cfg(test)]
mod tests;
