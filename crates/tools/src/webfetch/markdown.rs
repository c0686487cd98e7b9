//! Clean HTML to markdown.

use htmd::element_handler::{HandlerResult, Handlers};
use htmd::options::{BulletListMarker, Options};
use htmd::{Element, HtmlToMarkdown};

use super::unreadable;
use crate::error::ToolError;

/// Ends a cell of a table until the table is put together. No clean page holds control characters.
const CELL_END: char = '\u{1f}';
/// Ends a row.
const ROW_END: char = '\u{1e}';

/// Converts what [`clean`](super::clean::clean) made.
pub(super) fn convert(html: &str) -> Result<String, ToolError> {
    let options = Options {
        bullet_list_marker: BulletListMarker::Dash,
        ul_bullet_spacing: 1,
        ol_number_spacing: 1,
        ..Options::default()
    };
    // The tables of the library pad each cell to the widest of its column: one long cell and many rows make
    // gigabytes.
    let converter = HtmlToMarkdown::builder()
        .options(options)
        .scripting_enabled(false)
        .skip_tags(vec!["head", "template", "svg", "canvas", "object", "select", "button"])
        .add_handler(vec!["td", "th"], |handlers: &dyn Handlers, element: Element| {
            Some(ended(handlers, &element, CELL_END))
        })
        .add_handler(vec!["tr", "caption"], |handlers: &dyn Handlers, element: Element| {
            Some(ended(handlers, &element, ROW_END))
        })
        .add_handler(
            vec!["thead", "tbody", "tfoot"],
            |handlers: &dyn Handlers, element: Element| Some(handlers.walk_children(element.node)),
        )
        .add_handler(vec!["table"], |handlers: &dyn Handlers, element: Element| {
            let content = handlers.walk_children(element.node).content;
            Some(format!("\n\n{}\n\n", table(&content)).into())
        })
        .build();
    let text = converter.convert(html).map_err(|_| unreadable("it cannot be converted"))?;
    // Cells that stand outside of a table.
    Ok(text.replace([CELL_END, ROW_END], " "))
}

fn ended(handlers: &dyn Handlers, element: &Element, end: char) -> HandlerResult {
    let mut content = handlers.walk_children(element.node).content;
    content.push(end);
    content.into()
}

/// Rows of one line each are a table; one with longer cells only arranges the page, and is taken apart.
fn table(content: &str) -> String {
    let (rows, captions): (Vec<&str>, Vec<&str>) =
        content.split(ROW_END).partition(|row| row.contains(CELL_END));
    let rows: Vec<Vec<&str>> = rows
        .into_iter()
        .map(|row| row.trim_end_matches(CELL_END).split(CELL_END).map(str::trim).collect())
        .filter(|row: &Vec<&str>| row.iter().any(|cell| !cell.is_empty()))
        .collect();
    let mut blocks: Vec<&str> = captions.into_iter().map(str::trim).collect();
    let is_layout = rows.iter().flatten().any(|cell| cell.contains('\n'));
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let lines = if is_layout || columns < 2 {
        blocks.extend(rows.into_iter().flatten());
        String::new()
    } else {
        lined(&rows)
    };
    blocks.push(&lines);
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n\n")
}

