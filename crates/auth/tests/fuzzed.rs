//! The bodies of the fuzz targets over corpora with mutations, the same at every run.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "../../shell/tests/shell/mutations.rs"]
mod mutations;

use std::fs;
use std::path::Path;

use mutations::mutated;

const ROUNDS: usize = 12_000;
const SEED: u64 = 24;

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

fn over_mutations(body: fn(&[u8]), name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(corpus.len() > 10, "{}", corpus.len());
    for entry in &corpus {
        body(entry);
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    for _ in 0..ROUNDS {
        let base = &corpus[random.usize(0..corpus.len())];
        let other = &corpus[random.usize(0..corpus.len())];
        body(&mutated(base, other, PIECES, &mut random));
    }
}

#[test]
fn a_token_is_taken_only_where_header_and_claims_say_what_they_must() {
    over_mutations(bodies::tokens, "tokens");
}

#[test]
fn a_frame_is_refused_in_few_words_or_reads_the_same_again() {
    over_mutations(bodies::envelopes, "envelopes");
}
