//! Files of commands for the hypervisor's console.

use partita_console::line::LINE_MAX;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file of commands cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It cannot be read.
    #[error("cannot read the commands {}: {cause}; check the path given with --commands", path.display())]
    NotReadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A line is longer than the console takes.
    #[error("{}:{line}: the command has {len} bytes, the console takes at most {LINE_MAX}; shorten it", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1 on.
        line: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// A line has something else than printable ASCII.
    #[error("{}:{line}: the command has {byte:#04x} at column {column}, the console takes printable ASCII only; \
             remove it", path.display())]
    NotAscii {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1 on.
        line: usize,
        /// Number of the byte in its line, from 1 on.
        column: usize,
        /// The byte.
        byte: u8,
    },
    /// There is no command in it.
    #[error("{}: there is no command in this file; write one a line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The commands in a file, one a line, without comments (lines that begin with `#`) and blank lines.
///
/// # Errors
/// It cannot be read, has no command, or one that the console would not take.
pub fn read_commands(path: &Path) -> Result<Vec<String>, ScriptError> {
    let bytes = std::fs::read(path).map_err(|cause| ScriptError::NotReadable { path: path.to_path_buf(), cause })?;
    parse(&bytes, path)
}

fn parse(bytes: &[u8], path: &Path) -> Result<Vec<String>, ScriptError> {
    let path = || path.to_path_buf();
    let mut commands = Vec::new();
    for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let command = bytes.trim_ascii();
        if command.is_empty() || command.starts_with(b"#") {
            continue;
        }
        // Columns are those of the file.
        let is_bad = |byte: &u8| !(b' '..=b'~').contains(byte);
        if let Some((column, byte)) = bytes.trim_ascii_end().iter().enumerate().find(|(_, byte)| is_bad(byte)) {
            return Err(ScriptError::NotAscii { path: path(), line, column: column + 1, byte: *byte });
        }
        if command.len() > LINE_MAX {
            return Err(ScriptError::TooLong { path: path(), line, len: command.len() });
        }
        commands.push(String::from_utf8_lossy(command).into_owned());
    }
    if commands.is_empty() { Err(ScriptError::Empty { path: path() }) } else { Ok(commands) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn commands(text: &[u8]) -> Result<Vec<String>, String> {
        parse(text, Path::new("c.txt")).map_err(|error| error.to_string())
    }

    #[test]
    fn comments_and_blank_lines_are_left_out() {
        assert_eq!(
            commands(b"# first\n\n vcpus \r\n  \n#\nexits 2 # not a comment").unwrap(),
            ["vcpus", "exits 2 # not a comment"]
        );
    }

    #[test]
    fn what_the_console_does_not_take_is_refused_with_its_place() {
        let long = |len| [b"a\n".to_vec(), vec![b'x'; len]].concat();
        assert_eq!(commands(&long(LINE_MAX)).unwrap().len(), 2);
        let error = commands(&long(LINE_MAX + 1)).unwrap_err();
        assert!(error.starts_with("c.txt:2: the command has 97 bytes, the console takes at most 96"), "{error}");
        let error = commands("a\n# \u{e4} is fine here\n\nreg\u{e4}\n".as_bytes()).unwrap_err();
        assert!(error.starts_with("c.txt:4: the command has 0xc3 at column 4"), "{error}");
        let error = commands(b"a\tb").unwrap_err();
        assert!(error.starts_with("c.txt:1: the command has 0x09 at column 2"), "{error}");
        assert!(commands(b"\n# nothing\n").unwrap_err().contains("no command"));
        let error = read_commands(Path::new("no/such")).unwrap_err().to_string();
        assert!(error.contains("no/such") && error.contains("--commands"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_accepted_the_console_takes(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            for command in commands(&text).unwrap_or_default() {
                prop_assert!(!command.is_empty() && command.len() <= LINE_MAX);
                prop_assert!(command.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
        }
    }
}
