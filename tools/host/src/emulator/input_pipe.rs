//! What a serial port of the machine reads: a named pipe, from which the emulator takes bytes as the guest does.
//!
//! The output of the port goes to a file, so that nobody who reads too slowly can hold the machine up, and the log is
//! complete. The pipe has no part in that.

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::ioctl_fionread;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Our end of the pipe. The pipe is removed when this is dropped.
#[derive(Debug)]
pub(super) struct InputPipe {
    path: PathBuf,
    file: File,
    /// What did not fit into the pipe yet.
    waiting: VecDeque<u8>,
}

impl InputPipe {
    /// Makes the pipe at `path`, in the place of whatever is there.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // Open for both, so that neither the emulator waits for a writer, nor a write fails for want of a reader.
        let file = open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into();
        Ok(Self { path: path.to_path_buf(), file, waiting: VecDeque::new() })
    }

    /// Types these bytes, behind all earlier ones.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        self.flush();
    }

    /// Gives the emulator what it has room for, and never waits.
    pub(super) fn flush(&mut self) {
        while !self.waiting.is_empty() {
            // An error other than a full pipe leaves the bytes waiting, and is then seen as input that was not taken.
            match self.file.write(self.waiting.make_contiguous()) {
                Ok(written) if written > 0 => drop(self.waiting.drain(..written)),
                _ => break,
            }
        }
    }

    /// Whether the emulator has taken all: it takes what the guest's port has room for.
    pub(super) fn is_taken(&self) -> bool {
        self.waiting.is_empty() && ioctl_fionread(&self.file).is_ok_and(|unread| unread == 0)
    }

    /// Whether so much is waiting that no more should be typed.
    pub(super) fn is_full(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Drop for InputPipe {
    fn drop(&mut self) {
        // It is gone already where the directory was removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_typed_arrives_in_order_and_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        std::fs::write(&path, "left by an earlier run").unwrap();
        let mut pipe = InputPipe::create(&path).unwrap();
        assert!(pipe.is_taken());
        // Far more than a pipe holds.
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        pipe.push(&bytes);
        assert!(pipe.is_full() && !pipe.is_taken());
        let mut reader = File::open(&path).unwrap();
        let mut read: Vec<u8> = Vec::new();
        let mut chunk = vec![0; 10_000];
        while read.len() < bytes.len() {
            let count = reader.read(&mut chunk).unwrap();
            read.extend(&chunk[..count]);
            pipe.flush();
        }
        assert!(read == bytes && pipe.is_taken() && !pipe.is_full());
        drop(pipe);
        assert!(!path.exists());
    }
}
