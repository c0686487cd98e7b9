//! The bodies of the fuzz targets over corpora with mutations, the same at every run.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

#[path = "../../fuzz/bodies.rs"]
mod bodies;
mod corpus;
#[path = "../../../shell/tests/shell/mutations.rs"]
mod mutations;

use corpus::corpus;
use mutations::over_mutations;

const ROUNDS_AND_SEED: (usize, u64) = (12_000, 22);

/// What means something in a patch.
const PATCH_PIECES: &[&str] = &[
    "\n",
    "\r\n",
    "\n====\n",
    "*** ",
    "*** Begin Patch\n",
    "*** End Patch\n",
    "*** Add File: new\n",
    "*** Update File: a\n",
    "*** Delete File: b\n",
    "*** Move to: dir/x\n",
    "*** End of File\n",
    "@@",
    "@@\n",
    "@@ class A\n",
    "@@ -1,9 +1 @@\n",
    "@@ -18446744073709551615,18446744073709551615 +0 @@\n",
    "+",
    "-",
    " ",
    "\\ \n",
    "--- a/f\n+++ b/f\n",
    "diff --git a/a b/x\nrename from a\nrename to x\n",
    "/dev/null",
    "../",
    ".git/",
    "/",
    "\"",
    "ä\u{0}",
    "\t",
];

/// What means something in arguments, in a command line or in a URL.
const ARGUMENT_PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\n",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-1",
    "1e999",
    "\"path\":",
    "\"command\":",
    "\"workdir\":\"..\"",
    "\"url\":",
    "../",
    "/etc/passwd",
    "a/./b//c",
    ".git",
    "&&",
    "|",
    "$(",
    "`",
    ">",
    "<<EOF",
    "http://",
    "[::1]",
    "@",
    "%00",
    "\u{202e}",
    "é",
    "\0",
    "\n",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

/// What means something in a URL or in a path.
const PLACE_PIECES: &[&str] = &[
    "http://", "https:", "//", "/", "\\", "@", ":", ":80", "[::1]", "[", "]", "%", "%00", "%2e%2e",
    "%2f", "..", "../", "./", ".", "?", "#", "127.1", "0x7f", "xn--", "。", "ß", "é", "\u{202e}",
    "\u{ad}", "\0", "\t", "\r\n", " ",
];

#[test]
fn patches_are_read_within_their_limits_and_say_the_same_when_they_are_written_down() {
    over_mutations(bodies::patches, &corpus("patches"), PATCH_PIECES, ROUNDS_AND_SEED);
}

#[test]
fn a_patch_does_what_the_tool_says_or_nothing() {
    over_mutations(bodies::applies, &corpus("patches"), PATCH_PIECES, ROUNDS_AND_SEED);
}

#[test]
fn arguments_of_every_tool_are_checked_and_said_in_bounded_words() {
    let corpus = corpus("arguments");
    for tool in bodies::names() {
        let begins = |entry: &Vec<u8>| entry.starts_with(format!("{tool}\n").as_bytes());
        assert!(corpus.iter().any(begins), "nothing in the corpus is about {tool}");
    }
    over_mutations(bodies::arguments, &corpus, ARGUMENT_PIECES, ROUNDS_AND_SEED);
}

#[test]
fn a_url_is_one_of_the_web_and_reads_the_same_again() {
    over_mutations(bodies::urls, &corpus("urls"), PLACE_PIECES, ROUNDS_AND_SEED);
}

#[test]
fn a_path_stays_below_its_directory_and_reads_the_same_again() {
    over_mutations(bodies::paths, &corpus("paths"), PLACE_PIECES, ROUNDS_AND_SEED);
}
