//! A console of the emulated machine, followed line by line for people to see.

use super::log_tail::LogTail;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest line that is shown as one.
const LINE_MAX: usize = 4096;
/// Bytes that are looked at in one go: a guest that floods its console does not keep the others from being shown.
const LOOK_MAX: usize = 256 << 10;
/// How far what is shown may be behind; of what is more, only the last part is shown.
const BEHIND_MAX: u64 = 1 << 20;
/// After so long without another byte an unfinished line is shown, as it may be a prompt.
const PATIENCE: Duration = Duration::from_millis(300);
/// Stands before the rest of a line whose beginning was shown before it was finished.
const REST: char = '…';

/// A line, or a piece of one, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Which console it is from: an index given by the caller of [`Console::new`].
    pub console: usize,
    /// The name of the console.
    pub name: String,
    /// The text, in which control characters are made visible, so that a guest cannot steer the terminal.
    pub text: String,
}

/// Follows one console.
#[derive(Debug)]
pub struct Console {
    name: String,
    index: usize,
    log: LogTail,
    partial: Vec<u8>,
    /// When the last byte of `partial` was seen.
    last: Instant,
    /// Whether a piece of the line was shown already.
    is_rest: bool,
}

impl Console {
    /// Follows the file at `path`, which need not exist yet, as the console called `name`, the `index`th of the machine.
    pub fn new(name: impl Into<String>, index: usize, path: impl Into<PathBuf>) -> Self {
        let log = LogTail::new(path);
        Self { name: name.into(), index, log, partial: Vec::new(), last: Instant::now(), is_rest: false }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file, which has all its bytes as they are.
    pub fn path(&self) -> &Path {
        self.log.path()
    }

    /// The lines that were finished since the last call, and an unfinished one if nothing was added to it for a moment.
    pub fn poll(&mut self, now: Instant) -> Vec<Shown> {
        let mut lines = Vec::new();
        if self.log.behind() > BEHIND_MAX {
            let skipped = self.log.skip_but(LOOK_MAX as u64);
            lines.extend(self.take_line());
            let text = format!("({skipped} bytes are not shown; they are in {})", self.path().display());
            lines.push(self.shown(text));
        }
        let bytes = self.log.read(LOOK_MAX);
        if !bytes.is_empty() {
            self.last = now;
        }
        for byte in bytes {
            if byte == b'\n' {
                // What was shown before may have been all of the line.
                if !(self.is_rest && self.text().is_empty()) {
                    lines.push(self.take());
                }
                self.partial.clear();
                self.is_rest = false;
                continue;
            }
            if self.partial.len() >= LINE_MAX {
                lines.push(self.take());
            }
            self.partial.push(byte);
        }
        if now.saturating_duration_since(self.last) >= PATIENCE && !self.text().is_empty() {
            lines.push(self.take());
            self.is_rest = true;
        }
        lines
    }

    /// The lines since the last call, an unfinished one included.
    pub fn finish(&mut self, now: Instant) -> Vec<Shown> {
        let mut lines = self.poll(now);
        let mut behind = self.log.behind();
        while behind > 0 {
            lines.extend(self.poll(now));
            let before = std::mem::replace(&mut behind, self.log.behind());
            if behind == before {
                // It cannot be read any more.
                break;
            }
        }
        lines.extend(self.take_line());
        lines
    }

    /// The unfinished line, if there is one, as if it were finished.
    fn take_line(&mut self) -> Option<Shown> {
        let line = (!self.text().is_empty()).then(|| self.take());
        self.partial.clear();
        self.is_rest = false;
        line
    }

    fn take(&mut self) -> Shown {
        let mut text = self.text();
        if self.is_rest {
            text.insert(0, REST);
        }
        self.partial.clear();
        self.shown(text)
    }

    fn shown(&self, text: String) -> Shown {
        Shown { console: self.index, name: self.name.clone(), text }
    }

    /// The line so far.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.partial);
        let visible = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        text.trim_matches('\r').chars().map(visible).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    fn texts(lines: Vec<Shown>) -> Vec<String> {
        lines.into_iter().map(|line| format!("{}:{} {}", line.console, line.name, line.text)).collect()
    }

    struct Setup {
        _dir: tempfile::TempDir,
        file: File,
        console: Console,
        start: Instant,
    }

    impl Setup {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("rt0.log");
            let mut console = Console::new("rt0", 1, &path);
            let start = Instant::now();
            assert_eq!(console.poll(start), []);
            Self { file: File::create(&path).unwrap(), _dir: dir, console, start }
        }

        /// What is shown of these bytes so many milliseconds after the start.
        fn write(&mut self, bytes: &[u8], ms: u64) -> Vec<String> {
            self.file.write_all(bytes).unwrap();
            texts(self.console.poll(self.start + Duration::from_millis(ms)))
        }

        fn finish(&mut self) -> Vec<String> {
            texts(self.console.finish(self.start))
        }
    }

    #[test]
    fn lines_appear_when_they_are_finished() {
        let mut setup = Setup::new();
        assert_eq!(setup.write(b"one\r\ntw", 10), ["1:rt0 one"]);
        assert_eq!(setup.write(b"o\n\n\x1b[2Jthree", 20), ["1:rt0 two", "1:rt0 "]);
        assert_eq!(setup.finish(), ["1:rt0 \u{FFFD}[2Jthree"]);
        assert_eq!(setup.finish(), [""; 0]);
    }

    #[test]
    fn a_prompt_is_shown_after_a_moment_and_once() {
        let mut setup = Setup::new();
        assert_eq!(setup.write(b"boot\r\nlogin: ", 100), ["1:rt0 boot"]);
        assert_eq!(setup.write(b"", 399), [""; 0]);
        assert_eq!(setup.write(b"", 400), ["1:rt0 login: "]);
        assert_eq!(setup.write(b"", 1000), [""; 0]);
        // The rest of that line says so; of a rest that is nothing but its end, nothing is shown.
        assert_eq!(setup.write(b"root\r\nPassword: ", 1010), ["1:rt0 …root"]);
        assert_eq!(setup.write(b"", 2000), ["1:rt0 Password: "]);
        assert_eq!(setup.write(b"\r\nwelcome\r\n", 2010), ["1:rt0 welcome"]);
        assert_eq!(setup.write(b"\r", 2020), [""; 0]);
        assert_eq!(setup.write(b"", 3000), [""; 0], "nothing can be seen of it");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut setup = Setup::new();
        assert_eq!(setup.write(&vec![b'x'; 2 * LINE_MAX + 1], 0).len(), 2);
        assert_eq!(setup.finish(), ["1:rt0 x"]);
    }

    #[test]
    fn of_a_flood_the_last_part_is_shown() {
        let mut setup = Setup::new();
        let flood: Vec<u8> = (0..400_000).flat_map(|n| format!("{n:07}\n").into_bytes()).collect();
        let lines = setup.write(&flood, 0);
        assert!(lines[0].contains("bytes are not shown; they are in") && lines[0].contains("rt0.log"), "{}", lines[0]);
        let left_out: usize = lines[0].split(['(', ' ']).find_map(|word| word.parse().ok()).unwrap();
        assert_eq!((left_out + LOOK_MAX, lines.len()), (flood.len(), 1 + LOOK_MAX / 8));
        assert_eq!(lines[lines.len() - 1], "1:rt0 0399999");
        // At the end, too.
        setup.file.write_all(&flood[..100 * LOOK_MAX / 64]).unwrap();
        assert!(setup.finish().len() > LOOK_MAX / 8);
    }
}
