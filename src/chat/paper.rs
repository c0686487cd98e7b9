//! What is said, as lines: text that streams is cut into them as they come to their ends.

use iris_protocol::{PartId, StreamKind};

use super::markdown::Markdown;
use super::style::{Style, clean};

/// Something to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Show {
    /// Lines of their own.
    Lines(Ink, String),
    /// More of a text: cut it at `offset`, then append `delta`.
    Text {
        /// Who says it.
        speaker: String,
        /// The text.
        part: PartId,
        /// Said or thought.
        kind: StreamKind,
        /// Bytes of it that stay.
        offset: u64,
        /// What follows them.
        delta: String,
    },
    /// Nothing follows the text that was said last.
    End,
}

/// How a line stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// As text.
    Plain,
    /// Who speaks.
    Name,
    /// Beside the conversation.
    Note,
    /// What tools and sub-agents do.
    Tool,
    /// What waits for an answer.
    Question,
    /// What went wrong.
    Failure,
}

/// The text at the end of what is shown.
#[derive(Debug)]
struct Open {
    part: PartId,
    kind: StreamKind,
    /// Bytes of it that were taken.
    bytes: u64,
    /// Its last line, which has not ended.
    line: String,
    markdown: Markdown,
}

/// Makes lines of what is shown.
#[derive(Debug)]
pub(super) struct Paper {
    style: Style,
    open: Option<Open>,
}

impl Paper {
    pub(super) fn new(style: Style) -> Self {
        Self { style, open: None }
    }

    /// The lines that are whole now.
    pub(super) fn put(&mut self, show: &Show) -> Vec<String> {
        match show {
            Show::End => self.end(),
            Show::Lines(ink, text) => {
                let mut lines = self.end();
                lines.extend(text.lines().map(|line| self.ink(*ink, &clean(line))));
                lines
            }
            Show::Text { speaker, part, kind, offset, delta } => {
                let continues = self
                    .open
                    .as_ref()
                    .is_some_and(|open| open.part == *part && open.bytes == *offset);
                let mut lines = Vec::new();
                if !continues {
                    lines = self.begin(speaker, part, *kind, *offset);
                }
                lines.extend(self.more(delta));
                lines
            }
        }
    }

    /// The line that has not ended.
    pub(super) fn unfinished(&self) -> Option<String> {
        let open = self.open.as_ref().filter(|open| !open.line.is_empty())?;
        Some(clean(&open.line))
    }

    /// The same as a line: nothing follows it.
    pub(super) fn end(&mut self) -> Vec<String> {
        let Some(mut open) = self.open.take() else { return Vec::new() };
        if open.line.is_empty() {
            return Vec::new();
        }
        let line = std::mem::take(&mut open.line);
        vec![render(&mut open, &line, self.style)]
    }

    fn begin(
        &mut self,
        speaker: &str,
        part: &PartId,
        kind: StreamKind,
        offset: u64,
    ) -> Vec<String> {
        let starts_over = self.open.as_ref().is_some_and(|open| open.part == *part);
        let mut lines = self.end();
        let how = match kind {
            StreamKind::Text => "",
            StreamKind::Reasoning => " thinks",
        };
        lines.push(self.ink(Ink::Name, &format!("{}{how}:", clean(speaker))));
        if starts_over && offset == 0 {
            lines.push(self.ink(Ink::Note, "[it starts over]"));
        } else if offset > 0 {
            lines.push(self.ink(Ink::Note, "[...]"));
        }
        self.open = Some(Open {
            part: part.clone(),
            kind,
            bytes: offset,
            line: String::new(),
            markdown: Markdown::default(),
        });
        lines
    }

    fn more(&mut self, delta: &str) -> Vec<String> {
        let Some(open) = &mut self.open else { return Vec::new() };
        open.bytes += delta.len() as u64;
        open.line.push_str(delta);
        let Some(end) = open.line.rfind('\n') else { return Vec::new() };
        let rest = open.line.split_off(end + 1);
        let whole = std::mem::replace(&mut open.line, rest);
        whole.split_terminator('\n').map(|line| render(open, line, self.style)).collect()
    }

    fn ink(&self, ink: Ink, line: &str) -> String {
        let style = self.style;
        match ink {
            Ink::Plain => line.to_owned(),
            Ink::Name => style.bold(line),
            Ink::Note => style.faint(line),
            Ink::Tool => style.code(line),
            Ink::Question => style.question(line),
            Ink::Failure => style.failure(line),
        }
    }
}

fn render(open: &mut Open, line: &str, style: Style) -> String {
    match open.kind {
        StreamKind::Text => open.markdown.line(line, style),
        StreamKind::Reasoning => style.faint(&clean(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: u64, offset: u64, delta: &str) -> Show {
        Show::Text {
            speaker: "default".to_owned(),
            part: PartId::from_bits(n.into()),
            kind: StreamKind::Text,
            offset,
            delta: delta.to_owned(),
        }
    }

    fn note(text: &str) -> Show {
        Show::Lines(Ink::Note, text.to_owned())
    }

    #[test]
    fn pieces_become_the_lines_that_they_are_pieces_of() {
        let mut paper = Paper::new(Style { is_on: false });
        assert_eq!(paper.put(&text(1, 0, "one\ntw")), ["default:", "one"]);
        assert_eq!(paper.unfinished().as_deref(), Some("tw"));
        assert_eq!(paper.put(&text(1, 6, "o\n\nth")), ["two", ""]);
        assert_eq!(paper.put(&note("a\nb")), ["th", "a", "b"]);
        // Where something came in between, it says where it goes on.
        assert_eq!(paper.put(&text(1, 11, "ree")), ["default:", "[...]"]);
        assert_eq!(paper.put(&text(1, 0, "once more")), ["ree", "default:", "[it starts over]"]);
        assert_eq!(paper.end(), ["once more"]);
        assert_eq!((paper.end(), paper.unfinished()), (Vec::new(), None));
    }

    #[test]
    fn what_is_not_whole_is_as_harmless_as_the_rest() {
        let mut paper = Paper::new(Style { is_on: true });
        paper.put(&text(1, 0, "a\u{1b}"));
        paper.put(&text(1, 2, "[2J"));
        assert_eq!(paper.unfinished().as_deref(), Some("a\\u{1b}[2J"));
        assert_eq!(paper.put(&text(1, 5, "\n")), ["a\\u{1b}[2J"]);
    }
}
