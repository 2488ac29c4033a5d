//! A look at a log frame before defmt's decoder gets it: that one reserves memory for as many elements as a frame
//! claims to have, and a guest can claim anything.

use defmt_parser::{Fragment, Parameter, ParserMode, Type, get_max_bitfield_range, parse};
use object::{Object, ObjectSymbol};
use serde::Deserialize;
use std::collections::HashMap;

/// Most elements of slices in one frame, nested ones included.
const ELEMENTS_MAX: usize = 1024;
/// Deepest nesting of formats; each level takes two bytes of a frame.
const DEPTH_MAX: usize = 128;

/// What a symbol of the `.defmt` section says.
#[derive(Debug, Deserialize)]
struct Symbol {
    data: String,
    crate_name: Option<String>,
}

/// The format strings of an ELF file.
pub(super) struct FormatGuard {
    formats: HashMap<u16, Symbol>,
}

impl FormatGuard {
    /// Reads the symbols of an ELF file.
    pub(super) fn parse(elf: &[u8]) -> Result<Self, String> {
        let file = object::File::parse(elf).map_err(|error| error.to_string())?;
        let symbols = file.symbols().filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| name.starts_with('{'))?;
            Some((u16::try_from(symbol.address()).ok()?, serde_json::from_str(name).ok()?))
        });
        Ok(Self { formats: symbols.collect() })
    }

    /// Whether a frame has the arguments that its format needs, in numbers that can be; with the name of the crate
    /// that logged it.
    pub(super) fn check(&self, frame: &[u8]) -> Option<Option<&str>> {
        let mut walk = Walk { formats: &self.formats, bytes: frame, elements: ELEMENTS_MAX };
        let symbol = walk.symbol()?;
        walk.format(&symbol.data, DEPTH_MAX)?;
        Some(symbol.crate_name.as_deref())
    }
}

/// The arguments of a frame, from the first to the last.
struct Walk<'g, 'b> {
    formats: &'g HashMap<u16, Symbol>,
    bytes: &'b [u8],
    /// Elements that may still come.
    elements: usize,
}

impl<'g> Walk<'g, '_> {
    fn skip(&mut self, len: usize) -> Option<()> {
        self.bytes = self.bytes.get(len..)?;
        Some(())
    }

    fn number<const LEN: usize>(&mut self) -> Option<usize> {
        let (bytes, rest) = self.bytes.split_first_chunk::<LEN>()?;
        self.bytes = rest;
        bytes.iter().rev().try_fold(0usize, |number, byte| Some(number.checked_mul(256)? | usize::from(*byte)))
    }

    fn symbol(&mut self) -> Option<&'g Symbol> {
        let index = u16::try_from(self.number::<2>()?).ok()?;
        self.formats.get(&index)
    }

    /// One of the variants of an enumeration, or the format itself.
    fn variant(&mut self, format: &'g str) -> Option<&'g str> {
        let variants = format.matches('|').count();
        let chosen = match variants {
            0 => return Some(format),
            1..=0xFF => self.number::<1>()?,
            0x100..=0xFFFF => self.number::<2>()?,
            _ => return None,
        };
        format.split('|').nth(chosen)
    }

    fn format(&mut self, format: &str, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        for kind in argument_types(format)? {
            match kind {
                Type::Bool | Type::I8 | Type::U8 => self.skip(1)?,
                Type::I16 | Type::U16 | Type::IStr => self.skip(2)?,
                Type::I32 | Type::U32 | Type::Isize | Type::Usize | Type::F32 | Type::Char => self.skip(4)?,
                Type::I64 | Type::U64 | Type::F64 => self.skip(8)?,
                Type::I128 | Type::U128 => self.skip(16)?,
                Type::U8Array(len) => self.skip(len)?,
                Type::Str | Type::U8Slice => {
                    let len = self.number::<4>()?;
                    self.skip(len)?;
                }
                Type::Debug | Type::Display => {
                    let end = self.bytes.iter().position(|byte| *byte == 0xFF)?;
                    self.skip(end + 1)?;
                }
                Type::BitField(range) => {
                    let bytes =
                        usize::from(range.end.checked_sub(1)? / 8).checked_sub(usize::from(range.start / 8))? + 1;
                    self.skip(bytes.next_power_of_two())?;
                }
                Type::Format => {
                    let inner = self.symbol()?;
                    let variant = self.variant(&inner.data)?;
                    self.format(variant, depth)?;
                }
                Type::FormatSlice => {
                    let len = self.number::<4>()?;
                    self.slice(len, depth)?;
                }
                Type::FormatArray(len) => self.slice(len, depth)?,
                Type::FormatSequence => loop {
                    match self.number::<2>()? {
                        0 => break,
                        index => {
                            let inner = self.formats.get(&u16::try_from(index).ok()?)?;
                            self.format(&inner.data, depth)?;
                        }
                    }
                },
            }
        }
        Some(())
    }

    fn slice(&mut self, len: usize, depth: usize) -> Option<()> {
        self.elements = self.elements.checked_sub(len)?;
        let inner = self.symbol()?;
        for _ in 0..len {
            let variant = self.variant(&inner.data)?;
            self.format(variant, depth)?;
        }
        Some(())
    }
}

