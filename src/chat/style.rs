//! What makes a line of a terminal stand out, where it may: nothing where the output is no terminal or
//! `NO_COLOR` is set.

use crate::remote::text::visible;

/// How a tab is shown.
const TAB: &str = "    ";

/// Whether lines may have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) is_on: bool,
}

impl Style {
    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn italic(self, text: &str) -> String {
        self.paint("3", text)
    }

    pub(super) fn underlined(self, text: &str) -> String {
        self.paint("1;4", text)
    }

    /// Of code, and of names of tools.
    pub(super) fn code(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// Of what waits for an answer.
    pub(super) fn question(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Of what went wrong.
    pub(super) fn failure(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.is_on && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// One line of what others wrote, with nothing in it that a terminal would obey.
pub(super) fn clean(line: &str) -> String {
    visible(&line.trim_end_matches('\r').replace('\t', TAB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_reaches_the_terminal_but_text() {
        assert_eq!(clean("\ta\u{1b}]0;title\u{7}b\r"), "    a\\u{1b}]0;title\\u{7}b");
        assert_eq!(clean("\u{9b}2J\u{202e}x"), "\\u{9b}2J\\u{202e}x");
    }

    #[test]
    fn without_colours_a_line_is_its_text() {
        assert_eq!(Style { is_on: false }.bold("a"), "a");
        assert_eq!(Style { is_on: true }.bold("a"), "\u{1b}[1ma\u{1b}[0m");
    }
}
