//! What stands before a console's line on the terminal.

use super::console::Shown;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// The colours of the consoles, in their order. The hypervisor's is the first.
const COLOURS: [AnsiColor; 6] =
    [AnsiColor::BrightBlack, AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue];

/// Tells consoles apart: each line has the console's name before it, in a colour of its own where there are colours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Painter {
    has_colours: bool,
}

impl Painter {
    /// For standard output: with colours only on a terminal that has them, and unless the environment says no (`NO_COLOR`).
    pub(super) fn of_stdout() -> Self {
        Self { has_colours: AutoStream::choice(&std::io::stdout()) != ColorChoice::Never }
    }

    /// A line as it is printed.
    pub(super) fn line(self, shown: &Shown) -> String {
        let Shown { console, name, text } = shown;
        let colour = COLOURS.get(console % COLOURS.len()).copied().filter(|_| self.has_colours);
        let style = colour.map(|colour| Style::new().fg_color(Some(colour.into()))).unwrap_or_default();
        format!("{style}[{name}]{style:#} {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_console_has_its_name_and_a_colour_of_its_own() {
        let line = |has_colours, console: usize| {
            Painter { has_colours }.line(&Shown { console, name: "rt0".into(), text: "hello".into() })
        };
        assert_eq!(line(false, 1), "[rt0] hello");
        assert_eq!(line(true, 1), "\u{1b}[36m[rt0]\u{1b}[0m hello");
        let all: std::collections::BTreeSet<String> = (0..4).map(|console| line(true, console)).collect();
        assert_eq!(all.len(), 4);
    }
}
