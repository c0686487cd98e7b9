//! Programs with a file among their words that they write: `tee`, `dd`, `curl`, `wget`, `sort`.

use super::Call;
use super::options::is_one_of;
use crate::piece::{Piece, Reason};

/// The pieces of such a program: itself, and each file.
pub(super) fn pieces(call: &Call<'_>) -> Option<Vec<Piece>> {
    let more = match call.name {
        "tee" => tee(call),
        "dd" => dd(call),
        "curl" => curl(call),
        "wget" => wget(call),
        "sort" => sort(call),
        "uniq" => uniq(call),
        _ => return None,
    };
    Some(std::iter::once(call.command()).chain(more).collect())
}

fn write(path: &str, append: bool) -> Piece {
    Piece::Write { path: path.to_owned(), append }
}

fn tee(call: &Call<'_>) -> Vec<Piece> {
    let is_append = |word: &String| matches!(word.as_str(), "-a" | "--append" | "-ai" | "-ia");
    let append = call.arguments.iter().any(is_append);
    let mut pieces = Vec::new();
    for word in call.arguments {
        match word.as_str() {
            "-a" | "--append" | "-i" | "-ai" | "-ia" | "-p" => {}
            "-" => pieces.push(write("-", append)),
            word if word.starts_with('-') => pieces.push(call.opaque(Reason::UnknownOption)),
            word => pieces.push(write(word, append)),
        }
    }
    pieces
}

fn dd(call: &Call<'_>) -> Vec<Piece> {
    let file = |word: &String| {
        if let Some(path) = word.strip_prefix("of=") {
            return Some(write(path, false));
        }
        word.strip_prefix("if=").map(|path| Piece::Read { path: path.to_owned() })
    };
    call.arguments.iter().filter_map(file).collect()
}

/// Options of `curl` that do no more than ask for a page, in short groups and in words.
const CURL_SHORTS: &str = "fsSLIivkg";
const CURL_LONGS: &[&str] = &["--fail", "--silent", "--show-error", "--location", "--head"];

fn curl(call: &Call<'_>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut words = call.arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let is_short = word.strip_prefix('-').is_some_and(|letters| {
            !letters.is_empty() && letters.chars().all(|c| CURL_SHORTS.contains(c))
        });
        if is_short || CURL_LONGS.contains(&word) || !word.starts_with('-') {
            continue;
        }
        // `-o path`, perhaps behind letters that are known.
        let before = word.strip_prefix('-').and_then(|letters| letters.strip_suffix('o'));
        let is_output = word == "--output"
            || before.is_some_and(|letters| letters.chars().all(|c| CURL_SHORTS.contains(c)));
        match words.next().filter(|_| is_output) {
            Some("-") => {}
            Some(path) => pieces.push(write(path, false)),
            None => return vec![call.opaque(Reason::OptionWrites)],
        }
    }
    pieces
}

fn wget(call: &Call<'_>) -> Vec<Piece> {
    let arguments: Vec<&str> = call.arguments.iter().map(String::as_str).collect();
    // Without a name the server chooses one.
    let (path, rest) = match arguments.as_slice() {
        ["-O" | "-qO", path, rest @ ..] | ["-q", "-O", path, rest @ ..] => (*path, rest),
        ["-O-" | "-qO-", rest @ ..] => ("-", rest),
        _ => return vec![call.opaque(Reason::OptionWrites)],
    };
    if rest.iter().any(|word| word.starts_with('-')) {
        return vec![call.opaque(Reason::OptionWrites)];
    }
    if path == "-" { vec![] } else { vec![write(path, false)] }
}

fn sort(call: &Call<'_>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut words = call.arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "-o" || word == "--output" {
            pieces.push(write(words.next().unwrap_or_default(), false));
        } else if let Some(path) = word.strip_prefix("--output=") {
            pieces.push(write(path, false));
        } else if is_one_of(word, "", &["--compress-program"]) {
            pieces.push(call.opaque(Reason::OptionRuns));
        } else if is_one_of(word, "oT", &["--output", "--temporary-directory", "--files0-from"]) {
            pieces.push(call.opaque(Reason::OptionWrites));
        }
    }
    pieces
}

/// Options of `uniq` without a value.
const UNIQ_FLAGS: &[&str] = &["-c", "-d", "-u", "-i", "-z", "--count", "--repeated", "--unique"];

/// The second word of `uniq` that is no option is written.
fn uniq(call: &Call<'_>) -> Vec<Piece> {
    let is_flag = |word: &str| UNIQ_FLAGS.contains(&word);
    let words: Vec<&str> =
        call.arguments.iter().map(String::as_str).filter(|word| !is_flag(word)).collect();
    match words.as_slice() {
        [] => vec![],
        [word] if !word.starts_with("--") => vec![],
        [from, to] if !from.starts_with('-') && !to.starts_with('-') => vec![write(to, false)],
        _ => vec![call.opaque(Reason::OptionWrites)],
    }
}
