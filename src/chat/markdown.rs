//! Markdown as a terminal shows it, line by line: text is shown while it streams, and a line that was
//! shown cannot be taken back.

use super::style::{Style, clean};

/// A rule across the text.
const RULE: &str = "────────────────────";

/// Where in a text the next line stands.
#[derive(Debug, Default)]
pub(super) struct Markdown {
    /// What ends the block of code that is open.
    fence: Option<String>,
}

impl Markdown {
    /// The next line of the text. Without colours it is as it was written.
    pub(super) fn line(&mut self, line: &str, style: Style) -> String {
        let line = clean(line);
        let is_code = self.is_code(&line);
        if !style.is_on {
            return line;
        }
        match is_code {
            Some(Place::Fence) => style.faint(&line),
            Some(Place::Inside) => style.code(&line),
            None => prose(&line, style),
        }
    }

    /// Whether a line belongs to a block of code.
    fn is_code(&mut self, line: &str) -> Option<Place> {
        let trimmed = line.trim_start();
        if let Some(end) = &self.fence {
            let rest = trimmed.trim_end().strip_prefix(end.as_str());
            if rest.is_some_and(|rest| rest.chars().all(|c| end.starts_with(c))) {
                self.fence = None;
                return Some(Place::Fence);
            }
            return Some(Place::Inside);
        }
        let mark = trimmed.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let length = trimmed.chars().take_while(|c| *c == mark).count();
        // Text in backticks that begins a line is no block.
        let rest = trimmed.trim_start_matches(mark);
        if length < 3 || (mark == '`' && rest.contains('`')) {
            return None;
        }
        self.fence = Some(mark.to_string().repeat(length));
        Some(Place::Fence)
    }
}

enum Place {
    Fence,
    Inside,
}

fn prose(line: &str, style: Style) -> String {
    let trimmed = line.trim_start();
    let indent = line.get(..line.len() - trimmed.len()).unwrap_or_default();
    let hashes = trimmed.chars().take_while(|c| *c == '#').count();
    if (1..=6).contains(&hashes)
        && let Some(title) = trimmed.get(hashes..).and_then(|rest| rest.strip_prefix(' '))
    {
        let title = title.trim().trim_end_matches('#').trim_end();
        return if hashes == 1 { style.underlined(title) } else { style.bold(title) };
    }
    if is_rule(trimmed) {
        return style.faint(RULE);
    }
    if let Some(quoted) = trimmed.strip_prefix('>') {
        return style.faint(&format!("│ {}", quoted.trim_start()));
    }
    if let Some(item) = ["- ", "* ", "+ "].iter().find_map(|mark| trimmed.strip_prefix(mark)) {
        return format!("{indent}• {}", inline(item, style));
    }
    format!("{indent}{}", inline(trimmed, style))
}

fn is_rule(line: &str) -> bool {
    let mut marks = line.chars().filter(|c| !c.is_whitespace());
    let Some(first) = marks.next().filter(|c| matches!(c, '-' | '*' | '_')) else { return false };
    let rest: Vec<char> = marks.collect();
    rest.len() >= 2 && rest.iter().all(|c| *c == first)
}

/// Emphasis, code and links within a line.
fn inline(text: &str, style: Style) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(c) = rest.chars().next() {
        if let Some((piece, after)) = marked(rest, before, style) {
            shown.push_str(&piece);
            (rest, before) = (after, Some(' '));
            continue;
        }
        shown.push(c);
        (rest, before) = (rest.get(c.len_utf8()..).unwrap_or_default(), Some(c));
    }
    shown
}

/// What begins here and is marked, as it is shown, and what follows it.
fn marked(text: &str, before: Option<char>, style: Style) -> Option<(String, &str)> {
    if let Some((code, rest)) = between(text, "`") {
        return Some((style.code(code), rest));
    }
    for mark in ["**", "__"] {
        if let Some((strong, rest)) = between(text, mark) {
            return Some((style.bold(strong), rest));
        }
    }
    // In the middle of a word it is a name, like `a_b_c`.
    if !before.is_some_and(char::is_alphanumeric) {
        for mark in ["*", "_"] {
            if let Some((emphasis, rest)) = between(text, mark) {
                return Some((style.italic(emphasis), rest));
            }
        }
    }
    let (title, rest) = text.strip_prefix('[')?.split_once("](")?;
    let (target, rest) = rest.split_once(')')?;
    let is_link = !title.is_empty() && !title.contains(['[', ']']) && !target.contains(' ');
    is_link.then(|| (format!("{} ({target})", style.italic(title)), rest))
}

/// The text between two of the same mark, which touch it.
fn between<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let (inner, rest) = text.strip_prefix(mark)?.split_once(mark)?;
    let touches = |c: Option<char>| c.is_some_and(|c| mark == "`" || !c.is_whitespace());
    let is_marked = touches(inner.chars().next()) && touches(inner.chars().next_back());
    is_marked.then_some((inner, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: Style = Style { is_on: true };

    fn shown(text: &str, style: Style) -> Vec<String> {
        let mut markdown = Markdown::default();
        text.lines().map(|line| markdown.line(line, style)).collect()
    }

    #[test]
    fn lines_are_what_their_beginning_says() {
        let text = "# Title #\n## Below\n- one\n  * two\n> said\n---\n1. first";
        let expected = [
            ON.underlined("Title"),
            ON.bold("Below"),
            "• one".to_owned(),
            "  • two".to_owned(),
            ON.faint("│ said"),
            ON.faint(RULE),
            "1. first".to_owned(),
        ];
        assert_eq!(shown(text, ON), expected);
    }

    #[test]
    fn code_is_shown_as_it_is_until_its_fence() {
        let text = "````rust\n# no title\n```\n````\n# title\n~~~\n`a`";
        let expected = [
            ON.faint("````rust"),
            ON.code("# no title"),
            ON.code("```"),
            ON.faint("````"),
            ON.underlined("title"),
            ON.faint("~~~"),
            ON.code("`a`"),
        ];
        assert_eq!(shown(text, ON), expected);
        assert!(shown("```not a fence``` but code", ON)[0].contains("not a fence"));
    }

    #[test]
    fn words_are_emphasised_and_names_are_left_alone() {
        let text = "a **b c** `d*` _e_ snake_case_name 2 * 3 * 4 [f](https://g) **open";
        let expected = format!(
            "a {} {} {} snake_case_name 2 * 3 * 4 {} (https://g) **open",
            ON.bold("b c"),
            ON.code("d*"),
            ON.italic("e"),
            ON.italic("f")
        );
        assert_eq!(shown(text, ON), [expected]);
    }

    #[test]
    fn without_colours_nothing_is_changed_but_what_a_terminal_obeys() {
        let text = "# a **b**\n```\n\u{1b}[2Jc";
        let expected = ["# a **b**", "```", "\\u{1b}[2Jc"];
        assert_eq!(shown(text, Style { is_on: false }), expected);
        assert!(shown(text, ON).iter().all(|line| !line.contains("\u{1b}[2J")));
    }
}
