//! What programs do with their words that rules would not see: they run others, write, read text.
//!
//! `docs/shell.md` says the same for people. A program that is not here is judged by its words.

pub(crate) mod environment;
mod files;
mod find;
mod git;
mod guards;
mod opaques;
mod options;
mod prefixes;
mod sed;
mod shells;

use crate::piece::{Piece, Reason};
use crate::quote::{self, RESERVED};
use crate::reader::{nested, opaque};

/// Directories whose programs are the same as those found by name.
const SYSTEM: &[&str] = &["/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/"];

/// One command whose words are all literal.
struct Call<'a> {
    /// The program, without the directory of the system.
    name: &'a str,
    /// What follows it.
    arguments: &'a [String],
    /// All of it, with `name` first.
    words: &'a [String],
    /// What it stands in.
    place: Place,
}

/// Inside of how much a command stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    /// Other shells, whose text it is part of.
    pub(crate) shells: usize,
    /// Programs of the same command that run the rest of their words.
    pub(crate) prefixes: usize,
}

/// Most programs that run each other in one command: `nice timeout 5 env ls` has three.
const PREFIXES_MAX: usize = 16;

impl Call<'_> {
    /// The pieces of the command that it runs.
    fn inner(&self, words: &[String]) -> Vec<Piece> {
        let prefixes = self.place.prefixes + 1;
        judged(words, Place { prefixes, ..self.place })
    }

    /// The pieces of a text that it has a shell run.
    fn nested(&self, text: &str) -> Vec<Piece> {
        nested(text, self.place.shells + 1)
    }

    fn text(&self) -> String {
        quote::joined(self.words)
    }

    fn command(&self) -> Piece {
        Piece::Command { words: self.words.to_vec(), text: self.text() }
    }

    fn opaque(&self, why: Reason) -> Piece {
        opaque(why, &self.text())
    }
}

/// What a command of these words would do.
pub(crate) fn judged(words: &[String], place: Place) -> Vec<Piece> {
    let Some((path, arguments)) = words.split_first() else { return vec![] };
    let name = SYSTEM
        .iter()
        .find_map(|directory| path.strip_prefix(directory))
        .filter(|name| !name.contains('/'))
        .unwrap_or(path);
    let mut words = words.to_vec();
    if let Some(first) = words.first_mut() {
        name.clone_into(first);
    }
    let call = Call { name, arguments, words: &words, place };
    if place.prefixes > PREFIXES_MAX {
        return vec![call.opaque(Reason::TooDeep)];
    }
    if name.is_empty() || RESERVED.contains(&name) && name != "coproc" {
        return vec![call.opaque(Reason::Syntax)];
    }
    // A name that is a pattern or a path through other directories is no name to judge by.
    let turns = |part: &str| matches!(part, "" | "." | "..");
    let inner = name.trim_start_matches("./").trim_start_matches("../").trim_start_matches('/');
    if name.contains('/') && inner.split('/').any(turns) {
        return vec![call.opaque(Reason::ProgramPath)];
    }
    if name.contains('=') {
        return vec![call.opaque(Reason::Assignment)];
    }
    if let Some((_, base)) = name.rsplit_once('/') {
        let is_known = known(&Call { name: base, ..call }).is_some();
        return vec![if is_known { call.opaque(Reason::ProgramPath) } else { call.command() }];
    }
    known(&call).unwrap_or_else(|| vec![call.command()])
}

/// The pieces of a program of the tables; `None` when no table has it.
fn known(call: &Call<'_>) -> Option<Vec<Piece>> {
    prefixes::pieces(call)
        .or_else(|| shells::pieces(call))
        .or_else(|| opaques::pieces(call))
        .or_else(|| git::pieces(call))
        .or_else(|| find::pieces(call))
        .or_else(|| sed::pieces(call))
        .or_else(|| files::pieces(call))
        .or_else(|| guards::pieces(call))
}
