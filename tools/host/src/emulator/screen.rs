//! What a console's log looks like on a terminal: its lines, with the effect of what a line editor sends.

use partita_console::line::PROMPT;

/// Longest line that is kept; what is right of it is cut.
const COLUMNS_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC [, with the number so far.
    Sequence(usize),
}

/// A line of a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownLine {
    /// Its text.
    pub text: String,
    /// Whether it showed a prompt, if only for a while: something else may have been written over it.
    pub had_prompt: bool,
}

/// The line that a terminal is at. It knows carriage return, backspace, and the control sequences that move the cursor
/// in its line or erase there; everything else that is not text is ignored.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    line: Vec<u8>,
    cursor: usize,
    had_prompt: bool,
    state: State,
}

impl Screen {
    /// Takes a byte of the log; gives the line that it ends, if it ends one.
    pub fn push(&mut self, byte: u8) -> Option<ShownLine> {
        match (std::mem::take(&mut self.state), byte) {
            (_, b'\n') => {
                let line = self.current();
                *self = Self::default();
                return Some(line);
            }
            (_, 0x1B) => self.state = State::Escape,
            (State::Escape, b'[') => self.state = State::Sequence(0),
            (State::Escape, _) => {}
            (State::Sequence(number), b'0'..=b'9') => {
                let number = number.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
                self.state = State::Sequence(number.min(COLUMNS_MAX));
            }
            (State::Sequence(number), b'@'..=b'~') => self.sequence(byte, number),
            (State::Sequence(number), b' '..) => self.state = State::Sequence(number),
            (_, b'\r') => self.cursor = 0,
            (_, 0x08) => self.cursor = self.cursor.saturating_sub(1),
            (_, b'\t' | b' '..) => self.put(byte),
            _ => {}
        }
        None
    }

    /// The line that is not ended yet.
    pub fn current(&self) -> ShownLine {
        ShownLine { text: String::from_utf8_lossy(&self.line).into_owned(), had_prompt: self.had_prompt }
    }

    /// Whether it shows a prompt and nothing else: the console waits for a command.
    pub fn at_prompt(&self) -> bool {
        self.line == PROMPT.as_bytes() && self.cursor == PROMPT.len()
    }

    fn sequence(&mut self, last: u8, number: usize) {
        let count = number.max(1);
        match last {
            b'C' => self.cursor = (self.cursor + count).min(COLUMNS_MAX),
            b'D' => self.cursor = self.cursor.saturating_sub(count),
            b'K' if number == 0 => self.line.truncate(self.cursor),
            b'K' => self.line.clear(),
            _ => {}
        }
    }

    fn put(&mut self, byte: u8) {
        if self.cursor >= COLUMNS_MAX {
            return;
        }
        if self.line.len() <= self.cursor {
            self.line.resize(self.cursor + 1, b' ');
        }
        if let Some(place) = self.line.get_mut(self.cursor) {
            *place = byte;
        }
        self.cursor += 1;
        self.had_prompt |= self.at_prompt();
    }
}

/// Whether `line` is the echo of `command`, or of its end, where a message came between.
pub(super) fn is_echo(line: &str, command: &str) -> bool {
    line.strip_prefix(PROMPT).map(str::trim_end).is_some_and(|text| !text.is_empty() && command.ends_with(text))
}

/// The lines of the hypervisor's log `log` between the echo of `command` and the next prompt. `nth` tells which echo, from
/// 0 on, where the command was given several times. `None` if the log has no such echo.
pub fn answers(log: &[u8], command: &str, nth: usize) -> Option<Vec<String>> {
    let mut screen = Screen::default();
    let mut lines: Vec<ShownLine> = log.iter().filter_map(|byte| screen.push(*byte)).collect();
    lines.push(screen.current());
    let mut echoes = lines.iter().enumerate().filter(|(_, line)| is_whole_echo(&line.text, command));
    let (echo, _) = echoes.nth(nth)?;
    let after = lines.iter().skip(echo + 1);
    Some(after.take_while(|line| !line.had_prompt).map(|line| line.text.clone()).collect())
}

fn is_whole_echo(line: &str, command: &str) -> bool {
    line.strip_prefix(PROMPT).is_some_and(|text| text.trim_end() == command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(log: &[u8]) -> (Vec<String>, String) {
        let mut screen = Screen::default();
        let lines = log.iter().filter_map(|byte| screen.push(*byte)).map(|line| line.text).collect();
        (lines, screen.current().text)
    }

    #[test]
    fn editing_has_its_effect() {
        let (lines, current) = shown(b"ab\x08c\r\n\x07one\rtwo\x1b[1C!\nxyz\x1b[2D\x1b[K1\n\x1b[2Jrest\r\x1b[K");
        assert_eq!(lines, ["ac", "two !", "x1"]);
        assert_eq!(current, "");
    }

    #[test]
    fn a_prompt_waits_only_where_nothing_follows_it() {
        let mut screen = Screen::default();
        let mut at = |text: &str| {
            text.bytes().for_each(|byte| drop(screen.push(byte)));
            screen.at_prompt()
        };
        assert!(at("partita> "));
        assert!(!at("h"));
        assert!(at("\x08\x1b[K"));
        assert!(!at("\r\nfound partita> "));
        assert!(!at("\r\n> "));
        assert!(at("\r\x1b[Kpartita> "));
    }

    #[test]
    fn answers_are_what_lies_between_echo_and_prompt() {
        let log = b"boot\r\npartita> vcpus\r\nVCPU\r\n0\r\npartita> \rpartita: rt0 ended\r\npartita> vcpus\r\n1\r\nend";
        assert_eq!(answers(log, "vcpus", 0).unwrap(), ["VCPU", "0"]);
        assert_eq!(answers(log, "vcpus", 1).unwrap(), ["1", "end"]);
        assert_eq!(answers(log, "vcpus", 2), None);
        assert_eq!(answers(log, "pus", 0), None);
    }

    #[test]
    fn an_echo_may_be_cut_in_two_by_a_message() {
        assert!(is_echo("partita> exits 2", "exits 2"));
        assert!(is_echo("partita> its 2 ", "exits 2"));
        assert!(!is_echo("partita> ", "exits 2"));
        assert!(!is_echo("partita> exi", "exits 2"));
        assert!(!is_echo("exits 2", "exits 2"));
    }

    proptest! {
        #[test]
        fn any_log_can_be_shown(log in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (lines, current) = shown(&log);
            prop_assert_eq!(lines.len(), log.iter().filter(|byte| **byte == b'\n').count());
            prop_assert!(current.len() <= 3 * COLUMNS_MAX);
            let _ = answers(&log, "x", 0);
        }
    }
}
