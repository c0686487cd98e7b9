//! The line that is being typed.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Lines that can be called back.
const HISTORY_MAX: usize = 200;
/// Longest text, in bytes: what a server takes in one message is less.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// What a key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// The text is another, or nothing is.
    Edited,
    /// This is to be taken.
    Line(String),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D with nothing typed.
    End,
}

/// A text, where the cursor is in it, and what was typed before.
#[derive(Debug, Default)]
pub(super) struct Editor {
    text: String,
    /// Bytes before the cursor.
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown; none for the one that is new.
    recalled: Option<usize>,
}

impl Editor {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text before and behind the cursor.
    pub(super) fn halves(&self) -> (&str, &str) {
        self.text.split_at_checked(self.cursor).unwrap_or((&self.text, ""))
    }

    /// Takes the text away.
    pub(super) fn clear(&mut self) {
        self.set(String::new());
    }

    /// Gives a text back that could not be sent, unless something else was typed since.
    pub(super) fn give_back(&mut self, text: String) {
        if self.text.is_empty() {
            self.set(text);
        }
    }

    /// Puts in what was pasted.
    pub(super) fn paste(&mut self, text: &str) {
        self.insert(&text.replace("\r\n", "\n").replace('\r', "\n"));
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing")]
    pub(super) fn key(&mut self, key: KeyEvent) -> Typed {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        let is_alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Char('c') if is_control => return Typed::Interrupt,
            KeyCode::Char('d') if is_control && self.text.is_empty() => return Typed::End,
            KeyCode::Char('d') if is_control => self.delete(),
            KeyCode::Char('a') if is_control => self.cursor = 0,
            KeyCode::Char('e') if is_control => self.cursor = self.text.len(),
            KeyCode::Char('u') if is_control => self.cut_to(0),
            KeyCode::Char('k') if is_control => self.text.truncate(self.cursor),
            KeyCode::Char('w') if is_control => self.cut_to(self.word_start()),
            KeyCode::Enter if is_alt => self.insert("\n"),
            KeyCode::Char('j') if is_control => self.insert("\n"),
            KeyCode::Enter => return self.take(),
            KeyCode::Char(c) if !is_control && !is_alt => self.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Backspace => self.cut_to(self.before()),
            KeyCode::Delete => self.delete(),
            KeyCode::Left => self.cursor = self.before(),
            KeyCode::Right => self.cursor = self.after(),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            KeyCode::Up => self.recall(true),
            KeyCode::Down => self.recall(false),
            _ => {}
        }
        Typed::Edited
    }

    fn set(&mut self, text: String) {
        self.cursor = text.len();
        self.text = text;
    }

    fn take(&mut self) -> Typed {
        let line = std::mem::take(&mut self.text);
        (self.cursor, self.recalled) = (0, None);
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            if self.history.len() == HISTORY_MAX {
                self.history.remove(0);
            }
            self.history.push(line.clone());
        }
        Typed::Line(line)
    }

    fn insert(&mut self, text: &str) {
        if self.text.len() + text.len() <= TEXT_BYTES_MAX {
            self.text.insert_str(self.cursor, text);
            self.cursor += text.len();
        }
    }

    /// Removes what is between a place and the cursor behind it.
    fn cut_to(&mut self, start: usize) {
        self.text.drain(start..self.cursor);
        self.cursor = start;
    }

    fn delete(&mut self) {
        let after = self.after();
        self.text.drain(self.cursor..after);
    }

    /// The place before the character before the cursor.
    fn before(&self) -> usize {
        let last = self.halves().0.chars().next_back();
        self.cursor - last.map_or(0, char::len_utf8)
    }

    /// The place behind the character behind the cursor.
    fn after(&self) -> usize {
        let next = self.halves().1.chars().next();
        self.cursor + next.map_or(0, char::len_utf8)
    }

    /// Where the word before the cursor begins.
    fn word_start(&self) -> usize {
        let before = self.halves().0.trim_end();
        before.rfind(char::is_whitespace).map_or(0, |space| {
            space
                + before.get(space..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
        })
    }

    fn recall(&mut self, is_back: bool) {
        let at = self.recalled.unwrap_or(self.history.len());
        let to = if is_back { at.saturating_sub(1) } else { at.saturating_add(1) };
        match self.history.get(to).cloned() {
            Some(line) => {
                self.set(line);
                self.recalled = Some(to);
            }
            None if !is_back => {
                self.clear();
                self.recalled = None;
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(editor: &mut Editor, text: &str) {
        for c in text.chars() {
            editor.key(KeyCode::Char(c).into());
        }
    }

    fn control(editor: &mut Editor, c: char) -> Typed {
        editor.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    #[test]
    fn a_line_is_edited_before_it_is_taken() {
        let mut editor = Editor::default();
        typed(&mut editor, "one twö thre");
        editor.key(KeyCode::Left.into());
        editor.key(KeyCode::Left.into());
        editor.key(KeyCode::Delete.into());
        editor.key(KeyCode::Backspace.into());
        typed(&mut editor, "X");
        assert_eq!(editor.halves(), ("one twö tX", "e"));
        control(&mut editor, 'k');
        control(&mut editor, 'w');
        assert_eq!(editor.text(), "one twö ");
        control(&mut editor, 'w');
        assert_eq!(editor.text(), "one ");
        control(&mut editor, 'a');
        typed(&mut editor, ">");
        control(&mut editor, 'e');
        editor.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::ALT));
        editor.paste("a\r\nb");
        assert_eq!(editor.key(KeyCode::Enter.into()), Typed::Line(">one \na\nb".to_owned()));
        assert_eq!(editor.text(), "");
        assert_eq!(control(&mut editor, 'd'), Typed::End);
        assert_eq!(control(&mut editor, 'c'), Typed::Interrupt);
    }

    #[test]
    fn lines_before_are_called_back() {
        let mut editor = Editor::default();
        for line in ["a", "b", "b", ""] {
            typed(&mut editor, line);
            editor.key(KeyCode::Enter.into());
        }
        let mut seen = Vec::new();
        for key in [KeyCode::Up, KeyCode::Up, KeyCode::Up, KeyCode::Down, KeyCode::Down] {
            editor.key(key.into());
            seen.push(editor.text().to_owned());
        }
        assert_eq!(seen, ["b", "a", "a", "b", ""]);
        editor.give_back("lost".to_owned());
        assert_eq!(editor.text(), "lost");
        editor.give_back("other".to_owned());
        assert_eq!(editor.text(), "lost");
    }
}
