//! From the two readers to the pieces that are judged.

use std::collections::HashSet;

use crate::flat::{Flat, Redirect, Simple};
use crate::piece::{Piece, Reading, Reason};
use crate::table::Place;
use crate::{plain, quote, screen, table, tree};

/// Most bytes of a command line that is read.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024;

/// Most bytes of a line that is not literal throughout; of a longer one no pieces are looked for.
///
/// It is asked about in any case, and what the parser needs for it can grow with the square.
pub(crate) const EXPANDING_BYTES_MAX: usize = 4 * 1024;

/// Most levels of nesting of a command line that is read.
pub const NESTING_MAX: usize = 64;

/// Most shells inside of each other: `bash -c "bash -c ..."`.
const SHELLS_MAX: usize = 4;

/// Says what `command` would do when it is run by `bash -c`.
///
/// It never fails: what cannot be read is an opaque piece. Takes well under a millisecond for a
/// kilobyte, and does no I/O.
///
/// ```
/// use iris_shell::{Piece, Reason, read};
///
/// let reading = read("git status && \\rm 'x'; ls $HOME");
/// let texts = reading.pieces.iter().map(|piece| match piece {
///     Piece::Command { text, .. } => text.as_str(),
///     Piece::Opaque { why: Reason::Variable, text } => text.as_str(),
///     other => panic!("{other:?}"),
/// });
/// assert_eq!(texts.collect::<Vec<_>>(), ["git status", "rm x", "ls $HOME"]);
/// ```
#[must_use]
pub fn read(command: &str) -> Reading {
    let mut pieces = nested(command, 0);
    // A path that is relative means something else after the directory was changed.
    let moves = |piece: &Piece| match piece {
        Piece::Command { words, .. } => {
            words.first().is_some_and(|name| matches!(name.as_str(), "cd" | "pushd" | "popd"))
        }
        Piece::Write { .. } | Piece::Read { .. } | Piece::Opaque { .. } => false,
    };
    let is_relative = |piece: &Piece| match piece {
        Piece::Write { path, .. } | Piece::Read { path } => !path.starts_with('/'),
        Piece::Command { .. } | Piece::Opaque { .. } => false,
    };
    if pieces.iter().any(moves) && pieces.iter().any(is_relative) {
        pieces.push(opaque(Reason::OtherDirectory, command));
    }
    let climbing = pieces.iter().filter_map(climbing_path).collect::<Vec<_>>();
    pieces.extend(climbing.iter().map(|path| opaque(Reason::OtherDirectory, path)));
    Reading { pieces }
}

/// The path of a file in which `..` follows a name: a pattern would take it for one below that name,
/// and where it leads depends on links.
fn climbing_path(piece: &Piece) -> Option<String> {
    let (Piece::Write { path, .. } | Piece::Read { path }) = piece else { return None };
    let mut parts = path.split('/').skip_while(|part| *part == "..");
    parts.any(|part| part == "..").then(|| path.clone())
}

/// Reads `command`, which stands inside of `shells` other shells.
pub(crate) fn nested(command: &str, shells: usize) -> Vec<Piece> {
    if command.len() > COMMAND_BYTES_MAX {
        return vec![opaque(Reason::TooLong, command)];
    }
    if let Some(why) = screen::hidden(command) {
        return vec![opaque(why, command)];
    }
    if shells > SHELLS_MAX {
        return vec![opaque(Reason::TooDeep, command)];
    }
    let second = plain::read(command);
    if second.is_none() && command.len() > EXPANDING_BYTES_MAX {
        return vec![opaque(Reason::TooComplex, command)];
    }
    let tree::Outline { flat, opaque: unread, has_comment } = tree::read(command);
    let agree = second.as_ref().is_some_and(|second| second.agrees_with(&flat));
    let mut placed: Vec<(usize, Piece)> = Vec::new();
    placed.extend(unread.iter().map(|(at, why, text)| (*at, opaque(*why, text))));
    placed.extend(flat_pieces(&flat, shells));
    // Where they differ both are judged, so that a rule can refuse what either of them saw.
    if let Some(second) = second.filter(|_| !agree) {
        let known: HashSet<Piece> = placed.iter().map(|(_, piece)| piece.clone()).collect();
        let found = flat_pieces(&second, shells).into_iter();
        placed.extend(found.filter(|(_, piece)| !known.contains(piece)));
    }
    placed.sort_by_key(|(at, _)| *at);
    let mut pieces: Vec<Piece> = Vec::with_capacity(placed.len());
    for (_, piece) in placed {
        let is_repeated = matches!(piece, Piece::Opaque { .. }) && pieces.last() == Some(&piece);
        if !is_repeated {
            pieces.push(piece);
        }
    }
    let is_literal = !pieces.iter().any(|piece| matches!(piece, Piece::Opaque { .. }));
    // Where something is opaque anyway a person is asked, and one reader is enough.
    if is_literal && !agree && !pieces.is_empty() {
        pieces.push(opaque(Reason::Ambiguous, command));
    }
    if pieces.is_empty() {
        let why = if has_comment { Reason::OnlyComment } else { Reason::Empty };
        pieces.push(opaque(why, command));
    }
    pieces
}

