//! The bodies of the fuzz targets over the corpus with mutations, the same at every run.

use crate::bodies;
use crate::corpus::entries;
use crate::mutations::mutated;

const ROUNDS: usize = 4_000;
const SEED: u64 = 20;

/// What makes a shell read on differently.
const PIECES: &[&str] = &[
    ";",
    "&",
    "&&",
    "|",
    "||",
    "\n",
    "(",
    ")",
    "{",
    "}",
    "'",
    "\"",
    "\\",
    "`",
    "$",
    "$(",
    "<",
    ">",
    ">>",
    "<<",
    "<<<",
    "<(",
    "#",
    "!",
    "~",
    "*",
    "?",
    "[",
    "]",
    "=",
    " ",
    "\t",
    "\0",
    "\u{202e}",
    "if ",
    "then ",
    "fi",
    "do ",
    "done",
    "case ",
    "esac",
    "EOF",
    "\n\t",
    "\\\n",
    "2>&1",
    "{a,b}",
    "time ",
    "coproc ",
    "function ",
    "[[ ",
    "]]",
    "((",
    "))",
    ";;",
    "é",
];

fn over_mutations(body: fn(&[u8])) {
    let mut random = fastrand::Rng::with_seed(SEED);
    let entries = entries();
    for entry in &entries {
        body(entry.command.as_bytes());
    }
    for _ in 0..ROUNDS {
        let base = &entries[random.usize(0..entries.len())].command;
        let other = &entries[random.usize(0..entries.len())].command;
        body(&mutated(base.as_bytes(), other.as_bytes(), PIECES, &mut random));
    }
}

#[test]
fn mutations_of_the_corpus_are_read_without_panic_and_always_the_same() {
    over_mutations(bodies::reads);
}

#[test]
fn commands_of_mutations_are_shown_as_they_are_read() {
    over_mutations(bodies::shows);
}
