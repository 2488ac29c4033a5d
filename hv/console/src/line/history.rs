//! The lines entered before, and the way back to what was being typed.

use heapless::{Deque, String};

use super::split_line::SplitLine;
use super::{HISTORY_LINES, LINE_MAX};

#[derive(Debug)]
pub(super) struct History {
    /// The oldest first.
    lines: Deque<String<LINE_MAX>, HISTORY_LINES>,
    /// How many lines back the shown line is; 0 for the one being typed.
    back: usize,
    /// What was being typed when an earlier line was asked for.
    draft: SplitLine,
}

impl History {
    pub(super) const fn new() -> Self {
        Self { lines: Deque::new(), back: 0, draft: SplitLine::new() }
    }

    /// Remembers an entered line, unless it is blank or the same as the one before.
    pub(super) fn remember(&mut self, line: &str) {
        self.leave();
        if line.trim_ascii().is_empty() || self.lines.back().is_some_and(|last| last == line) {
            return;
        }
        if self.lines.is_full() {
            self.lines.pop_front();
        }
        // Neither fails: there is room, and no line is longer than the longest.
        if let Ok(line) = String::try_from(line) {
            let _ = self.lines.push_back(line);
        }
    }

    /// Goes back to the line being typed, which the caller forgets.
    pub(super) fn leave(&mut self) {
        self.back = 0;
        self.draft = SplitLine::new();
    }

    /// The line before the shown one; none if there is no earlier one. `shown` is kept if it is the one being typed.
    pub(super) fn earlier(&mut self, shown: &SplitLine) -> Option<SplitLine> {
        let line = self.get(self.back + 1)?;
        if self.back == 0 {
            self.draft = shown.clone();
        }
        self.back += 1;
        Some(line)
    }

    /// The line after the shown one, the last of which is the one being typed; none after that.
    pub(super) fn later(&mut self, _shown: &SplitLine) -> Option<SplitLine> {
        self.back = self.back.checked_sub(1)?;
        if self.back == 0 { Some(core::mem::take(&mut self.draft)) } else { self.get(self.back) }
    }

    fn get(&self, back: usize) -> Option<SplitLine> {
        self.lines.iter().rev().nth(back.checked_sub(1)?).map(|line| SplitLine::from_text(line))
    }
}
