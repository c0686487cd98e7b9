//! The reader on tree-sitter: every command of a line, also those inside of what is not literal.

mod documents;
mod walk;

use tree_sitter::{ParseOptions, ParseState, Parser};

use crate::flat::Flat;
use crate::piece::Reason;

/// Most times that the parser may report progress before it is stopped; it does so every few hundred
/// operations, so that the bound is the same on every machine.
const PROGRESS_MAX: usize = 4_000;

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
    let Some(tree) = parse(text, PROGRESS_MAX) else {
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
    let mut count = 0;
    let mut stop = |_: &ParseState| {
        count += 1;
        count > progress_max
    };
    let options = ParseOptions::new().progress_callback(&mut stop);
    let bytes = text.as_bytes();
    let mut from = |at: usize, _| bytes.get(at..).unwrap_or_default();
    parser.parse_with_options(&mut from, None, Some(options))
}
