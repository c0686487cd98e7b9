//! What stands between the lines `---` at the beginning of a file, with the line of each piece: the part of
//! YAML that agents need. Anchors, aliases, tags and keys that are no text are refused, so that what is read
//! is never larger than the file.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Most pieces.
const NODES_MAX: usize = 4_096;
/// Deepest nesting.
const DEPTH_MAX: usize = 8;
/// The line above and below.
const FENCE: &str = "---";

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Of the file, from 1.
    pub(super) line: u32,
    /// A sentence.
    pub(super) message: String,
}

impl Wrong {
    pub(super) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    /// Of the file, from 1.
    pub(super) line: u32,
    pub(super) node: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Nothing, or the word for it.
    Null,
    Text(String),
    List(Vec<Spot>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Of the key.
    pub(super) line: u32,
    pub(super) key: String,
    pub(super) value: Spot,
}

/// Splits a file into what stands at its beginning, and the text below.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn split(text: &str) -> Result<(Vec<Entry>, &str), Wrong> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().unwrap_or_default();
    if first.trim_end() != FENCE {
        return Err(Wrong::new(1, "the file does not begin with a line `---`"));
    }
    let mut end = first.len();
    for line in lines {
        if line.trim_end() == FENCE {
            let yaml = text.get(first.len()..end).unwrap_or_default();
            let body = text.get(end + line.len()..).unwrap_or_default();
            return Ok((entries(yaml)?, body));
        }
        end += line.len();
    }
    Err(Wrong::new(1, "the line `---` that ends what stands at the beginning is missing"))
}

fn entries(yaml: &str) -> Result<Vec<Entry>, Wrong> {
    let Some(spot) = Reader { parser: Parser::new_from_str(yaml), nodes: 0 }.document()? else {
        return Ok(Vec::new());
    };
    match spot.node {
        Node::Map(entries) => Ok(entries),
        Node::Null => Ok(Vec::new()),
        Node::Text(_) | Node::List(_) => {
            Err(Wrong::new(spot.line, "expected lines of the form `key: value`"))
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    /// The one document, if there is any.
    fn document(&mut self) -> Result<Option<Spot>, Wrong> {
        let mut found = None;
        while let Some((event, line)) = self.next()? {
            match event {
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_)
                | Event::DocumentEnd => {}
                Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => {
                    if found.is_some() {
                        return Err(Wrong::new(line, "there is more than one document"));
                    }
                    found = Some(self.spot(event, line, 0)?);
                }
            }
        }
        Ok(found)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, u32)>, Wrong> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, line_of(&span)))),
            Some(Err(error)) => {
                let line = u32::try_from(error.marker().line()).unwrap_or(u32::MAX);
                Err(Wrong::new(line.saturating_add(1), error.info().to_owned()))
            }
        }
    }

    /// Recursion is as deep as [`DEPTH_MAX`].
    fn spot(&mut self, event: Event<'a>, line: u32, depth: usize) -> Result<Spot, Wrong> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Wrong::new(line, format!("there are more than {NODES_MAX} values")));
        }
        if depth > DEPTH_MAX {
            return Err(Wrong::new(line, "it is nested too deeply"));
        }
        let node = match event {
            Event::Scalar(text, style, 0, None) => scalar(&text, style),
            Event::SequenceStart(0, None) => self.list(line, depth)?,
            Event::MappingStart(0, None) => self.map(line, depth)?,
            Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::MappingStart(..) => {
                let message = "anchors, aliases and tags are not understood";
                return Err(Wrong::new(line, message));
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(Wrong::new(line, "a value is missing")),
        };
        Ok(Spot { line, node })
    }

    fn list(&mut self, line: u32, depth: usize) -> Result<Node, Wrong> {
        let mut items = Vec::new();
        while let Some((event, line)) = self.next()? {
            if matches!(event, Event::SequenceEnd) {
                return Ok(Node::List(items));
            }
            items.push(self.spot(event, line, depth + 1)?);
        }
        Err(Wrong::new(line, "the list does not end"))
    }

    fn map(&mut self, line: u32, depth: usize) -> Result<Node, Wrong> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some((event, line)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                return Ok(Node::Map(entries));
            }
            let Node::Text(key) = self.spot(event, line, depth + 1)?.node else {
                return Err(Wrong::new(line, "a key has to be a text"));
            };
            if entries.iter().any(|entry| entry.key == key) {
                return Err(Wrong::new(line, format!("`{}` stands here twice", shown(&key))));
            }
            let Some((event, at)) = self.next()? else { break };
            let value = self.spot(event, at, depth + 1)?;
            entries.push(Entry { line, key, value });
        }
        Err(Wrong::new(line, "the keys do not end"))
    }
}

