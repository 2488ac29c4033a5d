//! Dialogues: what to type at a partition's console, and what to wait for before.
//!
//! A file has one step a line:
//!
//! ```text
//! # to the shell, and out again
//! expect login:
//! send root
//! expect "# "
//! send poweroff
//! send-raw "\x03"
//! ```
//!
//! `expect` waits until the console has printed the text since the last match; `send` types the text and Enter,
//! `send-raw` the text alone. A text in double quotes can have blanks at its ends, and `\n`, `\r`, `\t`, `\e`, `\0`, `\"`,
//! `\\` and `\x` with two hexadecimal digits in it.

use std::io;
use std::path::{Path, PathBuf};

/// Longest text, in bytes.
const TEXT_MAX: usize = 4096;
/// What Enter types.
const ENTER: u8 = b'\r';

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait until the console has printed these bytes, which are not empty, since the last match.
    Expect(Vec<u8>),
    /// Type these bytes.
    Send(Vec<u8>),
}

/// A step of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line in the file, or its number, from 1 on.
    pub line: usize,
    /// It, as it was written.
    pub text: String,
    /// What it does.
    pub action: Action,
}

/// A dialogue with a guest at its console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialogue {
    /// The file that it is from, if it is from one.
    pub file: Option<PathBuf>,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// Why a dialogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DialogueError {
    /// It cannot be read.
    #[error("cannot read the dialogue {}: {cause}; check the path given with --type", path.display())]
    NotReadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A line is not a step.
    #[error("{}:{line}: {problem}", path.display())]
    BadStep {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1 on.
        line: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// There is no step in it.
    #[error("{}: there is no step in this dialogue; write one a line, such as expect login:", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Dialogue {
    /// A dialogue without steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a wait for this text, which must not be empty, at the end.
    #[must_use]
    pub fn expect(self, text: &str) -> Self {
        self.step(format!("expect {text:?}"), Action::Expect(text.into()))
    }

    /// With this text and Enter typed at the end.
    #[must_use]
    pub fn send(self, text: &str) -> Self {
        self.step(format!("send {text:?}"), Action::Send([text.as_bytes(), &[ENTER]].concat()))
    }

    /// With these bytes typed at the end.
    #[must_use]
    pub fn send_raw(self, bytes: &[u8]) -> Self {
        self.step(format!("send-raw \"{}\"", bytes.escape_ascii()), Action::Send(bytes.to_vec()))
    }

    fn step(mut self, text: String, action: Action) -> Self {
        self.steps.push(Step { line: self.steps.len() + 1, text, action });
        self
    }

    /// The dialogue in a file.
    ///
    /// # Errors
    /// It cannot be read, a line of it is not a step, or it has none.
    pub fn read(path: &Path) -> Result<Self, DialogueError> {
        let not_readable = |cause| DialogueError::NotReadable { path: path.to_path_buf(), cause };
        Self::parse(&std::fs::read_to_string(path).map_err(not_readable)?, path)
    }

    /// The dialogue that `text` is, as the file at `path`.
    ///
    /// # Errors
    /// A line of it is not a step, or it has none.
    pub fn parse(text: &str, path: &Path) -> Result<Self, DialogueError> {
        let mut steps = Vec::new();
        for (line, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let bad = |problem| DialogueError::BadStep { path: path.to_path_buf(), line, problem };
            let action = action(text).map_err(bad)?;
            steps.push(Step { line, text: text.to_owned(), action });
        }
        if steps.is_empty() {
            return Err(DialogueError::Empty { path: path.to_path_buf() });
        }
        Ok(Self { file: Some(path.to_path_buf()), steps })
    }
}

/// What a line says.
fn action(line: &str) -> Result<Action, String> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let bytes = bytes_of(rest.trim())?;
    if bytes.len() > TEXT_MAX {
        return Err(format!("the text has {} bytes, more than {TEXT_MAX}; shorten it", bytes.len()));
    }
    match word {
        "expect" if bytes.is_empty() => Err("there is no text to expect; write it behind the word".to_owned()),
        "expect" => Ok(Action::Expect(bytes)),
        "send" => Ok(Action::Send([&bytes[..], &[ENTER]].concat())),
        "send-raw" if bytes.is_empty() => Err("there is nothing to type; write it behind the word".to_owned()),
        "send-raw" => Ok(Action::Send(bytes)),
        _ => Err(format!("there is no step {word:?}; write expect, send or send-raw, or # for a comment")),
    }
}

