//! Git: options that run programs or write files, aliases, other repositories.
//!
//! Options are those of git 2.47 and its manual pages; abbreviations count, as they do for git.

use super::Call;
use super::options::{has_letter, is_one_of, may_be};
use crate::piece::{Piece, Reason};
use crate::quote;

/// Commands that an alias cannot replace and whose words say what they do.
const COMMANDS: &[&str] = &[
    "add",
    "apply",
    "archive",
    "blame",
    "branch",
    "bundle",
    "cat-file",
    "check-attr",
    "check-ignore",
    "checkout",
    "cherry",
    "cherry-pick",
    "clean",
    "clone",
    "commit",
    "config",
    "count-objects",
    "describe",
    "diff",
    "diff-files",
    "diff-index",
    "diff-tree",
    "fetch",
    "for-each-ref",
    "format-patch",
    "fsck",
    "gc",
    "grep",
    "hash-object",
    "init",
    "log",
    "ls-files",
    "ls-remote",
    "ls-tree",
    "merge",
    "merge-base",
    "mv",
    "name-rev",
    "notes",
    "prune",
    "pull",
    "push",
    "range-diff",
    "rebase",
    "reflog",
    "remote",
    "reset",
    "restore",
    "rev-list",
    "rev-parse",
    "revert",
    "rm",
    "shortlog",
    "show",
    "show-branch",
    "show-ref",
    "sparse-checkout",
    "stash",
    "status",
    "switch",
    "symbolic-ref",
    "tag",
    "update-index",
    "update-ref",
    "var",
    "verify-commit",
    "verify-tag",
    "version",
    "whatchanged",
    "worktree",
    "write-tree",
];

/// Options before the command that change nothing about what it does.
const QUIET: &[&str] = &["--no-pager", "-P", "--no-optional-locks", "--no-advice"];

/// Options of any command that run a program.
const RUNS: &[&str] = &[
    "--ext-diff",
    "--exec",
    "--upload-pack",
    "--receive-pack",
    "--open-files-in-pager",
    "--filters",
    "--textconv",
    "--template",
    "--config",
    "--strategy",
    "--tool",
    "--extcmd",
    "--recurse-submodules",
    "--show-signature",
    "--gpg-sign",
];

/// Options of any command that write a file, or read one that is not of the repository.
const WRITES: &[&str] = &["--output", "--output-directory", "--no-index", "--remote", "--contents"];

/// Commands that speak to other repositories, where a URL can name a program (`ext::`).
const REMOTE: &[&str] =
    &["archive", "clone", "fetch", "ls-remote", "pull", "push", "remote", "submodule"];

/// The pieces of a call of git.
pub(super) fn pieces(call: &Call<'_>) -> Option<Vec<Piece>> {
    (call.name == "git").then(|| vec![piece(call)])
}

fn piece(call: &Call<'_>) -> Piece {
    let is_quiet = |word: &&String| QUIET.contains(&word.as_str());
    let quiet = call.arguments.iter().take_while(is_quiet).count();
    let arguments = call.arguments.get(quiet..).unwrap_or_default();
    let mut words = vec![call.name.to_owned()];
    words.extend_from_slice(arguments);
    let Some((command, rest)) = arguments.split_first() else { return call.command() };
    let plain = Piece::Command { text: quote::joined(&words), words };
    if arguments.len() == 1 && matches!(command.as_str(), "--version" | "--help" | "-v" | "-h") {
        return plain;
    }
    if command.starts_with('-') {
        return call.opaque(Reason::OptionRuns);
    }
    let command = command.as_str();
    if !COMMANDS.contains(&command) {
        return call.opaque(Reason::Alias);
    }
    match rest.iter().find_map(|argument| concern(command, argument)) {
        Some(why) => call.opaque(why),
        None if command == "config" && !only_reads_config(rest) => call.opaque(Reason::OptionRuns),
        None => plain,
    }
}

/// Why an argument of `command` makes it more than its words say.
fn concern(command: &str, argument: &str) -> Option<Reason> {
    // It shows what is there; every other option with this beginning stays out.
    let is_known =
        matches!(argument, "--no-textconv" | "--no-ext-diff" | "--no-recurse-submodules");
    if argument == "--help" {
        return Some(Reason::Interactive);
    }
    // Formats with `%G` check signatures with the program for them.
    if !is_known && (is_one_of(argument, "", RUNS) || argument.contains("%G")) {
        return Some(Reason::OptionRuns);
    }
    if is_one_of(argument, "", WRITES) || argument.starts_with("--output=") {
        return Some(Reason::OptionWrites);
    }
    if REMOTE.contains(&command) && argument.contains("::") {
        return Some(Reason::OtherMachine);
    }
    // A file with the order of files; for grep the program that shows what was found.
    let letters = match command {
        "grep" => "O",
        "archive" | "format-patch" => "o",
        "rebase" => "xsS",
        "commit" => "S",
        "tag" => "su",
        "clone" => "uco",
        "merge" | "pull" | "cherry-pick" | "revert" => "sS",
        "diff" | "log" | "show" | "diff-tree" | "diff-index" | "diff-files" | "whatchanged" => {
            // Only at the front: `-SO` and `-GO` look for text.
            return argument.starts_with("-O").then_some(Reason::OptionWrites);
        }
        _ => "",
    };
    if has_letter(argument, letters) {
        return Some(Reason::OptionRuns);
    }
    let is_bundle = command == "bundle" && argument == "create";
    if is_bundle || command == "rebase" && may_be(argument, "--interactive") {
        return Some(Reason::OptionWrites);
    }
    None
}

/// Whether the arguments of `git config` ask for values and set none.
fn only_reads_config(arguments: &[String]) -> bool {
    let first = arguments.first().map(String::as_str);
    let asks = matches!(first, Some("get" | "list" | "--get" | "--get-all" | "--list" | "-l"));
    asks && !arguments.iter().skip(1).any(|word| word.starts_with('-'))
}
