//! Options of other programs that run programs, write files or work elsewhere.

use super::Call;
use super::options::is_one_of;
use crate::piece::{Piece, Reason};

/// What makes a call of one of these programs more than its words say.
struct Guard {
    names: &'static [&'static str],
    /// Letters of short options.
    letters: &'static str,
    /// Long options, also abbreviated.
    options: &'static [&'static str],
    /// Words that are it wherever they stand, or their beginnings when they end in `=`.
    words: &'static [&'static str],
    why: Reason,
}

const NONE: Guard =
    Guard { names: &[], letters: "", options: &[], words: &[], why: Reason::OptionRuns };

const GUARDS: &[Guard] = &[
    Guard {
        names: &["rg"],
        options: &["--pre", "--hostname-bin", "--search-zip"],
        letters: "z",
        ..NONE
    },
    Guard {
        names: &["fd", "fdfind"],
        letters: "xXl",
        options: &["--exec", "--exec-batch", "--list-details"],
        ..NONE
    },
    Guard { names: &["ag", "ack", "bat", "batcat", "delta"], options: &["--pager"], ..NONE },
    Guard {
        names: &["zip"],
        letters: "TO",
        options: &["--unzip-command", "--output-file", "--test"],
        words: &["-TT"],
        ..NONE
    },
    Guard {
        names: &["tar", "bsdtar", "gtar"],
        letters: "IF",
        options: &[
            "--to-command",
            "--checkpoint-action",
            "--use-compress-program",
            "--info-script",
            "--new-volume-script",
            "--rsh-command",
            "--rmt-command",
            "--to-program",
        ],
        ..NONE
    },
    Guard {
        names: &["rsync"],
        letters: "e",
        options: &["--rsh", "--rsync-path", "--files-from"],
        ..NONE
    },
    Guard {
        names: &["make", "gmake", "bmake"],
        letters: "fECI",
        options: &["--file", "--makefile", "--eval", "--directory", "--include-dir"],
        ..NONE
    },
    Guard {
        names: &["just"],
        letters: "fdc",
        options: &[
            "--justfile",
            "--working-directory",
            "--shell",
            "--command",
            "--chooser",
            "--set",
        ],
        ..NONE
    },
    Guard {
        names: &["cargo"],
        letters: "CZ",
        options: &[
            "--config",
            "--manifest-path",
            "--target-dir",
            "--out-dir",
            "--artifact-dir",
            "--logfile",
            "--lockfile-path",
            "--open",
        ],
        ..NONE
    },
    Guard {
        names: &["rustc", "rustdoc", "gcc", "g++", "cc", "c++", "clang", "clang++", "ld", "as"],
        letters: "CZBx",
        options: &["--config", "--codegen", "--plugin", "--wrapper"],
        words: &["-wrapper", "-fplugin=", "-specs="],
        ..NONE
    },
    Guard {
        names: &["npm", "pnpm", "yarn"],
        letters: "Cc",
        options: &[
            "--prefix",
            "--script-shell",
            "--userconfig",
            "--globalconfig",
            "--dir",
            "--cwd",
            "--call",
            "--node-options",
            "--git",
            "--editor",
            "--shell",
            "--viewer",
        ],
        ..NONE
    },
    Guard {
        names: &["npx", "bunx", "pipx"],
        letters: "c",
        options: &["--call", "--shell"],
        ..NONE
    },
    Guard {
        names: &["go"],
        words: &[
            "-exec",
            "-toolexec",
            "-vettool",
            "-overlay",
            "-modfile",
            "-C",
            "-o",
            "-exec=",
            "-toolexec=",
            "-vettool=",
            "-overlay=",
            "-modfile=",
            "-o=",
            "-C=",
            "generate",
            "-w",
            "-ldflags",
            "-ldflags=",
            "-gccgoflags",
            "-gccgoflags=",
            "tool",
        ],
        options: &["--exec", "--toolexec", "--vettool", "--overlay", "--modfile"],
        ..NONE
    },
    Guard {
        names: &["pytest", "py.test"],
        letters: "pco",
        options: &[
            "--rootdir",
            "--override-ini",
            "--confcutdir",
            "--pdbcls",
            "--basetemp",
            "--junitxml",
            "--junit-xml",
        ],
        ..NONE
    },
    Guard {
        names: &["file"],
        letters: "CmzZ",
        options: &["--compile", "--magic-file", "--uncompress"],
        why: Reason::OptionWrites,
        ..NONE
    },
    Guard {
        names: &["tree", "shuf", "iconv", "base64"],
        letters: "oR",
        options: &["--output"],
        why: Reason::OptionWrites,
        ..NONE
    },
    Guard {
        names: &["yq"],
        letters: "is",
        options: &["--inplace", "--in-place", "--split-exp"],
        why: Reason::OptionWrites,
        ..NONE
    },
    Guard {
        names: &["date"],
        letters: "s",
        options: &["--set"],
        why: Reason::OptionWrites,
        ..NONE
    },
    Guard { names: &["diff"], letters: "l", options: &["--paginate"], ..NONE },
    Guard { names: &["split"], options: &["--filter"], ..NONE },
    Guard {
        names: &["openssl"],
        words: &["-engine", "-provider", "-out", "-provider-path"],
        ..NONE
    },
    Guard { names: &["printf"], letters: "v", why: Reason::ShellState, ..NONE },
    Guard { names: &["test", "["], words: &["-v", "-R"], why: Reason::ShellState, ..NONE },
    Guard {
        names: &["pip", "pip3", "uv"],
        options: &["--config-settings", "--python", "--target", "--log"],
        ..NONE
    },
    Guard {
        names: &["docker", "podman"],
        letters: "v",
        options: &["--privileged", "--volume", "--mount", "--host"],
        ..NONE
    },
];

