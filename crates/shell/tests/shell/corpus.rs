//! The corpus: lines with their verdict under the example rules and their pieces.
//!
//! A file of `tests/corpus/` holds headings (`## P1 ...`) and blocks: `verdict | line`, and below it
//! one indented line for each piece. `⏎` stands for a newline and `<U+202E>` for a character.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use iris_shell::{Piece, read};

use crate::rules::{Rules, Verdict};

/// One line of the corpus.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) heading: String,
    pub(crate) verdict: Verdict,
    pub(crate) command: String,
    pub(crate) pieces: Vec<String>,
}

/// Every line of every file, by name of the file.
pub(crate) fn entries() -> Vec<Entry> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<_> =
        fs::read_dir(directory).expect("a directory").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| parsed(&fs::read_to_string(path).expect("text"))).collect()
}

fn parsed(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut heading = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut heading);
        } else if let Some(piece) = line.strip_prefix("    ") {
            entries.last_mut().expect("a line before its pieces").pieces.push(piece.to_owned());
        } else if let Some((verdict, command)) = line.split_once(" | ") {
            let verdict = match verdict.trim() {
                "allow" => Verdict::Allow,
                "ask" => Verdict::Ask,
                "deny" => Verdict::Deny,
                other => panic!("unknown verdict `{other}`"),
            };
            let heading = heading.clone();
            entries.push(Entry { heading, verdict, command: unescaped(command), pieces: vec![] });
        } else {
            assert!(line.trim().is_empty(), "`{line}` is no line of a corpus");
        }
    }
    entries
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<U+") {
        let (digits, after) = after.split_once('>').expect("a closing `>`");
        let code = u32::from_str_radix(digits, 16).expect("hexadecimal digits");
        plain.push_str(before);
        plain.push(char::from_u32(code).expect("a character"));
        rest = after;
    }
    (plain + rest).replace('⏎', "\n")
}

/// A piece as the corpus writes it.
pub(crate) fn described(piece: &Piece) -> String {
    let text = match piece {
        Piece::Command { text, .. } => format!("command {text}"),
        Piece::Write { path, append: false } => format!("write {path}"),
        Piece::Write { path, append: true } => format!("append {path}"),
        Piece::Read { path } => format!("read {path}"),
        Piece::Opaque { why, text } => format!("opaque {why:?}: {text}"),
    };
    text.replace('\n', "⏎")
}

#[test]
fn every_line_of_the_corpus_has_its_pieces_and_its_verdict() {
    let rules = Rules::example();
    let mut wrong = String::new();
    for entry in entries() {
        let reading = read(&entry.command);
        let pieces: Vec<String> = reading.pieces.iter().map(described).collect();
        let verdict = rules.verdict(&reading);
        if verdict != entry.verdict || pieces != entry.pieces {
            let name = format!("{verdict:?}").to_lowercase();
            write!(wrong, "\n{name} | {}", entry.command.replace('\n', "⏎")).unwrap();
            if verdict != entry.verdict {
                write!(wrong, "      <-- expected {:?}", entry.verdict).unwrap();
            }
            for piece in pieces {
                write!(wrong, "\n    {piece}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn nothing_that_must_be_asked_or_refused_is_allowed() {
    let rules = Rules::example();
    let entries = entries();
    let held_back = entries.iter().filter(|entry| entry.verdict != Verdict::Allow);
    for entry in held_back {
        let verdict = rules.verdict(&read(&entry.command));
        assert_ne!(verdict, Verdict::Allow, "{}", entry.command);
    }
}

#[test]
fn the_corpus_is_large_and_names_every_row_of_the_threats() {
    let entries = entries();
    let lines: BTreeSet<&str> = entries.iter().map(|entry| entry.command.as_str()).collect();
    assert_eq!(lines.len(), entries.len(), "a line stands twice");
    assert!(lines.len() >= 250, "{} lines", lines.len());
    for row in ["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P17"] {
        let begin = format!("{row} ");
        let count = entries.iter().filter(|entry| entry.heading.starts_with(&begin)).count();
        assert!(count >= 5, "{row} has {count} lines");
    }
    let allowed = entries.iter().filter(|entry| entry.verdict == Verdict::Allow).count();
    assert!(allowed >= 60, "{allowed} lines are allowed");
}