/// The types of a format's arguments, in the order in which a frame has them; bit fields of one argument are one.
fn argument_types(format: &str) -> Option<Vec<Type>> {
    let fragments = parse(format, ParserMode::ForwardsCompatible).ok()?;
    let mut parameters: Vec<Parameter> = fragments
        .into_iter()
        .filter_map(|fragment| match fragment {
            Fragment::Parameter(parameter) => Some(parameter),
            Fragment::Literal(_) => None,
        })
        .collect();
    parameters.sort_by_key(|parameter| parameter.index);
    let groups = parameters.chunk_by(|a, b| a.index == b.index);
    let types = groups.filter_map(|group| {
        let first = group.first()?;
        let is_bits = |parameter: &&Parameter| matches!(parameter.ty, Type::BitField(_));
        if is_bits(&first) {
            let (start, end) = get_max_bitfield_range(group.iter().filter(is_bits))?;
            return Some(Type::BitField(start..end));
        }
        Some(first.ty.clone())
    });
    Some(types.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guard(formats: &[(u16, &str)]) -> FormatGuard {
        let symbol = |data: &str| Symbol { data: data.to_owned(), crate_name: Some("c".into()) };
        FormatGuard { formats: formats.iter().map(|(index, data)| (*index, symbol(data))).collect() }
    }

    #[test]
    fn complete_frames_pass_and_incomplete_ones_do_not() {
        let guard = guard(&[
            (1, "plain"),
            (2, "{=u16} {=str} {=bool}"),
            (3, "{=[?]}"),
            (4, "{=u8}"),
            (5, "A|B({=u32})"),
            (6, "{=?}"),
            (7, "{0=0..3} {0=12..16} {1=u8}"),
        ]);
        for frame in [
            &[1, 0][..],
            &[2, 0, 9, 9, 2, 0, 0, 0, b'h', b'i', 1],
            &[3, 0, 2, 0, 0, 0, 4, 0, 7, 8],
            &[6, 0, 5, 0, 0],
            &[6, 0, 5, 0, 1, 1, 2, 3, 4],
            &[7, 0, 1, 2, 3],
        ] {
            assert_eq!(guard.check(frame), Some(Some("c")), "{frame:?}");
            assert!(frame.len() == 2 || guard.check(&frame[..frame.len() - 1]).is_none(), "{frame:?}");
        }
        assert_eq!(guard.check(&[9, 0]), None);
    }

    #[test]
    fn a_slice_of_billions_is_refused() {
        let guard = guard(&[(3, "{=[?]}"), (4, "nothing"), (8, "{=[?;4000000000]}")]);
        assert_eq!(guard.check(&[3, 0, 0xFF, 0xFF, 0xFF, 0xFF, 4, 0]), None);
        assert_eq!(guard.check(&[8, 0, 4, 0]), None);
        assert_eq!(guard.check(&[3, 0, 100, 0, 0, 0, 4, 0]), Some(Some("c")));
    }

    proptest! {
        #[test]
        fn any_frame_comes_to_an_end(frame in prop::collection::vec(0..10u8, 0..248)) {
            let guard = guard(&[(1, "{=?}{=[?]}"), (2, "{=[?]}"), (3, "A|B{=?}"), (257, "{=__internal_FormatSequence}")]);
            let _ = guard.check(&frame);
        }
    }
}