/// The pieces of all commands and redirections, with where they start.
fn flat_pieces(flat: &Flat, shells: usize) -> Vec<(usize, Piece)> {
    let mut placed = Vec::new();
    for simple in &flat.commands {
        placed.extend(command_pieces(simple, shells).into_iter().map(|piece| (simple.at, piece)));
    }
    for redirect in &flat.redirects {
        placed.extend(redirect_pieces(redirect).into_iter().map(|piece| (redirect.at, piece)));
    }
    placed
}

pub(crate) fn opaque(why: Reason, text: &str) -> Piece {
    Piece::Opaque { why, text: screen::shown(text) }
}

fn command_pieces(simple: &Simple, shells: usize) -> Vec<Piece> {
    let mut shown = simple.assignments.clone();
    // What is literal is shown as it is judged, so that a rule can refuse it by its name.
    shown.extend(simple.words.iter().map(|word| match word.literal() {
        Some(value) => quote::joined(&[value.to_owned()]),
        None => word.raw.clone(),
    }));
    let shown = shown.join(" ");
    if simple.words.is_empty() {
        return vec![opaque(Reason::OnlyAssignments, &shown)];
    }
    let mut pieces = Vec::new();
    let mut assignments = simple.assignments.iter();
    if !assignments.all(|assignment| table::environment::is_harmless(assignment)) {
        pieces.push(opaque(Reason::Assignment, &shown));
    }
    let values: Result<Vec<String>, Reason> =
        simple.words.iter().map(|word| word.value.clone()).collect();
    match values {
        Ok(words) => pieces.extend(table::judged(&words, Place { shells, prefixes: 0 })),
        Err(why) => pieces.push(opaque(why, &shown)),
    }
    pieces
}

/// Files that are there on every machine and take everything.
const NOWHERE: &str = "/dev/null";

fn redirect_pieces(redirect: &Redirect) -> Vec<Piece> {
    let Redirect { operator, target, .. } = redirect;
    let shown = format!("{operator} {}", target.raw);
    let why = match &target.value {
        Ok(path) if path.starts_with("/dev/tcp/") || path.starts_with("/dev/udp/") => {
            Reason::Network
        }
        Ok(path) if path.is_empty() => Reason::Syntax,
        Ok(path) => match file_pieces(operator, path, &target.raw) {
            Some(pieces) => return pieces,
            None => Reason::Syntax,
        },
        Err(Reason::Tilde) => {
            // Nothing else in it expands, so that a rule can refuse the path as it is written.
            let pieces = file_pieces(operator, &target.raw, &target.raw).unwrap_or_default();
            return std::iter::once(opaque(Reason::Tilde, &shown)).chain(pieces).collect();
        }
        Err(why) => *why,
    };
    vec![opaque(why, &shown)]
}

/// The files of a redirection; `None` when the operator is not known with such a target.
fn file_pieces(operator: &str, path: &str, raw: &str) -> Option<Vec<Piece>> {
    let is_descriptor =
        raw == "-" || raw.trim_end_matches('-').bytes().all(|byte| byte.is_ascii_digit());
    let write = |append| Piece::Write { path: path.to_owned(), append };
    let read = || Piece::Read { path: path.to_owned() };
    let pieces = match operator {
        ">&" | "<&" if is_descriptor => vec![],
        ">" | ">|" | "&>" | ">>" | "&>>" | ">&" | "<>" | "<" if path == NOWHERE => vec![],
        ">" | ">|" | "&>" | ">&" => vec![write(false)],
        ">>" | "&>>" => vec![write(true)],
        "<" => vec![read()],
        "<>" => vec![write(true), read()],
        _ => return None,
    };
    Some(pieces)
}
