//! A command line without its structure: what both readers are compared by.

use crate::word::Word;

/// The simple commands and redirections of a line, each in the order of the text.
#[derive(Debug, Default)]
pub(crate) struct Flat {
    pub(crate) commands: Vec<Simple>,
    pub(crate) redirects: Vec<Redirect>,
}

/// One simple command, without its redirections.
#[derive(Debug, Default)]
pub(crate) struct Simple {
    /// Where it starts, in bytes.
    pub(crate) at: usize,
    /// What stands before its name, as `name=value` with its quotes.
    pub(crate) assignments: Vec<String>,
    /// Its name and arguments; empty when it only sets variables.
    pub(crate) words: Vec<Word>,
}

/// One redirection to or from a file or a file descriptor.
#[derive(Debug)]
pub(crate) struct Redirect {
    /// Where it starts, in bytes.
    pub(crate) at: usize,
    /// The operator, without the number of the file descriptor.
    pub(crate) operator: String,
    /// What follows it.
    pub(crate) target: Word,
}

impl Flat {
    /// Whether both mean the same commands and redirections.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let same_commands = |(one, other): (&Simple, &Simple)| {
            one.assignments == other.assignments && same_words(&one.words, &other.words)
        };
        let same_redirects = |(one, other): (&Redirect, &Redirect)| {
            one.operator == other.operator && one.target.value == other.target.value
        };
        self.commands.len() == other.commands.len()
            && self.redirects.len() == other.redirects.len()
            && self.commands.iter().zip(&other.commands).all(same_commands)
            && self.redirects.iter().zip(&other.redirects).all(same_redirects)
    }
}

fn same_words(one: &[Word], other: &[Word]) -> bool {
    one.iter().map(|word| &word.value).eq(other.iter().map(|word| &word.value))
}

/// Whether `raw` is an assignment: a name, perhaps a `+`, and `=`; subscripts are not read.
pub(crate) fn is_assignment(raw: &str) -> bool {
    let Some((name, _)) = raw.split_once('=') else { return false };
    let name = name.strip_suffix('+').unwrap_or(name);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(is_name)
}
