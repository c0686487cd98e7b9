//! The body of the fuzz target over a corpus with mutations, the same at every run.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

#[path = "../../fuzz/bodies.rs"]
mod bodies;
#[path = "../../../shell/tests/shell/mutations.rs"]
mod mutations;

use std::fs;
use std::path::Path;

use mutations::mutated;

const ROUNDS: usize = 20_000;
const SEED: u64 = 21;

/// What means something in a pattern or in a path, and what nearly does.
const PIECES: &[&str] = &[
    "*", "**", "?", "/", "/**/", "./", "../", "[", "]", "[a-c]", "[!a]", "[^a]", "{", "}", "{a,b}",
    ",", "\\", "\\*", "!", "^", "-", ".", " ", "\n", "\0", "\u{1}", "\t", "é", "\u{202e}", "a",
    ".env", ".git",
];

/// The files of the corpus, by name.
fn corpus() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/rules");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn rules_of_any_pattern_about_anything_mean_what_they_say() {
    let corpus = corpus();
    assert!(corpus.len() > 20, "{}", corpus.len());
    for entry in &corpus {
        bodies::rules(entry);
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    for _ in 0..ROUNDS {
        let base = &corpus[random.usize(0..corpus.len())];
        let other = &corpus[random.usize(0..corpus.len())];
        bodies::rules(&mutated(base, other, PIECES, &mut random));
    }
}
