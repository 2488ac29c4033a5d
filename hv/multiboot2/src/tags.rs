//! The tags of boot information (section 3.6.2).

use crate::{Error, MemoryMap, Module};

/// Type of the tag behind the last one.
const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const MODULE: u32 = 3;
const MEMORY_MAP: u32 = 6;
const OLD_RSDP: u32 = 14;
const NEW_RSDP: u32 = 15;

/// Bytes of type and length.
const TAG_HEAD: usize = 8;
/// Tags begin at multiples of this.
const TAG_ALIGN: usize = 8;

/// A tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag<'a> {
    /// The command line.
    CommandLine(&'a str),
    /// A module.
    Module(Module),
    /// The memory map.
    MemoryMap(MemoryMap<'a>),
    /// The copy of an RSDP of ACPI 1.0.
    OldRsdp(&'a [u8]),
    /// The copy of an RSDP of a later version.
    NewRsdp(&'a [u8]),
    /// One of no interest.
    Other {
        /// Its type.
        kind: u32,
    },
}

/// All tags but the end tag. The first error is the last item.
#[derive(Clone, Debug)]
pub struct Tags<'a> {
    rest: &'a [u8],
    has_ended: bool,
}

impl<'a> Tags<'a> {
    /// The tags in the bytes behind the fixed part of the boot information.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, has_ended: false }
    }

    fn take(&mut self) -> Result<Option<Tag<'a>>, Error> {
        let head = self.rest.split_first_chunk::<4>().and_then(|(kind, rest)| Some((kind, rest.first_chunk::<4>()?)));
        let Some((kind, len)) = head else { return Err(Error::NoEnd) };
        let (kind, found) = (u32::from_le_bytes(*kind), u32::from_le_bytes(*len));
        let bad = Error::TagLength { kind, len: found };
        let len = usize::try_from(found).map_err(|_| bad)?;
        let contents = self.rest.get(TAG_HEAD..len).ok_or(bad)?;
        if kind == END {
            return Ok(None);
        }
        // What would follow the last tag without being there is found missing with the next one.
        let next = len.checked_next_multiple_of(TAG_ALIGN).ok_or(bad)?;
        self.rest = self.rest.get(next..).unwrap_or_default();
        Ok(Some(match kind {
            COMMAND_LINE => Tag::CommandLine(text(contents)?),
            MODULE => Tag::Module(module(contents)?.ok_or(bad)?),
            MEMORY_MAP => Tag::MemoryMap(MemoryMap::read(contents)?.ok_or(bad)?),
            OLD_RSDP => Tag::OldRsdp(contents),
            NEW_RSDP => Tag::NewRsdp(contents),
            _ => Tag::Other { kind },
        }))
    }
}

impl<'a> Iterator for Tags<'a> {
    type Item = Result<Tag<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let tag = self.take();
        self.has_ended = !matches!(tag, Ok(Some(_)));
        tag.transpose()
    }
}

/// The text before the first zero.
fn text(contents: &[u8]) -> Result<&str, Error> {
    let text = contents.split(|&byte| byte == 0).next().unwrap_or_default();
    core::str::from_utf8(text).map_err(|error| Error::CommandLine { valid: error.valid_up_to() })
}

fn module(contents: &[u8]) -> Result<Option<Module>, Error> {
    let words = contents.split_first_chunk().and_then(|(start, rest)| Some((start, rest.first_chunk()?)));
    let Some((start, end)) = words else { return Ok(None) };
    let (start, end) = (u32::from_le_bytes(*start), u32::from_le_bytes(*end));
    let len = end.checked_sub(start).filter(|&len| len > 0).ok_or(Error::Module { start, end })?;
    Ok(Some(Module { start, len }))
}
