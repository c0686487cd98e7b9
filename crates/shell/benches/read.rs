//! How long it takes to read one command line: a kilobyte of several kinds, and the worst that fits.
//!
//! The figure is 1 ms at the 99th percentile for one kilobyte. Prints a table; with `--check` it
//! fails when a line of one kilobyte misses the figure.

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a table for people; the indexes are below the number of rounds"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use iris_shell::{COMMAND_BYTES_MAX, read};

const KILOBYTE: usize = 1024;
const FIGURE: Duration = Duration::from_millis(1);
const ROUNDS: usize = 2_000;
const ROUNDS_WORST: usize = 20;

/// The units that were found to take longest in a search over repeated pieces of shell syntax:
/// lines that both readers take up to their limit, and those of which only a part is looked for.
const WORST: &[(usize, &str)] = &[
    (COMMAND_BYTES_MAX, "&&& "),
    (COMMAND_BYTES_MAX, "a;"),
    (COMMAND_BYTES_MAX, "x "),
    (COMMAND_BYTES_MAX, "a && "),
    (COMMAND_BYTES_MAX, "a <x "),
    (COMMAND_BYTES_MAX, "if a; then b; fi; "),
    (4 * KILOBYTE, "a=)"),
    (4 * KILOBYTE, "><"),
    (4 * KILOBYTE, "\n$in )"),
    (4 * KILOBYTE, "$("),
    (4 * KILOBYTE, "for a "),
    (4 * KILOBYTE, "[a[[))"),
];

/// `unit` repeated up to `len` bytes.
fn filled(unit: &str, len: usize) -> String {
    unit.repeat(len / unit.len())
}

/// The middle and the 99th percentile of reading `line`.
fn measured(line: &str, rounds: usize) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            black_box(read(black_box(line)));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[rounds / 2], times[(rounds * 99 / 100).min(rounds - 1)])
}

fn main() -> ExitCode {
    let is_checked = std::env::args().any(|argument| argument == "--check");
    let usual = [
        ("one command", "git log --oneline -5 --author='A B' -- src/main.rs a.txt "),
        ("a list", "git status && cargo test -p x 2>&1 | tail -20; "),
        ("substitutions", "echo \"$(git status)\" $X `ls` "),
        ("a here-document", "plain text of a file, with 'quotes' and $variables\n"),
        ("shells in it", "bash -c 'git status; ls -l | wc -l' && "),
    ];
    let mut is_missed = false;
    println!("{:<28} {:>10} {:>10}", "1 KiB of", "p50", "p99");
    for (name, unit) in usual {
        let line = match name {
            "a here-document" => format!("cat <<'EOF'\n{}EOF\n", filled(unit, KILOBYTE - 20)),
            "shells in it" => format!("{}true", filled(unit, KILOBYTE - 4)),
            _ => filled(unit, KILOBYTE),
        };
        let (middle, high) = measured(&line, ROUNDS);
        println!("{name:<28} {middle:>10.1?} {high:>10.1?}");
        is_missed |= high > FIGURE;
    }
    println!("\n{:<28} {:>10} {:>10}", "16 KiB, or 4 KiB of", "p50", "p99");
    for (len, unit) in WORST {
        let (middle, high) = measured(&filled(unit, *len), ROUNDS_WORST);
        println!("{:<28} {middle:>10.1?} {high:>10.1?}", format!("{unit:?}"));
    }
    if is_checked && is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