/// The piece of a program with guarded options.
pub(super) fn pieces(call: &Call<'_>) -> Option<Vec<Piece>> {
    let guards = GUARDS.iter().filter(|guard| guard.names.contains(&call.name));
    let mut is_guarded = false;
    for guard in guards {
        is_guarded = true;
        if call.arguments.iter().any(|word| has(guard, word)) || runs_by_place(call) {
            return Some(vec![call.opaque(guard.why)]);
        }
    }
    if matches!(call.name, "xxd" | "set" | "history" | "hostname" | "xxhsum") {
        return Some(vec![by_number(call)]);
    }
    is_guarded.then(|| vec![call.command()])
}

fn has(guard: &Guard, word: &str) -> bool {
    let is_word = |known: &&str| {
        if known.ends_with('=') { word.starts_with(known) } else { word == *known }
    };
    is_one_of(word, guard.letters, guard.options) || guard.words.iter().any(is_word)
}

/// What depends on where a word stands or on its form.
fn runs_by_place(call: &Call<'_>) -> bool {
    let first = call.arguments.first().map_or("", String::as_str);
    match call.name {
        // Letters without a dash; names of archives on other machines.
        "tar" | "bsdtar" | "gtar" => {
            let is_old = !first.starts_with('-') && first.contains(['I', 'F']);
            is_old || call.arguments.iter().any(|word| word.contains(':'))
        }
        "rsync" => call.arguments.iter().any(|word| word.contains(':')),
        // Variables of the makefile, among them the shell.
        "make" | "gmake" | "bmake" => call.arguments.iter().any(|word| word.contains('=')),
        "just" => call.arguments.iter().any(|word| word.contains('=')),
        // `%n` sets a variable.
        "printf" => call.arguments.iter().any(|word| sets_variable(word)),
        // Another toolchain may be a path, the description of a target names a linker.
        "cargo" => first.starts_with('+') || call.arguments.iter().any(|word| is_json(word)),
        "npm" | "pnpm" | "yarn" => matches!(first, "config" | "set" | "explore"),
        _ => false,
    }
}

/// Whether a format of `printf` has a directive that ends in `n`.
fn sets_variable(format: &str) -> bool {
    let is_modifier = |c: char| !c.is_ascii_alphabetic() && c != '%' || matches!(c, 'l' | 'h');
    format
        .replace("%%", "")
        .split('%')
        .skip(1)
        .any(|after| after.trim_start_matches(is_modifier).starts_with('n'))
}

fn is_json(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| ending.eq_ignore_ascii_case("json"))
}

/// Programs that write when they get more words than they need for reading.
fn by_number(call: &Call<'_>) -> Piece {
    let names = call.arguments.iter().filter(|word| !word.starts_with('-')).count();
    let is_fine = match call.name {
        "xxd" => names <= 1 && call.arguments.iter().all(|word| !word.starts_with("-r")),
        "set" => {
            let mut words = call.arguments.iter().map(String::as_str);
            words.clone().count() > 0
                && words.all(|word| {
                    matches!(word, "-e" | "-u" | "-x" | "-eu" | "-eux" | "-o" | "-euo" | "pipefail")
                })
        }
        _ => call.arguments.is_empty(),
    };
    if is_fine { call.command() } else { call.opaque(Reason::ShellState) }
}
