//! A log that the emulator is writing, read piece by piece.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Follows a log from its first byte on.
#[derive(Debug)]
pub(super) struct LogTail {
    path: PathBuf,
    file: Option<File>,
    /// Bytes that were read or left out.
    at: u64,
}

impl LogTail {
    /// Follows the file at `path`, which need not exist yet.
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, at: 0 }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next bytes of it, at most `max`: a guest may write faster than anybody reads. None at its present end. An
    /// error is treated like the end: the log itself stays complete.
    pub(super) fn read(&mut self, max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut chunk = vec![0; CHUNK.min(max)];
        while bytes.len() < max {
            let room = chunk.len().min(max - bytes.len());
            let Some(part) = chunk.get_mut(..room) else { break };
            match self.open().and_then(|file| file.read(part).ok()) {
                Some(read) if read > 0 => bytes.extend(part.iter().take(read)),
                _ => break,
            }
        }
        self.at += bytes.len() as u64;
        bytes
    }

    /// Leaves out all but the last `keep` bytes of what was not read yet. Gives how many bytes were left out.
    pub(super) fn skip_but(&mut self, keep: u64) -> u64 {
        let at = self.at;
        let Some(file) = self.open() else { return 0 };
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        let target = len.saturating_sub(keep);
        if target <= at || file.seek(SeekFrom::Start(target)).is_err() {
            return 0;
        }
        self.at = target;
        target - at
    }

    /// Bytes of the log that were not read yet.
    pub(super) fn behind(&mut self) -> u64 {
        let at = self.at;
        self.open().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len().saturating_sub(at))
    }

    fn open(&mut self) -> Option<&mut File> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        self.file.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_is_read_in_pieces_and_can_be_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut tail = LogTail::new(&path);
        assert_eq!((tail.read(10), tail.behind(), tail.skip_but(0)), (Vec::new(), 0, 0));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!((tail.read(4), tail.behind()), (b"0123".to_vec(), 6));
        assert_eq!((tail.skip_but(6), tail.skip_but(2), tail.behind()), (0, 4, 2));
        assert_eq!((tail.read(100), tail.read(100)), (b"89".to_vec(), Vec::new()));
        file.write_all(b"a").unwrap();
        assert_eq!(tail.read(100), b"a");
    }
}
