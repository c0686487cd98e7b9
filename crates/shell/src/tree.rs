//! The reader on tree-sitter: every command of a line, also those inside of what is not literal.

mod documents;
mod walk;

use std::cell::Cell;

use tree_sitter::{ParseOptions, ParseState, Parser};

use crate::flat::Flat;
use crate::piece::Reason;

/// Most times that the parser may report progress before it is stopped; it does so every hundred
/// operations, so that the bound is the same on every machine. A line of 16 KiB takes up to 1000.
const PROGRESS_MAX: usize = 1_200;

/// Bytes that the parser gets at once.
const CHUNK_BYTES: usize = 16;

/// Most chunks that the parser may ask for, whatever the length of the line, and for each 16 bytes.
///
/// A line without errors takes 1 to 4 for each 16 bytes. Recovering from errors reads the same bytes
/// again and again, and takes some microseconds each time.
const CHUNKS_MAX: usize = 1_000;
const CHUNKS_MAX_FOR_16_BYTES: usize = 8;

/// What costs the parser the square of its number, and how much of it is parsed at most.
///
/// Together with the bounds above they keep the worst line of 16 KiB below a second;
/// `benches/read.rs` measures what was found to be worst.
const MARKS_MAX: &[(&str, usize)] =
    &[("|", 512), ("`", 256), ("<<", 256), ("=(", 256), ("${", 512), ("(", 2_048), (")", 2_048)];

/// What the tree says about a line.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// Its simple commands and redirections, also those inside of substitutions and bodies.
    pub(crate) flat: Flat,
    /// What is not literal: where, why and the text.
    pub(crate) opaque: Vec<(usize, Reason, String)>,
    /// Whether there is a comment.
    pub(crate) has_comment: bool,
}

/// Reads `text`, which is at most [`COMMAND_BYTES_MAX`](crate::COMMAND_BYTES_MAX) bytes.
pub(crate) fn read(text: &str) -> Outline {
    let is_costly = |(mark, max): &(&str, usize)| text.matches(mark).count() > *max;
    let progress_max = if MARKS_MAX.iter().any(is_costly) { None } else { Some(PROGRESS_MAX) };
    let Some(tree) = progress_max.and_then(|progress_max| parse(text, progress_max)) else {
        let opaque = vec![(0, Reason::TooComplex, text.to_owned())];
        return Outline { opaque, ..Outline::default() };
    };
    let mut walk = walk::Walk { text, outline: Outline::default() };
    let root = tree.root_node();
    walk.statement(root, 0);
    let mut outline = walk.outline;
    if root.has_error() {
        outline.opaque.insert(0, (0, Reason::Syntax, text.to_owned()));
    }
    outline.flat.commands.sort_by_key(|command| command.at);
    outline.flat.redirects.sort_by_key(|redirect| redirect.at);
    outline
}

/// The tree of `text`; `None` when the parser needs more than `progress_max` reports of progress.
fn parse(text: &str, progress_max: usize) -> Option<tree_sitter::Tree> {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_bash::LANGUAGE.into()).ok()?;
    let chunks_max = CHUNKS_MAX + CHUNKS_MAX_FOR_16_BYTES * text.len() / 16;
    let chunks = Cell::new(0);
    let mut count = 0;
    let mut stop = |_: &ParseState| {
        count += 1;
        count > progress_max || chunks.get() > chunks_max
    };
    let options = ParseOptions::new().progress_callback(&mut stop);
    let bytes = text.as_bytes();
    let mut from = |at: usize, _| {
        chunks.set(chunks.get() + 1);
        // The end of the text ends the parser as well, soon.
        let is_over = at >= bytes.len() || chunks.get() > chunks_max;
        let end = if is_over { at } else { bytes.len().min(at + CHUNK_BYTES) };
        bytes.get(at..end).unwrap_or_default()
    };
    let tree = parser.parse_with_options(&mut from, None, Some(options));
    tree.filter(|_| chunks.get() <= chunks_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_too_complex(text: &str) -> bool {
        read(text).opaque.iter().any(|(_, why, _)| *why == Reason::TooComplex)
    }

    #[test]
    fn a_parser_that_needs_too_long_is_stopped() {
        let long = "ls x; ".repeat(1_000);
        assert!(parse(&long, PROGRESS_MAX).is_some());
        assert!(parse(&long, 10).is_none());
    }

    #[test]
    fn a_parser_that_reads_the_same_again_and_again_is_stopped() {
        for unit in ["a=)", "><", "$)", ")),1", "<a@("] {
            assert!(!is_too_complex(&unit.repeat(10)), "{unit}");
            assert!(is_too_complex(&unit.repeat(800)), "{unit}");
        }
    }

    #[test]
    fn what_costs_a_square_is_parsed_up_to_its_limit_and_asked_beyond() {
        for (mark, max) in MARKS_MAX {
            assert!(!is_too_complex(&format!("'{}'", mark.repeat(*max))), "{mark}");
            assert!(is_too_complex(&format!("'{}'", mark.repeat(max + 1))), "{mark}");
        }
    }
}