/// The rows as lines; the first is the head.
fn lined(rows: &[Vec<&str>]) -> String {
    let mut lines = Vec::with_capacity(rows.len() + 1);
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        lines.push(format!("| {} |", cells.join(" | ")));
        if lines.len() == 1 {
            lines.push(format!("|{}", " --- |".repeat(row.len())));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use iris_workspace::Cancel;

    use super::super::clean::clean;
    use super::*;

    fn converted(html: &str) -> String {
        convert(&clean(html, &Cancel::new()).unwrap().html).unwrap()
    }

    #[test]
    fn a_page_becomes_markdown() {
        let html = "<html><head><title>T</title><style>p{}</style></head><body><h1>Iris &amp; co</h1>\
                    <p>One <b>bold</b> <a href='/x'>link</a>.<script>no()</script>\
                    <ul><li>a<li>b<ol><li>c</ol></ul><pre><code class='language-rust'>fn a() {}\n</code></pre>\
                    <blockquote>said</blockquote>";
        let expected = "# Iris & co\n\nOne **bold** [link](/x).\n\n- a\n- b\n  1. c\n\n\
                        ```rust\nfn a() {}\n```\n\n> said";
        assert_eq!(converted(html), expected);
    }

    #[test]
    fn tables_keep_their_rows_and_those_for_layout_come_apart() {
        let data = "<table><caption>C</caption><tr><th>a<th>b|c<tr><td>1<td><b>2</b></table>";
        assert_eq!(converted(data), "C\n\n| a | b\\|c |\n| --- | --- |\n| 1 | **2** |");
        let layout = "<table><tr><td><p>x</p><p>y</p><td>z</table>";
        assert_eq!(converted(layout), "x\n\ny\n\nz");
        let nested = "<table><tr><td>a<td><table><tr><td>1<td>2<tr><td>3<td>4</table></table>";
        assert_eq!(converted(nested), "a\n\n| 1 | 2 |\n| --- | --- |\n| 3 | 4 |");
    }

    /// Shapes on which parsers and converters take very long, much memory or very deep a stack.
    fn bombs() -> Vec<(&'static str, String)> {
        let fill = |piece: &str| piece.repeat((1 << 20) / piece.len());
        let formatting: Vec<_> = (0..100_000).map(|n| format!("<p><b class=c{n}>")).collect();
        let wide_rows = format!("<table><tr><td>{}{}", "x".repeat(100_000), fill("<tr><td>y"));
        let wide_head = format!("<table><tr>{}{}", "<th>a".repeat(5000), fill("<tr><td>y"));
        let quoted_lines = format!("{}<pre>{}", "<blockquote>".repeat(60), fill("\n"));
        let listed_lines = format!("{}<pre>{}", "<ul><li>".repeat(60), fill("a\n"));
        vec![
            ("nested div", format!("{}x", "<div>".repeat(100_000))),
            ("nested everything", fill("<div><ul><li><blockquote><table><tr><td><b><i>")),
            ("nested tables", fill("<table><tr><td>x")),
            ("nested lists", fill("<ul><li>x")),
            ("nested quotes", fill("<blockquote>x")),
            ("nested spans", fill("<span>x")),
            ("nested links", fill("<a href=x>x")),
            ("formatting", formatting.concat()),
            ("misnested", fill("<b><p></b></p><i><div></i>")),
            ("foster parents", format!("<table>{}", fill("x<i></i>"))),
            ("wide rows", wide_rows),
            ("wide head", wide_head),
            ("quoted lines", quoted_lines),
            ("listed lines", listed_lines),
            ("a large page", "<p>lorem <b>ipsum</b> dolor".repeat((5 << 20) / 26)),
            ("one word", fill("x")),
            ("entities", fill("&lt;")),
            ("open tags", fill("<")),
            ("open comment", format!("<!--{}", fill("-"))),
            ("open script", format!("<script>{}", fill("<!--<script>"))),
            ("stars", fill("*_`[")),
            ("backticks", format!("<code>{}", fill("` "))),
            ("paragraphs", fill("<p>x")),
            ("ends", fill("</p></div></table>")),
        ]
    }

    #[test]
    fn no_page_takes_long_or_deep_to_convert() {
        for (name, html) in bombs() {
            let started = Instant::now();
            // The stack of the threads that tools run on.
            let run = move || converted(&html).len();
            let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap();
            let length = thread.join().unwrap();
            let time = started.elapsed();
            assert!(length < 64 << 20, "{name}: {length}");
            assert!(time < Duration::from_mins(1), "{name}: {time:?}");
        }
    }
}
