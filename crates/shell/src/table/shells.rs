//! Programs that run text: shells, whose text is read again, and interpreters, whose text is not.

use super::Call;
use crate::piece::{Piece, Reason};

/// Shells whose language is the one that is read, as far as it is read.
const SHELLS: &[&str] = &["bash", "sh", "dash"];

/// Shells with a language of their own; what is read of their text is only a hint.
const OTHER_SHELLS: &[&str] =
    &["ash", "csh", "elvish", "fish", "ksh", "mksh", "nu", "pwsh", "rbash", "tcsh", "zsh"];

/// Interpreters; those of versions (`python3.12`) count as well.
const INTERPRETERS: &[&str] = &[
    "bun",
    "deno",
    "expect",
    "groovy",
    "guile",
    "irb",
    "jshell",
    "julia",
    "lua",
    "luajit",
    "node",
    "nodejs",
    "osascript",
    "perl",
    "php",
    "pypy",
    "python",
    "Rscript",
    "ruby",
    "scala",
    "tclsh",
    "ts-node",
    "tsx",
    "wish",
];

/// Modules of Python that run the project or look at it, and no text from their arguments.
const MODULES: &[&str] =
    &["black", "flake8", "isort", "mypy", "py_compile", "pylint", "pytest", "ruff", "unittest"];

/// The pieces of a shell or an interpreter.
pub(super) fn pieces(call: &Call<'_>) -> Option<Vec<Piece>> {
    if SHELLS.contains(&call.name) {
        return Some(shell(call));
    }
    if OTHER_SHELLS.contains(&call.name) {
        let mut pieces = vec![call.opaque(Reason::ProgramText)];
        if let Some(text) = text_of(call.arguments) {
            pieces.extend(call.nested(text));
        }
        return Some(pieces);
    }
    let name = call.name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | 'w'));
    INTERPRETERS.contains(&name).then(|| vec![interpreter(call)])
}

fn shell(call: &Call<'_>) -> Vec<Piece> {
    let first = call.arguments.first().map(String::as_str);
    if let Some(text) = text_of(call.arguments) {
        return call.nested(text);
    }
    match first {
        Some("--version" | "--help") if call.arguments.len() == 1 => vec![call.command()],
        // A file is a program like any other.
        Some(file) if is_file(file) && !file.starts_with('+') => vec![call.command()],
        _ => vec![call.opaque(Reason::ProgramText)],
    }
}

/// The text behind `-c`, if all options before it are known to change nothing that is judged.
fn text_of(arguments: &[String]) -> Option<&str> {
    let mut rest = arguments.iter().map(String::as_str);
    loop {
        let option = rest.next()?;
        let letters = option.strip_prefix('-')?;
        let (letters, takes_name) = match letters.strip_suffix('o') {
            Some(letters) => (letters, true),
            None => (letters, false),
        };
        if takes_name && rest.next()? != "pipefail" {
            return None;
        }
        if letters.is_empty() && !takes_name || !letters.chars().all(|c| "ceuxf".contains(c)) {
            return None;
        }
        if letters.contains('c') {
            // With `-o` in the same word both values follow, which is not worth reading.
            return rest.next().filter(|text| !takes_name && !text.starts_with(['-', '+']));
        }
    }
}

fn interpreter(call: &Call<'_>) -> Piece {
    let arguments: Vec<&str> = call.arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--version" | "-V" | "-v" | "--help"] => call.command(),
        // Runs a module that is installed or lies in the project, like a file.
        ["-m", module, ..] if call.name.starts_with("python") && MODULES.contains(module) => {
            call.command()
        }
        ["eval" | "repl" | "exec" | "x", ..] => call.opaque(Reason::ProgramText),
        [file, ..] if is_file(file) => call.command(),
        _ => call.opaque(Reason::ProgramText),
    }
}

/// Whether `word` names a script and not its standard input.
fn is_file(word: &str) -> bool {
    !word.is_empty() && !["-", "/dev/", "/proc/"].iter().any(|begin| word.starts_with(begin))
}
