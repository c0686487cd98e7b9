//! The bodies of the fuzz targets over the corpus with mutations, the same at every run.

use crate::bodies;
use crate::corpus::entries;
use crate::mutations::over_mutations;

const ROUNDS_AND_SEED: (usize, u64) = (4_000, 20);

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

fn over_commands(body: fn(&[u8])) {
    let commands: Vec<Vec<u8>> =
        entries().iter().map(|entry| entry.command.clone().into()).collect();
    over_mutations(body, &commands, PIECES, ROUNDS_AND_SEED);
}

#[test]
fn mutations_of_the_corpus_are_read_without_panic_and_always_the_same() {
    over_commands(bodies::reads);
}

#[test]
fn commands_of_mutations_are_shown_as_they_are_read() {
    over_commands(bodies::shows);
}
