//! Hostile HTML to HTML that any converter can take: shallow, balanced, short, without scripts.
//!
//! Parsers of HTML build trees, and pages are made on which that takes very long or very deep a stack:
//! 100,000 nested elements, formatting that is opened again in each block, a million attributes. So a page
//! goes through the tokenizer first, which builds nothing, and comes out with bounds.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use html5ever::interface::TokenizerResult;
use html5ever::tokenizer::states::{Rawtext, Rcdata, ScriptData};
use html5ever::tokenizer::{
    BufferQueue, EndTag, StartTag, Tag, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};
use iris_workspace::Cancel;

use crate::error::ToolError;

/// Elements that may be open at once, besides [`LIGHT`] ones; those within are taken as if their tags were
/// not there. Pages that people make stay below 50.
pub(super) const DEPTH_MAX: usize = 48;
/// Tags of a page. With them alone a page of the longest output is full of markup.
pub(super) const TAGS_MAX: usize = 20_000;
/// Bytes of the result, several times the longest output.
pub(super) const CLEAN_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an attribute, such as a link; a longer one is left out.
const ATTRIBUTE_BYTES_MAX: usize = 2048;
/// How much is read between two looks at the clock.
const PIECE_BYTES: usize = 4096;
/// How long reading may take; what has not been read by then is cut.
const TIME_MAX: Duration = Duration::from_secs(3);

/// Elements whose content is no text for people.
const DROPPED: &[&str] = &["script", "style", "iframe", "noembed", "noframes"];
/// Elements that close each other, so that they do not nest unless something else does (HTML Standard,
/// section "Optional tags").
const LIGHT: &[&str] = &[
    "p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "optgroup", "rt",
    "rp", "html", "head", "body", "caption", "colgroup",
];
/// Elements without content (HTML Standard, section "Elements", "void elements").
const VOID: &[&str] = &[
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
    "track", "wbr",
];
/// The attributes that are kept, by element.
const KEPT: &[(&str, &[&str])] =
    &[("a", &["href"]), ("img", &["src", "alt"]), ("code", &["class"]), ("pre", &["class"])];

/// A page within bounds.
pub(super) struct Clean {
    pub(super) html: String,
    /// Whether the page goes on.
    pub(super) is_cut: bool,
}

/// Cleans `html`, for at most [`TIME_MAX`].
pub(super) fn clean(html: &str, cancel: &Cancel) -> Result<Clean, ToolError> {
    let (started, mut rest) = (Instant::now(), html);
    let tokenizer = Tokenizer::new(Cleaner::default(), TokenizerOpts::default());
    let input = BufferQueue::default();
    while !rest.is_empty() && !tokenizer.sink.is_full() && started.elapsed() < TIME_MAX {
        if cancel.is_cancelled() {
            return Err(ToolError::Cancelled);
        }
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
        rest = after;
        input.push_back(piece.into());
        // It stops after each script, none of which is run.
        while !matches!(tokenizer.feed(&input), TokenizerResult::Done) {}
    }
    if rest.is_empty() {
        tokenizer.end();
    }
    let is_cut = !rest.is_empty() || tokenizer.sink.is_full();
    let mut page = tokenizer.sink.page.take();
    page.close_down_to(0);
    Ok(Clean { html: page.html, is_cut })
}

/// Takes tokens.
#[derive(Default)]
struct Cleaner {
    page: RefCell<Page>,
}

/// What has been kept so far.
#[derive(Default)]
struct Page {
    html: String,
    /// The names of the elements that are open and count.
    open: Vec<String>,
    /// Elements beyond the depth whose end is still to come.
    beyond: usize,
    tags: usize,
    /// The element of [`DROPPED`] that is being read.
    dropping: Option<String>,
}

impl Cleaner {
    fn is_full(&self) -> bool {
        let page = self.page.borrow();
        page.html.len() >= CLEAN_BYTES_MAX || page.tags >= TAGS_MAX
    }
}

