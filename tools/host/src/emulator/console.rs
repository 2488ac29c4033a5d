//! A console of the emulated machine: a file that the emulator writes and that is followed line by line.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest line that is shown as one.
const LINE_MAX: usize = 4096;
/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Follows one console.
#[derive(Debug)]
pub struct Console {
    name: String,
    path: PathBuf,
    file: Option<File>,
    partial: Vec<u8>,
}

impl Console {
    /// Follows the file at `path`, which need not exist yet, as the console called `name`.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), file: None, partial: Vec::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lines that were finished since the last call, each with `[name] ` before it. The raw bytes stay in the
    /// file; here control characters are made visible, so that a guest cannot steer the terminal.
    pub fn poll(&mut self) -> Vec<String> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let mut lines = Vec::new();
        let mut chunk = vec![0; CHUNK];
        // An error is treated like the end of the file: the log itself stays complete.
        while let Some(read) = self.file.as_mut().and_then(|file| file.read(&mut chunk).ok())
            && read > 0
        {
            for &byte in chunk.iter().take(read) {
                if byte == b'\n' || self.partial.len() >= LINE_MAX {
                    lines.push(self.take_line());
                }
                if byte != b'\n' {
                    self.partial.push(byte);
                }
            }
        }
        lines
    }

    /// The lines since the last call, an unfinished one included.
    pub fn finish(&mut self) -> Vec<String> {
        let mut lines = self.poll();
        if !self.partial.is_empty() {
            lines.push(self.take_line());
        }
        lines
    }

    fn take_line(&mut self) -> String {
        let bytes = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&bytes);
        let visible: String = text
            .trim_end_matches('\r')
            .chars()
            .map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
            .collect();
        format!("[{}] {visible}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_appear_when_they_are_finished() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rt0.log");
        let mut console = Console::new("rt0", &path);
        assert_eq!(console.poll(), Vec::<String>::new());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\r\ntw").unwrap();
        assert_eq!(console.poll(), ["[rt0] one"]);
        file.write_all(b"o\n\x1b[2Jthree").unwrap();
        assert_eq!(console.poll(), ["[rt0] two"]);
        assert_eq!(console.finish(), ["[rt0] \u{FFFD}[2Jthree"]);
        assert_eq!(console.finish(), Vec::<String>::new());
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        std::fs::write(&path, vec![b'x'; 2 * LINE_MAX + 1]).unwrap();
        let mut console = Console::new("x", &path);
        assert_eq!(console.poll().len(), 2);
        assert_eq!(console.finish(), ["[x] x"]);
    }
}
