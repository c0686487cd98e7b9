//! The strict reader: lines in which every word is literal, and nothing else.
//!
//! It knows words, lists, pipelines, groups, `if`, `while`, redirections and here-documents. It says
//! nothing about a line with anything more, and does not check that groups are closed: it is the
//! second opinion on where commands begin and which words they have.

use crate::flat::{Flat, Redirect, Simple, is_assignment};
use crate::quote::RESERVED;
use crate::word::{self, Word};

/// Reserved words after which a command is still expected.
const SKIPPED: &[&str] =
    &["!", "{", "}", "if", "then", "elif", "else", "fi", "while", "until", "do", "done"];

/// Operators, longest first.
const OPERATORS: &[&str] = &[
    "&>>", "<<-", "<<<", "&&", "||", "|&", "&>", ">>", ">&", ">|", "<<", "<&", "<>", ";", "&", "|",
    "(", ")", ">", "<",
];

/// Most digits of a file descriptor; bash takes a number that is too large for a word.
const DESCRIPTOR_DIGITS_MAX: usize = 4;

/// Reads `text`; `None` when it has anything that this reader does not know.
pub(crate) fn read(text: &str) -> Option<Flat> {
    let mut reader =
        Reader { text, at: 0, flat: Flat::default(), current: None, documents: vec![] };
    while reader.step()? {}
    reader.end_command();
    reader.documents.is_empty().then_some(reader.flat)
}

/// The literal words of `text`; `None` when it is anything but literal words.
pub(crate) fn words(text: &str) -> Option<Vec<Word>> {
    let mut flat = read(text)?;
    let command = flat.commands.pop()?;
    let is_one =
        flat.commands.is_empty() && flat.redirects.is_empty() && command.assignments.is_empty();
    is_one.then_some(command.words)
}

struct Reader<'a> {
    text: &'a str,
    /// How far it has read, in bytes.
    at: usize,
    flat: Flat,
    current: Option<Simple>,
    /// Here-documents whose bodies follow the next newline.
    documents: Vec<Document>,
}