impl TokenSink for Cleaner {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        if self.is_full() {
            return TokenSinkResult::Continue;
        }
        let mut page = self.page.borrow_mut();
        match token {
            Token::TagToken(tag) if tag.kind == StartTag => return page.start(&tag),
            Token::TagToken(tag) => {
                debug_assert_eq!(tag.kind, EndTag);
                page.end(&tag.name);
            }
            Token::CharacterTokens(text) if page.dropping.is_none() => page.text(&text),
            Token::CharacterTokens(_)
            | Token::DoctypeToken(_)
            | Token::CommentToken(_)
            | Token::NullCharacterToken
            | Token::EOFToken
            | Token::ParseError(_) => {}
        }
        TokenSinkResult::Continue
    }
}

impl Page {
    fn start(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name: &str = &tag.name;
        let next = after_start(name);
        self.tags += 1;
        if DROPPED.contains(&name) {
            self.dropping = Some(name.to_owned());
            return next;
        }
        let is_counted = !LIGHT.contains(&name) && !VOID.contains(&name);
        // Odd names would have to be escaped; no converter knows them.
        if !is_plain(name) {
            return next;
        }
        if is_counted && self.open.len() >= DEPTH_MAX {
            self.beyond += 1;
            return next;
        }
        self.html.push('<');
        self.html.push_str(name);
        self.attributes(tag);
        self.html.push('>');
        if is_counted {
            self.open.push(name.to_owned());
        }
        next
    }

    fn attributes(&mut self, tag: &Tag) {
        let kept = KEPT.iter().find(|(name, _)| **name == *tag.name);
        for attribute in kept.map_or(&[][..], |(_, names)| names) {
            let found = tag.attrs.iter().find(|found| &*found.name.local == *attribute);
            let Some(found) = found.filter(|found| found.value.len() <= ATTRIBUTE_BYTES_MAX) else {
                continue;
            };
            self.html.push(' ');
            self.html.push_str(attribute);
            self.html.push_str("=\"");
            self.escaped(&found.value);
            self.html.push('"');
        }
    }

    /// Closes the innermost element of that name and what is open in it, so that nothing is left for a parser
    /// to open again.
    fn end(&mut self, name: &str) {
        self.tags += 1;
        if self.dropping.as_deref() == Some(name) {
            self.dropping = None;
            return;
        }
        if VOID.contains(&name) || DROPPED.contains(&name) || !is_plain(name) {
            return;
        }
        if LIGHT.contains(&name) {
            self.close(name);
        } else if self.beyond > 0 {
            self.beyond -= 1;
        } else if let Some(index) = self.open.iter().rposition(|open| open == name) {
            self.close_down_to(index);
        }
    }

    fn close_down_to(&mut self, depth: usize) {
        while self.open.len() > depth {
            let Some(name) = self.open.pop() else { return };
            self.close(&name);
        }
    }

    fn close(&mut self, name: &str) {
        self.html.push_str("</");
        self.html.push_str(name);
        self.html.push('>');
    }

    fn text(&mut self, text: &str) {
        let left = CLEAN_BYTES_MAX.saturating_sub(self.html.len());
        let end = text.floor_char_boundary(left);
        let text = text.get(..end).unwrap_or_default();
        if text.is_empty() {
            // Nothing fits any more: without this the page would never be full.
            self.tags = TAGS_MAX;
        }
        self.escaped(text);
    }

