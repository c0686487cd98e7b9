//! How long a verdict takes: on one thing with as many rules as a project may have, and on a whole call of
//! `bash` with a command line of a kilobyte, which is read, and each piece of it judged.
//!
//! A third of the rules are about paths, half of these with a slash and half without, a third about
//! commands, a third about hosts. No rule matches what is asked about, so that all of them are compared.
//! The figure is 1 ms at the 99th percentile, of one thing with 10,000 rules and of a line with 100. Prints a
//! table; with `--check` it fails when it is missed. Lines with 10,000 rules are shown and not held to it: they
//! take as much for each of their pieces, and a verdict is given up after a second.

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a table for people; the indexes are below the number of rounds"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iris_agent::permissions::{Access, Judge, Rule, Rules, Target};
use iris_protocol::{PermissionAction, PermissionLayer, PermissionRule, SessionMode};
use iris_sandbox::{Config, Sandbox};
use iris_tools::{Tool, ToolRegistry};
use serde_json::json;

const KILOBYTE: usize = 1024;
/// As many as a project may have, and as many as most have at most.
const RULES_MAX: usize = 10_000;
const RULES_USUAL: usize = 100;
const FIGURE: Duration = Duration::from_millis(1);
const ROUNDS: usize = 1_000;
/// Of a kilobyte that repeats them.
const LINES: [(&str, &str); 3] = [
    ("one command", "git log --oneline -5 --author='A B' -- src/main.rs a.txt "),
    ("a list", "git status && cargo test -p x 2>&1 | tail -20; "),
    ("shells in it", "bash -c 'git status --short; ls -l src | wc -l' && "),
];

fn rule(permission: &str, pattern: String) -> Rule {
    let wire = PermissionRule {
        id: None,
        layer: PermissionLayer::Project,
        session_id: None,
        permission: permission.to_owned(),
        pattern,
        action: PermissionAction::Allow,
        created_by: None,
        created_at: None,
        updated_at: None,
    };
    Rule::new(wire).unwrap()
}

/// A judge with rules of each kind for the tools that they are about, or all of them for every tool.
fn judge(count: usize, is_for_all: bool) -> Judge {
    let rule_of = |number: usize| {
        let (permission, pattern) = match number % 12 {
            0 => ("edit", format!("src/module-{number}/**/*.rs")),
            1 => ("edit", format!("**/generated-{number}/*.{{ts,tsx}}")),
            2 => ("edit", format!("*.gen-{number}")),
            3 => ("edit", format!("module-{number}")),
            4..=7 => ("bash", format!("npm run task-{number} *")),
            8 | 9 => ("webfetch", format!("*.host-{number}.example.com")),
            _ => ("webfetch", format!("host-{number}.example.com")),
        };
        rule(if is_for_all { "*" } else { permission }, pattern)
    };
    let rules = Rules::new((0..count).map(rule_of).collect());
    Judge::new(SessionMode::Default, vec![Arc::new(rules)])
}

/// Prints the middle and the 99th percentile, and gives that.
fn measured(name: &str, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (middle, high) = (times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    println!("{name:<40}{middle:>12.1?}{high:>12.1?}");
    high
}

/// The tool `bash`, which runs nothing here.
fn bash() -> Arc<dyn Tool> {
    let broken = Config { launcher: Some("/bin/false".into()), ..Config::default() };
    let sandbox = tokio::runtime::Runtime::new().unwrap().block_on(Sandbox::start(broken));
    ToolRegistry::builtin().unwrap().with_bash(sandbox).unwrap().get("bash").unwrap()
}

fn main() -> ExitCode {
    let is_checked = std::env::args().any(|argument| argument == "--check");
    let text = |text: &str| Target::Text(text.to_owned());
    let path = "src/module-98765/deep/generated-43210/and/still/component.test.rs";
    let accesses = [
        ("a path", Access::edit("write", Target::Path(path.to_owned()))),
        ("a command", Access::of("bash", text("npm run task-98765 -- --watch src/a.rs src/b.rs"))),
        ("a host", Access::of("webfetch", text("a.very.deep.name.of.host-98765.example.com"))),
    ];
    let mut is_missed = false;
    println!("{:<40}{:>12}{:>12}", "10,000 rules, verdict on", "p50", "p99");
    for (kind, is_for_all) in [("each for its tools", false), ("each for all tools", true)] {
        let judge = judge(RULES_MAX, is_for_all);
        for (name, access) in &accesses {
            let high = measured(&format!("{name}, {kind}"), || {
                black_box(judge.judge_one(black_box(access)));
            });
            is_missed |= high > FIGURE;
        }
    }
    let bash = bash();
    for (count, is_held) in [(RULES_USUAL, true), (RULES_MAX, false)] {
        println!("\n{:<40}{:>12}{:>12}", format!("{count} rules, 1 KiB of"), "p50", "p99");
        let judge = judge(count, false);
        for (name, unit) in LINES {
            let line = unit.repeat(KILOBYTE / unit.len());
            let input = json!({ "command": line.trim_end_matches("&& ") });
            let pieces = bash.accesses(&input).len();
            let high = measured(&format!("{name}, {pieces} pieces"), || {
                black_box(judge.judge(&bash.accesses(black_box(&input))));
            });
            is_missed |= is_held && high > FIGURE;
        }
    }
    if is_checked && is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
