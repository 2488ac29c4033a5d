//! Bytes of a VT100 or xterm become keys (ECMA-48, section 5.4, for the form of a control sequence).

/// A key that means something to the editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Printable ASCII.
    Character(char),
    Enter,
    Cancel,
    Redraw,
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
}

/// Longest control sequence, in bytes after ESC [. What follows a longer one is text again.
pub(super) const SEQUENCE_MAX: u8 = 16;

const CR: u8 = b'\r';
const LF: u8 = b'\n';
const ESC: u8 = 0x1B;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// After CR: LF belongs to it.
    CarriageReturn,
    /// After ESC.
    Escape,
    /// After ESC O: one byte is the key.
    SingleShift,
    /// After ESC [, with the first number of the sequence.
    Sequence {
        number: u8,
        is_first: bool,
        len: u8,
    },
}

#[derive(Debug)]
pub(super) struct KeyDecoder {
    state: State,
}

impl KeyDecoder {
    pub(super) const fn new() -> Self {
        Self { state: State::Text }
    }

    /// Takes a byte; gives a key if the byte ends one.
    pub(super) fn push(&mut self, byte: u8) -> Option<Key> {
        let state = core::mem::replace(&mut self.state, State::Text);
        // A control byte ends any sequence, so that Enter and ^C always work.
        if !(b' '..=b'~').contains(&byte) {
            return self.control(byte, state == State::CarriageReturn);
        }
        match (state, byte) {
            (State::Text | State::CarriageReturn, _) => Some(Key::Character(char::from(byte))),
            (State::Escape, b'[') => {
                self.state = State::Sequence { number: 0, is_first: true, len: 0 };
                None
            }
            (State::Escape, b'O') => {
                self.state = State::SingleShift;
                None
            }
            (State::Escape, _) => None,
            (State::SingleShift, _) => final_byte(byte, 0),
            (State::Sequence { number, .. }, b'@'..) => final_byte(byte, number),
            (State::Sequence { number, is_first, len }, _) => {
                if len < SEQUENCE_MAX {
                    let digit = byte.is_ascii_digit() && is_first;
                    let number = if digit { number.saturating_mul(10).saturating_add(byte - b'0') } else { number };
                    self.state = State::Sequence { number, is_first: digit, len: len + 1 };
                }
                None
            }
        }
    }

    fn control(&mut self, byte: u8, after_cr: bool) -> Option<Key> {
        match byte {
            LF if after_cr => None,
            CR => {
                self.state = State::CarriageReturn;
                Some(Key::Enter)
            }
            LF => Some(Key::Enter),
            ESC => {
                self.state = State::Escape;
                None
            }
            0x01 => Some(Key::Home),
            0x03 => Some(Key::Cancel),
            0x05 => Some(Key::End),
            0x08 | 0x7F => Some(Key::Backspace),
            0x0B => Some(Key::DeleteToEnd),
            0x0C => Some(Key::Redraw),
            0x0E => Some(Key::Down),
            0x10 => Some(Key::Up),
            0x15 => Some(Key::DeleteToBeginning),
            0x17 => Some(Key::DeleteWord),
            _ => None,
        }
    }
}

/// The key of a sequence, by its last byte and its first number (xterm, "PC-style function keys"; numbers 7 and 8 are
/// rxvt's).
fn final_byte(byte: u8, number: u8) -> Option<Key> {
    match (byte, number) {
        (b'A', _) => Some(Key::Up),
        (b'B', _) => Some(Key::Down),
        (b'C', _) => Some(Key::Right),
        (b'D', _) => Some(Key::Left),
        (b'H', _) | (b'~', 1 | 7) => Some(Key::Home),
        (b'F', _) | (b'~', 4 | 8) => Some(Key::End),
        (b'~', 3) => Some(Key::Delete),
        _ => None,
    }
}