/// The line in the file: the fence is above.
fn line_of(span: &Span) -> u32 {
    u32::try_from(span.start.line()).unwrap_or(u32::MAX - 1).saturating_add(1)
}

fn scalar(text: &str, style: ScalarStyle) -> Node {
    let is_plain = matches!(style, ScalarStyle::Plain);
    if is_plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Node::Null;
    }
    Node::Text(text.to_owned())
}

/// A foreign text as it may stand in a message.
pub(super) fn shown(text: &str) -> String {
    let text = text.get(..text.floor_char_boundary(64)).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: u32, text: &str) -> Spot {
        Spot { line, node: Node::Text(text.to_owned()) }
    }

    #[test]
    fn pieces_know_their_lines() {
        let file = "---\nname: a\n# note\ntools: [b, \"c\"]\nlist:\n  - x: 1\n    y: |\n      two\n\
                    none:\n---\n\nBody\n---\n";
        let (entries, body) = split(file).unwrap();
        assert_eq!(body, "\nBody\n---\n");
        let lines: Vec<_> = entries.iter().map(|it| (it.line, it.key.as_str())).collect();
        assert_eq!(lines, [(2, "name"), (4, "tools"), (5, "list"), (9, "none")]);
        assert_eq!(entries[0].value, text(2, "a"));
        assert_eq!(entries[1].value.node, Node::List(vec![text(4, "b"), text(4, "c")]));
        let Node::List(items) = &entries[2].value.node else { panic!("{entries:?}") };
        let Node::Map(inner) = &items[0].node else { panic!("{items:?}") };
        assert_eq!((inner[0].line, inner[1].line, items.len()), (6, 7, 1));
        assert_eq!(inner[1].value.node, Node::Text("two\n".to_owned()));
        assert_eq!(entries[3].value.node, Node::Null);
        assert_eq!(split("---\n---\nBody").unwrap(), (Vec::new(), "Body"));
        assert_eq!(split("\u{feff}---\r\nname: a\r\n---\r\n").unwrap().0[0].value, text(2, "a"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let deep = format!("---\na: {}{}\n---\n", "[".repeat(20), "]".repeat(20));
        let many = format!("---\na: [{}]\n---\n", "1,".repeat(NODES_MAX));
        for (file, line, part) in [
            ("name: a\n", 1, "begin with a line `---`"),
            ("", 1, "begin with a line `---`"),
            ("---\nname: a\n", 1, "is missing"),
            ("---\n- a\n---\n", 2, "`key: value`"),
            ("---\na: 1\nb: 2\na: 3\n---\n", 4, "`a` stands here twice"),
            ("---\na: &x 1\nb: *x\n---\n", 2, "anchors"),
            ("---\na: 1\nb: !!str 2\n---\n", 3, "tags"),
            ("---\na: 1\n? [b]\n: c\n---\n", 3, "a key has to be a text"),
            ("---\na: 1\nb: \"x\n---\n", 0, ""),
            ("---\na: [1, 2\nb: 3\n---\n", 0, ""),
            ("---\na: 1\n\tb: 2\n---\n", 0, ""),
            (&deep, 2, "nested too deeply"),
            (&many, 2, "more than"),
        ] {
            let wrong = split(file).unwrap_err();
            assert!(wrong.message.contains(part), "{file}: {wrong:?}");
            assert!(line == 0 && (2..=5).contains(&wrong.line) || wrong.line == line, "{wrong:?}");
        }
    }

    #[test]
    fn nothing_makes_it_panic_or_hang() {
        let mut random = fastrand::Rng::with_seed(7);
        let pieces = [
            "---\n",
            "a: ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            "\"",
            "'",
            "&a ",
            "*a",
            "|\n",
            ">",
            "\n",
            "  ",
            "\t",
            "#",
            ":",
            "?",
            ",",
            "!!x ",
            "é",
            "\r\n",
            "...\n",
            "%YAML 1.2\n",
            "~",
        ];
        for _ in 0..2_000 {
            let count = random.usize(..40);
            let file: String = (0..count).map(|_| pieces[random.usize(..pieces.len())]).collect();
            drop(split(&format!("---\n{file}\n---\n")));
        }
    }
}
