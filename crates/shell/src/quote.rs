//! Words as a person would type them.

/// Words that mean something else to the shell where a command is expected.
///
/// Bash Reference Manual 5.2, section 3.2.1; `time` is a program as well and stays out.
pub(crate) const RESERVED: &[&str] = &[
    "!", "[[", "]]", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for",
    "function", "if", "in", "select", "then", "until", "while", "{", "}",
];

/// `words` joined by one space, each quoted where the shell would read it otherwise.
pub(crate) fn joined(words: &[String]) -> String {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        let is_name = index == 0;
        if is_plain(word)
            && !(is_name && (RESERVED.contains(&word.as_str()) || word.contains(['=', '{'])))
        {
            text.push_str(word);
        } else {
            text.push_str(&quoted(word));
        }
    }
    text
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Whether the shell reads `word` as it stands.
fn is_plain(word: &str) -> bool {
    let has_plain_characters = word.chars().all(|c| {
        c.is_alphanumeric()
            || matches!(c, '_' | '@' | '%' | '+' | '=' | ':' | ',' | '.' | '/')
            || matches!(c, '-' | '^' | '~' | '{' | '}' | '#' | ']')
    });
    let may_expand = word.starts_with(['~', '#'])
        || word.contains('~') && word.contains(['=', ':'])
        || word.contains('{') && (word.contains(',') || word.contains(".."));
    // A file descriptor's variable, when a redirection follows.
    let is_braced = word.starts_with('{') && word != "{}";
    word == "[" || !word.is_empty() && has_plain_characters && !may_expand && !is_braced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_needed() {
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(joined(&words(&["git", "diff", "HEAD~1"])), "git diff HEAD~1");
        assert_eq!(joined(&words(&["echo", "it's", ""])), r"echo 'it'\''s' ''");
        assert_eq!(joined(&words(&["[", "-f", "a b", "]"])), "[ -f 'a b' ]");
        assert_eq!(joined(&words(&["if", "if"])), "'if' if");
        assert_eq!(joined(&words(&["a=b", "a=b"])), "'a=b' a=b");
        assert_eq!(joined(&words(&["git status; rm"])), "'git status; rm'");
    }
}
