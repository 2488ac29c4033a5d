//! The line editor, beside a simple model of it and a screen that shows what it echoes.

mod screen;

use partita_console::line::{Edited, HISTORY_LINES, LINE_MAX, LineEditor, PROMPT};
use proptest::prelude::*;
use screen::Screen;

/// What a person does.
#[derive(Clone, Debug)]
enum Action {
    Type(char),
    Left,
    Right,
    Home,
    End,
    Up,
    Down,
    Backspace,
    Delete,
    DeleteToBeginning,
    DeleteToEnd,
    DeleteWord,
    Redraw,
    Enter,
    Cancel,
    /// Bytes that mean nothing.
    Noise(&'static [u8]),
}

impl Action {
    /// The ways in which terminals send it.
    fn encodings(&self) -> &'static [&'static [u8]] {
        match self {
            Self::Left => &[b"\x1B[D", b"\x1BOD", b"\x1B[1;5D"],
            Self::Right => &[b"\x1B[C", b"\x1BOC"],
            Self::Home => &[b"\x01", b"\x1B[H", b"\x1BOH", b"\x1B[1~", b"\x1B[7~", b"\x1B[01;2~"],
            Self::End => &[b"\x05", b"\x1B[F", b"\x1BOF", b"\x1B[4~", b"\x1B[8~"],
            Self::Up => &[b"\x10", b"\x1B[A", b"\x1BOA"],
            Self::Down => &[b"\x0E", b"\x1B[B", b"\x1BOB"],
            Self::Backspace => &[b"\x08", b"\x7F"],
            Self::Delete => &[b"\x1B[3~", b"\x1B[3;5~"],
            Self::DeleteToBeginning => &[b"\x15"],
            Self::DeleteToEnd => &[b"\x0B"],
            Self::DeleteWord => &[b"\x17"],
            Self::Redraw => &[b"\x0C"],
            Self::Enter => &[b"\r", b"\n", b"\r\n", b"\x1B\r", b"\x1B[\n", b"\x1B[3\r\n"],
            Self::Cancel => &[b"\x03", b"\x1BO\x03"],
            Self::Type(_) | Self::Noise(_) => &[],
        }
    }

    fn bytes(&self, encoding: usize) -> Vec<u8> {
        match self {
            Self::Type(character) => vec![*character as u8],
            Self::Noise(bytes) => bytes.to_vec(),
            other => other.encodings()[encoding % other.encodings().len()].to_vec(),
        }
    }
}

fn actions() -> impl Strategy<Value = Vec<(Action, usize)>> {
    let action = prop_oneof![
        30 => (b' '..=b'~').prop_map(|byte| Action::Type(byte.into())),
        5 => Just(Action::Type(' ')),
        6 => prop::sample::select(vec![Action::Left, Action::Right, Action::Home, Action::End]),
        6 => prop::sample::select(vec![Action::Up, Action::Down]),
        4 => prop::sample::select(vec![Action::Backspace, Action::Delete]),
        1 => prop::sample::select(vec![Action::DeleteToBeginning, Action::DeleteToEnd, Action::DeleteWord]),
        1 => prop::sample::select(vec![Action::Redraw, Action::Cancel]),
        2 => Just(Action::Enter),
        1 => prop::sample::select(vec![
            Action::Noise(b"\0"), Action::Noise(b"\t"), Action::Noise(b"\xC3\xA9"), Action::Noise(b"\x1B[5~"),
            Action::Noise(b"\x1B[200~"), Action::Noise(b"\x1B[;3~"), Action::Noise(b"\x1Bx"), Action::Noise(b"\x04"),
        ]),
    ];
    prop::collection::vec((action, any::<usize>()), 0..300)
}

/// The editor as one would write it without bounds.
#[derive(Default)]
struct Model {
    text: Vec<char>,
    cursor: usize,
    history: Vec<Vec<char>>,
    back: usize,
    draft: (Vec<char>, usize),
}