/// The bytes that a text stands for.
fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
    let Some(start) = text.strip_prefix('"') else { return Ok(text.into()) };
    let no_end = || format!("the text {text} has no double quote at its end; write one, or \\\" for one in the text");
    let mut bytes = Vec::new();
    let mut chars = start.chars();
    loop {
        match chars.next().ok_or_else(no_end)? {
            '"' => break,
            '\\' => bytes.push(escaped(&mut chars)?),
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    match chars.as_str() {
        "" => Ok(bytes),
        more => Err(format!("there is {more:?} behind the text in double quotes; take it out")),
    }
}

/// What follows a backslash.
fn escaped(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    let unknown = |what: String| format!("there is no \\{what}; write \\n, \\r, \\t, \\e, \\0, \\\", \\\\ or \\x1b");
    match chars.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('e') => Ok(0x1B),
        Some('0') => Ok(0),
        Some('"') => Ok(b'"'),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
            byte.ok_or_else(|| unknown(format!("x{digits}")))
        }
        other => Err(unknown(other.map(String::from).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Dialogue, String> {
        Dialogue::parse(text, Path::new("d.txt")).map_err(|error| error.to_string())
    }

    #[test]
    fn steps_are_read_in_order() {
        let dialogue =
            parse("# comment\n\nexpect login:\r\n send  root \nexpect \"# \"\nsend\nsend-raw \"\\x03\\e[A\\\"\"");
        let dialogue = dialogue.unwrap();
        let steps: Vec<_> = dialogue.steps.iter().map(|step| (step.line, step.action.clone())).collect();
        let expected = [
            (3, Action::Expect(b"login:".to_vec())),
            (4, Action::Send(b"root\r".to_vec())),
            (5, Action::Expect(b"# ".to_vec())),
            (6, Action::Send(b"\r".to_vec())),
            (7, Action::Send(b"\x03\x1b[A\"".to_vec())),
        ];
        assert_eq!(steps, expected);
        assert_eq!((dialogue.steps[1].text.as_str(), dialogue.file), ("send  root", Some("d.txt".into())));
        let built = Dialogue::new().expect("login:").send("root").expect("# ").send("").send_raw(b"\x03\x1b[A\"");
        assert!(built.steps.iter().map(|step| &step.action).eq(steps.iter().map(|(_, action)| action)));
        assert_eq!(built.steps[4].text, r#"send-raw "\x03\x1b[A\"""#);
    }

    #[test]
    fn what_is_no_step_is_refused_with_its_line() {
        for (text, expected) in [
            ("\nwait 3", "d.txt:2: there is no step \"wait\"; write expect"),
            ("expect", "d.txt:1: there is no text to expect"),
            ("expect \"\"", "d.txt:1: there is no text to expect"),
            ("send-raw", "d.txt:1: there is nothing to type"),
            ("send \"a", "d.txt:1: the text \"a has no double quote at its end"),
            ("send \"a\" b", "d.txt:1: there is \" b\" behind the text"),
            ("send \"\\q\"", "d.txt:1: there is no \\q;"),
            ("send \"\\x+1\"", "d.txt:1: there is no \\x+1;"),
            ("send \"\\x1\"", "d.txt:1: there is no \\x1\";"),
            ("# only\n", "d.txt: there is no step"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
        let error = parse(&format!("send {}", "x".repeat(TEXT_MAX + 1))).unwrap_err();
        assert!(error.contains("4097 bytes"), "{error}");
        let error = Dialogue::read(Path::new("no/such")).unwrap_err().to_string();
        assert!(error.contains("no/such") && error.contains("--type"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(expect|send|send-raw) ?\"?.{0,40}\"?\n?.{0,10}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_bytes_can_be_written(bytes in proptest::collection::vec(any::<u8>(), 1..50)) {
            let escapes: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            let dialogue = parse(&format!("send-raw \"{escapes}\"")).unwrap();
            prop_assert_eq!(&dialogue.steps[0].action, &Action::Send(bytes));
        }
    }
}
