//! The RAM of a machine as far as it was written to the debug port: a sparse file, in the place of one that an emulator shares.

use super::Piece;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Writes the file of a machine with `memory` bytes of RAM. What lies beyond is left out: nothing there is RAM.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(pieces: &[Piece<'_>], memory: u64, path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(memory)?;
    for piece in pieces {
        let end = piece.address.checked_add(piece.bytes.len() as u64);
        if end.is_some_and(|end| end <= memory) {
            file.write_all_at(piece.bytes, piece.address)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_at_their_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram.bin");
        let pieces = [(0x1000, &b"abc"[..]), (0x3FFF, b"z"), (0x3FFF, b"yz"), (u64::MAX, b"w")];
        write(&pieces.map(|(address, bytes)| Piece { address, bytes }), 0x4000, &path).unwrap();
        let ram = std::fs::read(&path).unwrap();
        assert_eq!((ram.len(), &ram[0x1000..0x1004], ram[0x3FFF]), (0x4000, &b"abc\0"[..], b'z'));
        assert_eq!(ram.iter().filter(|byte| **byte != 0).count(), 4);
    }
}
