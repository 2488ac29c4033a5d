//! A line of ASCII and a cursor in it, kept as two stacks that meet at the cursor: no operation needs an index.

use heapless::String;

use super::LINE_MAX;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SplitLine {
    left: String<LINE_MAX>,
    /// Backwards: the character at the cursor is the last one.
    right_reversed: String<LINE_MAX>,
}

impl SplitLine {
    pub(super) const fn new() -> Self {
        Self { left: String::new(), right_reversed: String::new() }
    }

    /// A line with the cursor at its end; cut if it is too long.
    pub(super) fn from_text(text: &str) -> Self {
        let mut line = Self::new();
        text.chars().for_each(|character| line.insert(character));
        line
    }

    /// What is left of the cursor.
    pub(super) fn left(&self) -> &str {
        self.left.as_str()
    }

    /// What is at the cursor and right of it.
    pub(super) fn right(&self) -> impl Iterator<Item = char> + '_ {
        self.right_reversed.chars().rev()
    }

    pub(super) fn len(&self) -> usize {
        self.left.len() + self.right_reversed.len()
    }

    pub(super) fn cursor(&self) -> usize {
        self.left.len()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.right_reversed.is_empty()
    }

    /// Puts an ASCII character in at the cursor, which stays behind it. In a full line, nothing happens.
    pub(super) fn insert(&mut self, character: char) {
        debug_assert!(character.is_ascii());
        if self.len() < LINE_MAX {
            // It fits: one byte, and both stacks together hold fewer than one may.
            let _ = self.left.push(character);
        }
    }

    pub(super) fn step_left(&mut self) {
        if let Some(character) = self.left.pop() {
            let _ = self.right_reversed.push(character);
        }
    }

    pub(super) fn step_right(&mut self) {
        if let Some(character) = self.right_reversed.pop() {
            let _ = self.left.push(character);
        }
    }

    pub(super) fn home(&mut self) {
        while !self.left.is_empty() {
            self.step_left();
        }
    }

    pub(super) fn end(&mut self) {
        while !self.is_at_end() {
            self.step_right();
        }
    }

    pub(super) fn delete_left(&mut self) {
        self.left.pop();
    }

    pub(super) fn delete_right(&mut self) {
        self.right_reversed.pop();
    }

    pub(super) fn delete_to_beginning(&mut self) {
        self.left.clear();
    }

    pub(super) fn delete_to_end(&mut self) {
        self.right_reversed.clear();
    }

    /// Deletes the spaces before the cursor and the word before them.
    pub(super) fn delete_word(&mut self) {
        while self.left.ends_with(' ') {
            self.left.pop();
        }
        while !self.left.is_empty() && !self.left.ends_with(' ') {
            self.left.pop();
        }
    }
}
