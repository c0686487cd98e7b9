//! Against a real bash: what it is about to run is what was read.
//!
//! Bash runs with no program in reach and tells each command it cannot find, so that nothing is run
//! and every word is seen as the shell made it.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use iris_shell::{Piece, read};

use crate::corpus::{Entry, entries};

/// Lines with commands that are compared; `IRIS_SHELL_LINES` sets another number.
const LINES: usize = 400;
/// Where chance starts; `IRIS_SHELL_SEED` sets another number.
const SEED: u64 = 2026;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// Programs whose other words are a command, which is the one that is judged.
const PREFIXES: &[&str] =
    &["busybox", "doas", "env", "ionice", "nice", "nohup", "setsid", "stdbuf", "timeout"];

/// Tells its words, each before a unit separator, and a record separator at the end, in one piece: what
/// runs beside it tells as well.
const TELL: &str = r#"command_not_found_handle() { printf '%s\x1f' "$@" $'\x1e' >&9; return 0; }"#;

/// The commands that bash would run for `line`; `None` when there is no bash.
fn told(line: &str) -> Option<BTreeSet<Vec<String>>> {
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new("/bin/bash")
        .args(["--noprofile", "--norc", "-c", &format!("exec 9>told; {TELL}\n{line}\nwait")])
        .current_dir(directory.path())
        .env_clear()
        .env("PATH", directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    output.ok()?;
    let told = std::fs::read(directory.path().join("told")).unwrap_or_default();
    let told = String::from_utf8(told).expect("UTF-8");
    let commands = told.split_terminator("\u{1e}\u{1f}");
    Some(
        commands
            .map(|command| command.split_terminator('\u{1f}').map(str::to_owned).collect())
            .collect(),
    )
}

fn check(line: &str) -> Option<usize> {
    let pieces = read(line).pieces;
    // What is asked about need not be told; nothing is written outside of the directory.
    let is_left_out = |piece: &Piece| match piece {
        Piece::Write { path, .. } => path.contains('/'),
        Piece::Opaque { .. } => true,
        Piece::Command { .. } | Piece::Read { .. } => false,
    };
    if pieces.iter().any(is_left_out) {
        return Some(0);
    }
    let judged: BTreeSet<Vec<String>> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Command { words, .. } => Some(words.clone()),
            Piece::Write { .. } | Piece::Read { .. } | Piece::Opaque { .. } => None,
        })
        .collect();
    let told = told(line)?;
    for words in &told {
        // What only runs the rest of its words is judged by them.
        let is_prefix = words.first().is_some_and(|name| PREFIXES.contains(&name.as_str()))
            && judged.iter().any(|inner| words.ends_with(inner));
        assert!(
            is_prefix || judged.contains(words),
            "bash runs {words:?} for {line:?}, judged are {judged:?}"
        );
    }
    Some(told.len())
}

/// A line of parts that no program or builtin is named like.
fn random_line(random: &mut fastrand::Rng) -> String {
    const NAMES: &[&str] = &["xa", "xb", "'xc'", "x\\d", "\"x\"e", "xf''"];
    const PARTS: &[&str] = &[
        "1",
        "-a",
        "'b c'",
        "\"d e\"",
        "f\\ g",
        "h#i",
        "'$j'",
        "\"k'l\"",
        "m=n",
        "{}",
        "o~1",
        "''",
        "2>&1",
        ">p",
        "<p",
        ">>q",
        "2>/dev/null",
        "r\\\ns",
        "\\\n",
        "@{0}",
        "a}",
        "!",
        "%s",
        "^",
        "[",
        "]",
        "if",
        "fi",
        "{",
        "}",
        "<<<t",
        "&>u",
        "3>p",
        "x>p",
        "é",
        "*",
        "$v",
        "~",
        "{a,b}",
        "#c",
        "a\"b\"'c'd",
        "-",
        "--",
        "=",
        ":",
        "\t",
        "in",
        "do",
        "time",
        ">|p",
        "a,b",
        "a..b",
    ];
    const JOINTS: &[&str] = &[
        ";",
        " && ",
        "||",
        "|",
        "\n",
        "&",
        " |& ",
        ";\n",
        " &&\n",
        " # c\n",
        "; ! ",
        "; time ",
        "\n\n",
        ";(",
        "; { ",
        " )\n",
        "; }\n",
        "; then ",
        "; fi; ",
        "; if ",
        "; while ! ",
        "; do ",
        "; done; ",
        " <<E\nb\nE\n",
        " <<'E' | xz\n$b\nE\n",
        " <<-E\n\tb\n\tE\n",
        "& & ",
        ";;",
    ];
    let mut line = String::new();
    for _ in 0..random.usize(1..=4) {
        line.push_str(NAMES[random.usize(0..NAMES.len())]);
        for _ in 0..random.usize(0..=4) {
            line.push(' ');
            line.push_str(PARTS[random.usize(0..PARTS.len())]);
        }
        line.push_str(JOINTS[random.usize(0..JOINTS.len())]);
    }
    line
}

/// Lines of the corpus with these are not compared: the shell itself finds what they name, or would
/// wait for ever.
const LEFT_OUT: &[&str] =
    &["while", "until", "set ", "exec", "/bin", "sh ", "git --no-pager", "git -P", "/dev"];

#[test]
fn bash_runs_no_command_that_was_not_judged() {
    if !std::path::Path::new("/bin/bash").exists() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "bash is needed for this test");
        println!("skipped: there is no /bin/bash to compare with");
        return;
    }
    let seed = number("IRIS_SHELL_SEED", SEED);
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");
    let wanted = usize::try_from(number("IRIS_SHELL_LINES", LINES as u64)).expect("a size");
    let (mut lines, mut commands) = (0, 0);
    while lines < wanted {
        let line = random_line(&mut random);
        // A loop that waits for a failure of what always succeeds would not end.
        if line.contains("while") {
            continue;
        }
        let count = check(&line).expect("bash runs");
        lines += usize::from(count > 0);
        commands += count;
    }
    assert!(commands > wanted, "{commands} commands in {lines} lines");
    let is_told = |entry: &&Entry| !LEFT_OUT.iter().any(|word| entry.command.contains(word));
    let told: usize =
        entries().iter().filter(is_told).filter_map(|entry| check(&entry.command)).sum();
    assert!(told > 50, "{told} commands of the corpus");
}
