//! The terminal of a chat: what was said scrolls by, and below it stand the line that is being said, what
//! goes on, and the line that is being typed.

use std::io::{self, Write};

use ratatui::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode, size};
use unicode_width::UnicodeWidthChar;

use super::editor::Editor;
use super::style::{Style, clean};

/// Where a terminal does not say how large it is.
const SIZE_DEFAULT: (u16, u16) = (80, 24);
/// Stands for the end of a line in what is typed.
const LINE_END: char = '⏎';

/// What stands below what was said.
pub(super) struct Below<'a> {
    /// The line that is being said.
    pub(super) unfinished: Option<String>,
    /// What goes on; nothing when empty.
    pub(super) status: String,
    /// Before what is typed.
    pub(super) prompt: &'a str,
    pub(super) editor: &'a Editor,
}

/// The terminal, in raw mode until it is dropped.
pub(super) struct Screen {
    style: Style,
    /// Rows above the one with the cursor that belong to what stands below.
    rows_above: usize,
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing is left to be done about a terminal that is gone.
        drop(write!(io::stdout(), "{}", self.erase()));
        execute!(io::stdout(), DisableBracketedPaste).ok();
        disable_raw_mode().ok();
    }
}

impl Screen {
    pub(super) fn open(style: Style) -> io::Result<Self> {
        enable_raw_mode()?;
        let screen = Self { style, rows_above: 0 };
        execute!(io::stdout(), EnableBracketedPaste)?;
        Ok(screen)
    }

    /// Adds lines to what was said, and draws what stands below anew.
    pub(super) fn draw(&mut self, lines: &[String], below: &Below<'_>) -> io::Result<()> {
        let mut text = self.erase();
        for line in lines {
            text.push_str(line);
            text.push_str("\r\n");
        }
        let (columns, rows) = self.rows(below);
        self.rows_above = rows.len() - 1;
        text.push_str(&rows.join("\r\n"));
        // To where the next character is typed.
        let to_cursor = format!("\r\u{1b}[{columns}C");
        text.push_str(&to_cursor);
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn erase(&self) -> String {
        let up = self.rows_above;
        let up = if up > 0 { format!("\u{1b}[{up}A") } else { String::new() };
        format!("\r{up}\u{1b}[J")
    }

    /// The rows of what stands below, and the column of the cursor in the last one.
    fn rows(&self, below: &Below<'_>) -> (usize, Vec<String>) {
        let (width, height) = match size() {
            Ok((width, height)) if width > 0 && height > 0 => (width, height),
            Ok(_) | Err(_) => SIZE_DEFAULT,
        };
        let (width, height) = (usize::from(width), usize::from(height));
        let mut rows = below.unfinished.as_ref().map_or_else(Vec::new, |line| wrap(line, width));
        // The rest stands above, out of sight.
        let hidden = rows.len().saturating_sub(height.saturating_sub(3).max(1));
        rows.drain(..hidden);
        if !below.status.is_empty() {
            rows.push(self.style.faint(&cut(&clean(&below.status), width)));
        }
        let (column, typed) = typed(below.prompt, below.editor, width);
        rows.push(typed);
        (column, rows)
    }
}

/// The prompt and as much of what is typed around the cursor as there is room for, and the column of the
/// cursor.
fn typed(prompt: &str, editor: &Editor, width: usize) -> (usize, String) {
    let (before, behind) = editor.halves();
    let show = |text: &str| clean(&text.replace('\n', &LINE_END.to_string()));
    let room = width.saturating_sub(columns(prompt) + 1);
    let before = last_columns(&show(before), room);
    let column = columns(prompt) + columns(&before);
    let behind = cut(&show(behind), room.saturating_sub(columns(&before)));
    (column, format!("{prompt}{before}{behind}"))
}

fn columns(text: &str) -> usize {
    text.chars().filter_map(UnicodeWidthChar::width).sum()
}

/// The text in rows of at most so many columns.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut rows, mut row, mut used) = (Vec::new(), String::new(), 0);
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > width && !row.is_empty() {
            rows.push(std::mem::take(&mut row));
            used = 0;
        }
        row.push(c);
        used += wide;
    }
    rows.push(row);
    rows
}

/// As much of the beginning as fits.
fn cut(text: &str, width: usize) -> String {
    wrap(text, width.max(1)).into_iter().next().filter(|_| width > 0).unwrap_or_default()
}

/// As much of the end as fits.
fn last_columns(text: &str, width: usize) -> String {
    let mut used = 0;
    let end = text.chars().rev().take_while(|c| {
        used += c.width().unwrap_or(0);
        used <= width
    });
    let end: Vec<char> = end.collect();
    end.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyCode;

    use super::*;

    #[test]
    fn rows_are_as_wide_as_the_terminal() {
        assert_eq!(wrap("abcde", 2), ["ab", "cd", "e"]);
        assert_eq!(wrap("日本語", 5), ["日本", "語"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!((cut("日本語", 3), cut("a", 0)), ("日".to_owned(), String::new()));
        assert_eq!(last_columns("a日本", 3), "本");
    }

    #[test]
    fn what_is_typed_is_shown_around_the_cursor() {
        let mut editor = Editor::default();
        editor.paste("one\ntwo\u{1b}three");
        let shown = "one⏎two\\u{1b}three";
        assert_eq!(typed("> ", &editor, 80), (2 + columns(shown), format!("> {shown}")));
        for _ in 0..3 {
            editor.key(KeyCode::Left.into());
        }
        assert_eq!(typed("> ", &editor, 9), (8, "> {1b}th".to_owned()));
    }
}
