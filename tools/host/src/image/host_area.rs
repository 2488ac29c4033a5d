//! The area below 1 MiB that the host tool fills for a partition, and what goes into it, byte by byte.

use super::{ImageError, Segment};
use partita_abi::guest::{HOST_BASE, HOST_LEN};

/// Places things one after the other from [`HOST_BASE`] on.
#[derive(Debug, Default)]
pub(super) struct HostArea {
    bytes: Vec<u8>,
}

impl HostArea {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The address that [`Self::place`] would give next.
    pub(super) fn next(&self, align: usize) -> u64 {
        HOST_BASE + self.bytes.len().next_multiple_of(align) as u64
    }

    /// Puts `bytes` at the next multiple of `align`, a power of two up to a page, and returns the guest-physical
    /// address.
    pub(super) fn place(&mut self, align: usize, bytes: &[u8]) -> Result<u64, ImageError> {
        let start = self.bytes.len().next_multiple_of(align);
        let needed = start as u64 + bytes.len() as u64;
        if needed > HOST_LEN {
            return Err(ImageError::HostAreaFull { needed, room: HOST_LEN });
        }
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(bytes);
        Ok(HOST_BASE + start as u64)
    }

    pub(super) fn into_segment(self) -> Segment {
        Segment::of_bytes(HOST_BASE, self.bytes)
    }
}

/// A command line with the NUL that ends it.
pub(super) fn c_string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// Fixed-size structures of other people's protocols, field by field.
#[derive(Debug)]
pub(super) struct Fields(Vec<u8>);

impl Fields {
    pub(super) fn zeroed(len: usize) -> Self {
        Self(vec![0; len])
    }

    /// Writes `bytes` at offset `at`. What would not fit is left out, and a test of the caller would notice.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        if let Some(place) = self.0.get_mut(at..at.saturating_add(bytes.len())) {
            place.copy_from_slice(bytes);
        }
        self
    }

    pub(super) fn put_u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn put_u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_aligned_and_do_not_overlap() {
        let mut area = HostArea::new();
        assert_eq!(area.place(1, b"abc").unwrap(), HOST_BASE);
        assert_eq!(area.next(8), HOST_BASE + 8);
        assert_eq!(area.place(8, b"d").unwrap(), HOST_BASE + 8);
        assert_eq!(area.into_segment().data, b"abc\0\0\0\0\0d");
    }

    #[test]
    fn too_much_is_refused() {
        let mut area = HostArea::new();
        assert!(area.place(1, &vec![0; HOST_LEN as usize]).is_ok());
        assert_eq!(area.place(1, &[0]).unwrap_err(), ImageError::HostAreaFull { needed: HOST_LEN + 1, room: HOST_LEN });
    }
}
