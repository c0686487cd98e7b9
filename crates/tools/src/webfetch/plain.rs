//! Clean HTML to text without markup.

/// Elements that stay within a line.
const INLINE: &[&str] = &[
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "dfn", "em", "font", "i", "img", "kbd",
    "label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "u", "var",
    "wbr",
];

/// The text of what [`clean`](super::clean::clean) made: one line for each block, white space as one space.
pub(super) fn from_html(html: &str) -> String {
    let mut lines = String::new();
    let mut is_title = false;
    for piece in html.split_inclusive('>') {
        let (text, tag) = piece.split_once('<').unwrap_or((piece, ""));
        let name = tag.trim_start_matches('/').split([' ', '>']).next().unwrap_or_default();
        if !is_title {
            lines.push_str(text);
        }
        is_title = name == "title" && !tag.starts_with('/');
        if matches!(name, "td" | "th") {
            lines.push(' ');
        } else if !name.is_empty() && !INLINE.contains(&name) {
            lines.push('\u{1e}');
        }
    }
    let blocks =
        lines.split('\u{1e}').map(|block| block.split_whitespace().collect::<Vec<_>>().join(" "));
    let blocks: Vec<String> = blocks.filter(|block| !block.is_empty()).collect();
    unescaped(&blocks.join("\n"))
}

/// Undoes the escapes of a clean page, which has no others.
fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use iris_workspace::Cancel;

    use super::super::clean::clean;
    use super::*;

    #[test]
    fn blocks_become_lines_and_markup_goes() {
        let html = "<title>T</title><h1>Iris</h1><p>One <b>bold</b>\n  word &amp; &lt;tag&gt; &amp;lt;<br>next\
                    <ul><li>a<li><a href='x>y'>b</a></ul><table><tr><td>1<td>2</table>";
        let text = from_html(&clean(html, &Cancel::new()).unwrap().html);
        assert_eq!(text, "Iris\nOne bold word & <tag> &lt;\nnext\na\nb\n1 2");
    }
}