struct Document {
    delimiter: String,
    is_quoted: bool,
    strips_tabs: bool,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Reads one token; `Some(false)` at the end.
    fn step(&mut self) -> Option<bool> {
        self.skip_blanks();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Some(false) };
        if first == '#' {
            self.at += rest.find('\n').unwrap_or(rest.len());
            return Some(true);
        }
        if first == '\n' {
            self.at += 1;
            self.end_command();
            self.read_documents()?;
            return Some(true);
        }
        if let Some(operator) = self.operator() {
            self.at += operator.len();
            return self.apply(operator, self.at - operator.len());
        }
        self.word()
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
            if blanks > 0 {
                self.at += blanks;
            } else if rest.starts_with("\\\n") {
                self.at += 2;
            } else {
                return;
            }
        }
    }

    fn operator(&self) -> Option<&'static str> {
        OPERATORS.iter().find(|operator| self.rest().starts_with(**operator)).copied()
    }

    fn apply(&mut self, operator: &'static str, start: usize) -> Option<bool> {
        match operator {
            ";" | "&" | "&&" | "||" | "|" | "|&" | ")" => self.end_command(),
            // After a word it would begin a function.
            "(" if self.current.is_none() && !self.rest().starts_with('(') => {}
            "(" => return None,
            "<<" | "<<-" => {
                self.skip_blanks();
                let (delimiter, len) = word::scan(self.rest()).ok()?;
                let raw = self.rest().get(..len)?;
                let is_quoted = raw.contains(['\'', '"', '\\']);
                if raw.is_empty() || raw.contains('\n') {
                    return None;
                }
                self.at += len;
                let strips_tabs = operator == "<<-";
                self.documents.push(Document { delimiter, is_quoted, strips_tabs });
                self.open(start);
            }
            "<<<" => {
                self.target()?;
                self.open(start);
            }
            operator => {
                let target = self.target()?;
                self.open(start);
                self.flat.redirects.push(Redirect {
                    at: start,
                    operator: operator.to_owned(),
                    target,
                });
            }
        }
        Some(true)
    }

    /// The word after a redirection.
    fn target(&mut self) -> Option<Word> {
        self.skip_blanks();
        if self.rest().starts_with('#') {
            return None;
        }
        let (value, len) = word::scan(self.rest()).ok()?;
        let raw = self.rest().get(..len)?.to_owned();
        self.at += len;
        (len > 0).then_some(Word { value: Ok(value), raw })
    }

    /// Starts a command at `start` unless there is one.
    fn open(&mut self, start: usize) -> &mut Simple {
        self.current.get_or_insert_with(|| Simple { at: start, ..Simple::default() })
    }

    fn end_command(&mut self) {
        let command = self.current.take();
        let is_more =
            |command: &Simple| !command.words.is_empty() || !command.assignments.is_empty();
        self.flat.commands.extend(command.filter(is_more));
    }

    fn word(&mut self) -> Option<bool> {
        let start = self.at;
        let (value, len) = word::scan(self.rest()).ok()?;
        let raw = self.rest().get(..len)?.to_owned();
        if len == 0 {
            return None;
        }
        self.at += len;
        if self.rest().starts_with(['<', '>']) {
            if raw.len() > DESCRIPTOR_DIGITS_MAX && raw.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            if raw.bytes().all(|byte| byte.is_ascii_digit()) {
                // The number of a file descriptor; which one makes no difference to a file.
                return Some(true);
            }
            if raw.starts_with('{') {
                return None;
            }
        }
        let expects_name = self.current.as_ref().is_none_or(|command| command.words.is_empty());
        if self.current.is_none() && SKIPPED.contains(&raw.as_str()) {
            return Some(true);
        }
        if expects_name && RESERVED.contains(&raw.as_str()) {
            return None;
        }
        let command = self.open(start);
        if expects_name && is_assignment(&raw) {
            command.assignments.push(raw);
        } else {
            command.words.push(Word { value: Ok(value), raw });
        }
        Some(true)
    }

    /// Reads the bodies of the here-documents that were announced.
    fn read_documents(&mut self) -> Option<()> {
        for document in std::mem::take(&mut self.documents) {
            loop {
                let rest = self.rest();
                let (line, is_last) = match rest.split_once('\n') {
                    Some((line, _)) => (line, false),
                    None => (rest, true),
                };
                let text = if document.strips_tabs { line.trim_start_matches('\t') } else { line };
                let is_end = text == document.delimiter;
                if !is_end && (is_last || !document.is_quoted && line.contains(['$', '`', '\\'])) {
                    return None;
                }
                self.at += line.len() + usize::from(!is_last);
                if is_end {
                    break;
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<Vec<String>> {
        let commands = read(text)?.commands.into_iter();
        let join = |command: Simple| {
            let words = command.words.into_iter().filter_map(|word| word.value.ok());
            words.collect::<Vec<_>>().join("_")
        };
        Some(commands.map(join).collect())
    }

    #[test]
    fn commands_are_found_behind_every_operator() {
        let text = "a 1;b&c&&d||e|f|&g\nh # no\n(i;{ j; })\n! k; if l; then m; else n; fi >o p";
        let expected =
            ["a_1", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "p"];
        assert_eq!(names(text), Some(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn words_behind_a_redirection_belong_to_the_command() {
        let text = ">x rm 2>/dev/null -rf <y z";
        assert_eq!(names(text), Some(vec!["rm_-rf_z".to_owned()]));
        let redirects = read(text).map(|flat| flat.redirects);
        let found: Vec<_> = redirects
            .iter()
            .flatten()
            .map(|redirect| (redirect.operator.as_str(), redirect.target.raw.as_str()))
            .collect();
        assert_eq!(found, [(">", "x"), (">", "/dev/null"), ("<", "y")]);
    }

    #[test]
    fn here_documents_hide_no_command() {
        assert_eq!(
            names("cat <<E | a\nrm x\nE\nb <<-'F'\n$(x)\n\tF\nc"),
            Some(["cat", "a", "b", "c"].map(str::to_owned).to_vec())
        );
        assert_eq!(names("cat <<E\n$(x)\nE"), None);
        assert_eq!(names("cat <<E\nx"), None);
        assert_eq!(names("cat <<E"), None);
    }

    #[test]
    fn nothing_is_said_about_the_rest() {
        for text in [
            "f() { a; }",
            "case x in y) a;; esac",
            "for i in a; do b; done",
            "((x))",
            "[[ a ]]",
            "a $(b)",
            "a <(b)",
            "{fd}>x",
            "a >",
            "a > # b",
            "coproc a",
            "function f { a; }",
            "'a",
        ] {
            assert_eq!(names(text), None, "{text}");
        }
    }
}
