//! The body of the fuzz target over a corpus with mutations, the same at every run.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

#[path = "../../fuzz/bodies.rs"]
mod bodies;
#[path = "../../../tools/tests/fuzzed/corpus.rs"]
mod corpus;
#[path = "../../../shell/tests/shell/mutations.rs"]
mod mutations;

use corpus::corpus;
use mutations::over_mutations;

const ROUNDS_AND_SEED: (usize, u64) = (20_000, 21);

/// What means something in a pattern or in a path, and what nearly does.
const PIECES: &[&str] = &[
    "*", "**", "?", "/", "/**/", "./", "../", "[", "]", "[a-c]", "[!a]", "[^a]", "{", "}", "{a,b}",
    ",", "\\", "\\*", "!", "^", "-", ".", " ", "\n", "\0", "\u{1}", "\t", "é", "\u{202e}", "a",
    ".env", ".git",
];

#[test]
fn rules_of_any_pattern_about_anything_mean_what_they_say() {
    over_mutations(bodies::rules, &corpus("rules"), PIECES, ROUNDS_AND_SEED);
}
