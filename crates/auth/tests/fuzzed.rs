//! The bodies of the fuzz targets over corpora with mutations, the same at every run.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "../../tools/tests/fuzzed/corpus.rs"]
mod corpus;
#[path = "../../shell/tests/shell/mutations.rs"]
mod mutations;

use corpus::corpus;
use mutations::over_mutations;

const ROUNDS_AND_SEED: (usize, u64) = (12_000, 24);

/// What means something in a token or in a frame.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    ".",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-1",
    "1e999",
    "9223372036854775808",
    "KID",
    "\"alg\":\"none\",",
    "\"crit\":[],",
    "\"exp\":",
    "\"id\":",
    "\"type\":",
    "\"payload\":",
    "\"projectId\":null,",
    "\"aud\":\"iris\",",
    "irk_",
    "s1.",
    "s2.",
    "prj_",
    "ping",
    "=",
    "\n",
    "\0",
    "é",
    "\u{202e}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

#[test]
fn a_token_is_taken_only_where_header_and_claims_say_what_they_must() {
    over_mutations(bodies::tokens, &corpus("tokens"), PIECES, ROUNDS_AND_SEED);
}

#[test]
fn a_frame_is_refused_in_few_words_or_reads_the_same_again() {
    over_mutations(bodies::envelopes, &corpus("envelopes"), PIECES, ROUNDS_AND_SEED);
}