impl Model {
    fn apply(&mut self, action: &Action) -> Option<String> {
        let len = self.text.len();
        match action {
            Action::Type(character) if len < LINE_MAX => {
                self.text.insert(self.cursor, *character);
                self.cursor += 1;
            }
            Action::Left => self.cursor = self.cursor.saturating_sub(1),
            Action::Right => self.cursor = len.min(self.cursor + 1),
            Action::Home => self.cursor = 0,
            Action::End => self.cursor = len,
            Action::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            Action::Delete if self.cursor < len => {
                self.text.remove(self.cursor);
            }
            Action::DeleteToBeginning => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            Action::DeleteToEnd => self.text.truncate(self.cursor),
            Action::DeleteWord => {
                let left: String = self.text[..self.cursor].iter().collect();
                let kept = left.trim_end_matches(' ').rfind(' ').map_or(0, |space| space + 1);
                self.text.drain(kept..self.cursor);
                self.cursor = kept;
            }
            Action::Up if self.back < self.history.len() => {
                if self.back == 0 {
                    self.draft = (self.text.clone(), self.cursor);
                }
                self.back += 1;
                self.show_history();
            }
            Action::Down if self.back > 0 => {
                self.back -= 1;
                self.show_history();
            }
            Action::Enter => {
                let line = self.take();
                if line.iter().any(|c| *c != ' ') && self.history.last() != Some(&line) {
                    self.history.push(line.clone());
                    let excess = self.history.len().saturating_sub(HISTORY_LINES);
                    self.history.drain(..excess);
                }
                return Some(line.into_iter().collect());
            }
            Action::Cancel => {
                self.take();
            }
            _ => {}
        }
        None
    }

    fn show_history(&mut self) {
        (self.text, self.cursor) = if self.back == 0 {
            self.draft.clone()
        } else {
            let line = self.history[self.history.len() - self.back].clone();
            let end = line.len();
            (line, end)
        };
    }

    fn take(&mut self) -> Vec<char> {
        (self.cursor, self.back) = (0, 0);
        std::mem::take(&mut self.text)
    }
}

/// Pushes all bytes; returns what they ended: `None` for a cancelled line.
fn push_all(editor: &mut LineEditor, bytes: &[u8], echo: &mut impl std::fmt::Write) -> Vec<Option<String>> {
    let mut ended = Vec::new();
    for &byte in bytes {
        match editor.push(byte, echo) {
            Edited::Pending => {}
            Edited::Line(line) => ended.push(Some(line.to_owned())),
            Edited::Cancelled => ended.push(None),
        }
    }
    ended
}

fn lines(editor: &mut LineEditor, bytes: &[u8]) -> Vec<Option<String>> {
    push_all(editor, bytes, &mut String::new())
}

fn some(lines: &[&str]) -> Vec<Option<String>> {
    lines.iter().map(|line| Some((*line).to_owned())).collect()
}

#[test]
fn each_line_end_ends_a_line_once() {
    let mut editor = LineEditor::new();
    assert_eq!(lines(&mut editor, b"a\rb\nc\r\nd\r\n\ne\n\rf\r\rg"), some(&["a", "b", "c", "d", "", "e", "", "f", ""]));
}

#[test]
fn a_line_that_is_too_long_rings_the_bell_and_stays() {
    let (mut editor, mut echo) = (LineEditor::new(), String::new());
    let long = vec![b'x'; LINE_MAX + 3];
    assert_eq!(push_all(&mut editor, &long, &mut echo), []);
    assert_eq!(echo, format!("{}\x07\x07\x07", "x".repeat(LINE_MAX)));
    assert_eq!(lines(&mut editor, b"\x01y\x7F\r"), some(&[&"x".repeat(LINE_MAX)]));
}

#[test]
fn the_latest_lines_are_remembered() {
    let mut editor = LineEditor::new();
    for n in 0..=HISTORY_LINES {
        lines(&mut editor, format!("line {n}\r").as_bytes());
    }
    // Blank lines and repetitions are not.
    lines(&mut editor, b"\r  \rline 8\r");
    let up = |times: usize| [b"\x10".repeat(times), b"\r".to_vec()].concat();
    assert_eq!(lines(&mut editor, &up(HISTORY_LINES + 5)), some(&["line 1"]));
    assert_eq!(lines(&mut editor, &up(2)), some(&["line 8"]));
}

