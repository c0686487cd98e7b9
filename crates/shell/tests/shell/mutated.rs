//! The bodies of the fuzz targets over the corpus with mutations, the same at every run.

use crate::bodies;
use crate::corpus::entries;

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

fn mutated(base: &str, other: &str, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = base.as_bytes().to_vec();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..5) {
            0 if at < bytes.len() => {
                bytes.remove(at);
            }
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => bytes.truncate(at),
            3 => {
                let from = random.usize(0..=other.len());
                bytes.extend_from_slice(&other.as_bytes()[from..]);
            }
            _ => {
                let piece = PIECES[random.usize(0..PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes
}

fn over_mutations(body: fn(&[u8])) {
    let mut random = fastrand::Rng::with_seed(SEED);
    let entries = entries();
    for entry in &entries {
        body(entry.command.as_bytes());
    }
    for _ in 0..ROUNDS {
        let base = &entries[random.usize(0..entries.len())].command;
        let other = &entries[random.usize(0..entries.len())].command;
        body(&mutated(base, other, &mut random));
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
