//! One word of the shell: what it is when nothing in it expands.
//!
//! Quoting as in the Bash Reference Manual 5.2, section 3.1.2; the order of expansions in 3.5.

use crate::piece::Reason;

/// A word as it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// What the program gets, or why that is not settled.
    pub(crate) value: Result<String, Reason>,
    /// The text, with its quotes.
    pub(crate) raw: String,
}

impl Word {
    /// The word that is all of `raw`.
    pub(crate) fn new(raw: &str) -> Self {
        let value = match scan(raw) {
            Ok((value, len)) if len == raw.len() => Ok(value),
            Ok(_) if raw.starts_with(['<', '>']) => Err(Reason::Substitution),
            Ok(_) => Err(Reason::Syntax),
            Err(why) => Err(why),
        };
        Self { value, raw: raw.to_owned() }
    }

    /// The literal value, if it has one.
    pub(crate) fn literal(&self) -> Option<&str> {
        self.value.as_deref().ok()
    }
}

/// Whether an unquoted `c` ends a word.
fn is_end(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')')
}

/// Reads one word at the start of `text`: its value and how many bytes it takes.
///
/// # Errors
///
/// The first thing in it that expands, or [`Reason::Syntax`] when a quotation does not end.
pub(crate) fn scan(text: &str) -> Result<(String, usize), Reason> {
    let mut value = String::new();
    let mut unquoted = String::new();
    let mut chars = text.char_indices().peekable();
    let mut len = text.len();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        match c {
            '\'' => loop {
                match chars.next() {
                    Some((_, '\'')) => break,
                    Some((_, c)) => value.push(c),
                    None => return Err(Reason::Syntax),
                }
            },
            '"' => double_quoted(&mut chars, &mut value)?,
            '\\' => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, c)) => {
                    value.push(c);
                    // Keeps what stands on both sides apart.
                    unquoted.push('\\');
                }
                None => return Err(Reason::Syntax),
            },
            '`' => return Err(Reason::Substitution),
            '$' => return Err(dollar(next)),
            // Alone it is a command, not a pattern.
            '[' if at == 0 && next.is_none_or(is_end) => value.push(c),
            '*' | '?' | '[' => return Err(Reason::Glob),
            c if is_end(c) => {
                len = at;
                break;
            }
            c => {
                if c == '~' && (unquoted.is_empty() && value.is_empty() || ends_name(&unquoted)) {
                    return Err(Reason::Tilde);
                }
                value.push(c);
                unquoted.push(c);
            }
        }
    }
    let has_brace = unquoted.contains('{');
    if has_brace && text.get(..len).is_some_and(|raw| raw.contains(',') || raw.contains("..")) {
        return Err(Reason::Braces);
    }
    Ok((value, len))
}

/// Whether a tilde after `text` expands, as it does in what looks like an assignment.
fn ends_name(text: &str) -> bool {
    text.ends_with(['=', ':'])
}

/// What a dollar followed by `next` begins.
fn dollar(next: Option<char>) -> Reason {
    match next {
        Some('\'' | '"') => Reason::DollarQuote,
        Some('(') => Reason::Substitution,
        Some('[') => Reason::Arithmetic,
        _ => Reason::Variable,
    }
}

/// Reads the rest of `".."` after its first quote.
fn double_quoted(
    chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
    value: &mut String,
) -> Result<(), Reason> {
    while let Some((_, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        match (c, next) {
            ('"', _) => return Ok(()),
            ('`', _) => return Err(Reason::Substitution),
            // As at the end of a regular expression; nothing can begin there.
            ('$', Some('"' | ' ' | '|')) => value.push('$'),
            ('$', Some('\'')) => return Err(Reason::Variable),
            ('$', next) => return Err(dollar(next)),
            ('\\', Some('\n')) => {
                chars.next();
            }
            ('\\', Some(escaped @ ('$' | '`' | '"' | '\\'))) => {
                chars.next();
                value.push(escaped);
            }
            (c, _) => value.push(c),
        }
    }
    Err(Reason::Syntax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_removed_as_the_shell_does() {
        for (raw, value) in [
            ("rm", "rm"),
            (r"\rm", "rm"),
            ("'r'm", "rm"),
            ("\"g\"it", "git"),
            (r"a\ b", "a b"),
            (r"'a\b'", r"a\b"),
            (r#""a\b\$\"""#, r#"a\b$""#),
            ("\"foo$\"", "foo$"),
            ("a\\\nb", "ab"),
            ("\"a\\\nb\"", "ab"),
            ("HEAD~1", "HEAD~1"),
            ("stash@{0}", "stash@{0}"),
            ("{}", "{}"),
            ("[", "["),
            ("''", ""),
            ("a#b", "a#b"),
        ] {
            assert_eq!(Word::new(raw).value.as_deref(), Ok(value), "{raw}");
        }
    }

    #[test]
    fn what_expands_has_no_value() {
        for (raw, why) in [
            ("$x", Reason::Variable),
            ("\"$x\"", Reason::Variable),
            ("$", Reason::Variable),
            ("${x}", Reason::Variable),
            ("$(x)", Reason::Substitution),
            ("\"a`x`\"", Reason::Substitution),
            ("$[1]", Reason::Arithmetic),
            ("$'a'", Reason::DollarQuote),
            ("$\"a\"", Reason::DollarQuote),
            ("*.rs", Reason::Glob),
            ("a?", Reason::Glob),
            ("[ab]", Reason::Glob),
            ("~/x", Reason::Tilde),
            ("a=~/x", Reason::Tilde),
            ("a:~", Reason::Tilde),
            ("{a,b}", Reason::Braces),
            ("{1..3}", Reason::Braces),
            ("'a", Reason::Syntax),
            ("\"a", Reason::Syntax),
            ("a\\", Reason::Syntax),
            ("a b", Reason::Syntax),
            ("<(a)", Reason::Substitution),
        ] {
            assert_eq!(Word::new(raw).value, Err(why), "{raw}");
        }
    }
}