#[test]
fn what_was_typed_comes_back_after_the_history() {
    let mut editor = LineEditor::new();
    assert_eq!(lines(&mut editor, b"old\rnew\x10\x10er\x0E\x0E!\r"), some(&["old", "new!"]));
    // An earlier line that was changed and not entered is as it was.
    assert_eq!(lines(&mut editor, b"\x10\x10x\x0E\x10\r"), some(&["old"]));
}

#[test]
fn a_cancelled_line_is_gone() {
    let (mut editor, mut echo) = (LineEditor::new(), String::new());
    assert_eq!(push_all(&mut editor, b"wrmsr 0\x03quit\r", &mut echo), [None, Some("quit".to_owned())]);
    assert_eq!(echo, "wrmsr 0^C\nquit\n");
    assert_eq!(lines(&mut editor, b"\x10\x10\r"), some(&["quit"]));
}

#[test]
fn an_endless_escape_sequence_ends() {
    let mut editor = LineEditor::new();
    let bytes = [b"\x1B[".to_vec(), b"3".repeat(17), b"ok\r".to_vec()].concat();
    assert_eq!(lines(&mut editor, &bytes), some(&["ok"]));
    let bytes = [b"a\x1B[".to_vec(), b"3".repeat(16), b"~b\r".to_vec()].concat();
    assert_eq!(lines(&mut editor, &bytes), some(&["ab"]));
}

#[test]
fn an_echo_that_fails_changes_nothing() {
    struct Broken;
    impl std::fmt::Write for Broken {
        fn write_str(&mut self, _: &str) -> std::fmt::Result {
            Err(std::fmt::Error)
        }
    }
    let mut editor = LineEditor::new();
    assert_eq!(push_all(&mut editor, b"helx\x7Fp\x01 \r", &mut Broken), some(&[" help"]));
}

proptest! {
    #[test]
    fn lines_and_screen_are_those_of_the_model(actions in actions(), width in 80usize..110) {
        let (mut editor, mut model, mut screen) = (LineEditor::new(), Model::default(), Screen::new(width));
        screen.show(PROMPT);
        // From a line that was too wide until the next one, the terminal wraps and shows something else.
        let (mut fits, mut after_cr) = (true, false);
        for (action, encoding) in actions {
            let mut bytes = action.bytes(encoding);
            if after_cr && bytes.starts_with(b"\n") {
                // LF after CR is not another Enter.
                bytes = b"\r".to_vec();
            }
            after_cr = bytes.ends_with(b"\r");
            let bells = screen.bells();
            let is_too_long = matches!(action, Action::Type(_)) && model.text.len() == LINE_MAX;
            let ended = push_all(&mut editor, &bytes, &mut screen);
            let line = model.apply(&action);
            prop_assert_eq!(screen.bells() - bells, usize::from(is_too_long));
            if matches!(action, Action::Enter | Action::Cancel) {
                prop_assert_eq!(ended, [line]);
                prop_assert_eq!(screen.cursor(), 0);
                screen.show(PROMPT);
                fits = true;
            } else {
                prop_assert_eq!(ended, []);
            }
            let shown: String = PROMPT.chars().chain(model.text.iter().copied()).collect();
            fits &= shown.len() <= width;
            if fits {
                prop_assert_eq!(screen.row(), shown.trim_end(), "after {:?}", action);
                prop_assert_eq!(screen.cursor(), (PROMPT.len() + model.cursor).min(width - 1), "after {:?}", action);
            }
        }
    }

    #[test]
    fn any_bytes_make_lines_in_bounds(bytes: Vec<u8>) {
        let (mut editor, mut screen) = (LineEditor::new(), Screen::new(80));
        for line in push_all(&mut editor, &bytes, &mut screen).into_iter().flatten() {
            prop_assert!(line.len() <= LINE_MAX && line.bytes().all(|b| matches!(b, b' '..=b'~')), "{:?}", line);
        }
    }
}