    /// Adds text so that it is text for every parser. Control characters go: the converter uses some.
    fn escaped(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.html.push_str("&amp;"),
                '<' => self.html.push_str("&lt;"),
                '>' => self.html.push_str("&gt;"),
                '"' => self.html.push_str("&quot;"),
                '\n' | '\t' => self.html.push(character),
                other if other.is_control() => {}
                other => self.html.push(other),
            }
        }
    }
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// How the content of an element is read (HTML Standard, section "Parsing HTML fragments", step 4).
fn after_start(name: &str) -> TokenSinkResult<()> {
    match name {
        "script" => TokenSinkResult::RawData(ScriptData),
        "style" | "iframe" | "noembed" | "noframes" | "xmp" => TokenSinkResult::RawData(Rawtext),
        "title" | "textarea" => TokenSinkResult::RawData(Rcdata),
        _ => TokenSinkResult::Continue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(html: &str) -> String {
        clean(html, &Cancel::new()).unwrap().html
    }

    #[test]
    fn scripts_styles_comments_and_attributes_are_left_out() {
        let html = "<!doctype html><!-- no --><p onclick=x class=y>a<script>if (1 < 2) '</p>'</script>\
                    <style>p{}</style><iframe src=x><b>no</b></iframe>b<br/></p>";
        assert_eq!(cleaned(html), "<p>ab<br></p>");
        let link = "<a href='/x?a=1&amp;b=\"' onclick=y>t</a><img src=i.png alt='A <b>' width=1>";
        let expected =
            "<a href=\"/x?a=1&amp;b=&quot;\">t</a><img src=\"i.png\" alt=\"A &lt;b&gt;\">";
        assert_eq!(cleaned(link), expected);
        assert_eq!(cleaned("<a href='data:,"), "");
        let long = format!("<img alt=a src='{}'>", "x".repeat(ATTRIBUTE_BYTES_MAX + 1));
        assert_eq!(cleaned(&long), "<img alt=\"a\">");
    }

    #[test]
    fn text_stays_text_and_loses_its_control_characters() {
        assert_eq!(cleaned("1 &lt; 2 &amp;amp; &#31;\u{1e}\0x\ty"), "1 &lt; 2 &amp;amp; x\ty");
        assert_eq!(cleaned("<title>a<b>c</title>"), "<title>a&lt;b&gt;c</title>");
    }

    #[test]
    fn what_is_open_is_closed_from_the_inside() {
        assert_eq!(cleaned("<div><b>a</div>b</b></i>"), "<div><b>a</b></div>b");
        assert_eq!(cleaned("<ul><li>a<li><em>b"), "<ul><li>a<li><em>b</em></ul>");
    }

    #[test]
    fn depth_is_cut_and_the_text_within_is_kept() {
        let deep = format!("{}x{}y", "<div>".repeat(100_000), "</div>".repeat(100_000));
        let page = clean(&deep, &Cancel::new()).unwrap();
        assert_eq!(page.html.matches("<div>").count(), DEPTH_MAX);
        assert_eq!(page.html.matches("</div>").count(), DEPTH_MAX);
        assert!(page.is_cut);
        let deep = format!("{}x{}y", "<div>".repeat(60), "</div>".repeat(60));
        let (open, closed) = ("<div>".repeat(DEPTH_MAX), "</div>".repeat(DEPTH_MAX));
        assert_eq!(cleaned(&deep), format!("{open}x{closed}y"));
    }

    #[test]
    fn tags_and_bytes_have_a_limit_and_beyond_it_the_page_is_cut() {
        let many = "<i></i>".repeat(TAGS_MAX);
        let page = clean(&many, &Cancel::new()).unwrap();
        assert_eq!((page.html.matches("<i>").count(), page.is_cut), (TAGS_MAX / 2, true));
        for long in ["ä".repeat(CLEAN_BYTES_MAX), "&lt;".repeat(CLEAN_BYTES_MAX)] {
            let page = clean(&long, &Cancel::new()).unwrap();
            assert!(page.is_cut && page.html.len() >= CLEAN_BYTES_MAX - 1);
            // An escape may grow the last piece.
            assert!(page.html.len() <= 2 * CLEAN_BYTES_MAX, "{}", page.html.len());
        }
        assert!(!clean("<p>short</p>", &Cancel::new()).unwrap().is_cut);
    }

    #[test]
    fn a_tag_with_endless_attributes_costs_the_time_that_is_allowed() {
        let attributes: Vec<_> = (0..300_000).map(|number| format!(" a{number}")).collect();
        let started = Instant::now();
        let page = clean(&format!("before<b{}>", attributes.concat()), &Cancel::new()).unwrap();
        assert_eq!((page.html.as_str(), page.is_cut), ("before", true));
        assert!(started.elapsed() < TIME_MAX * 3, "{:?}", started.elapsed());
    }

    #[test]
    fn nobody_waits_for_a_call_that_was_cancelled() {
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(matches!(clean("<p>", &cancel), Err(ToolError::Cancelled)));
    }
}
