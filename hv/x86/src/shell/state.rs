//! What the console remembers between two bytes.

use core::fmt::Write;

use partita_console::line::{LineEditor, PROMPT};

use crate::console::Echo;

/// The state of the console.
#[derive(Debug)]
pub struct Shell {
    pub(super) editor: LineEditor,
    /// Whether someone is there: from the start if the command line says so, else from the first byte on.
    pub(super) is_attended: bool,
    /// Whether the line has a beginning already.
    pub(super) has_text: bool,
    /// Whether the run is to end.
    pub quits: bool,
}

impl Shell {
    /// A console; `is_attended` says whether it prompts at once.
    pub const fn new(is_attended: bool) -> Self {
        Self { editor: LineEditor::new(), is_attended, has_text: false, quits: false }
    }

    /// Shows prompt and line, unless they are still there.
    pub(super) fn prompt(&self) {
        let mut echo = Echo;
        if !self.is_attended || self.quits || echo.is_typing() {
            return;
        }
        // The serial port cannot fail.
        let _ = if self.has_text { self.editor.redraw(&mut echo) } else { echo.write_str(PROMPT) };
        echo.set_typing(true);
    }
}
