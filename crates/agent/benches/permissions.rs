//! How long a verdict takes with as many rules as a project may have.
//!
//! A third of the rules are about paths, half of these with a slash and half without, a third about
//! commands, a third about hosts. No rule matches what is asked about, so that all of them are compared.
//! The figure is 1 ms at the 99th percentile. Prints a table; with `--check` it fails when it is missed.

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

const RULES: usize = 10_000;
const FIGURE: Duration = Duration::from_millis(1);
const ROUNDS: usize = 500;
/// The shortest of these counts, so that a machine that does something else meanwhile is not measured.
const TRIES: usize = 3;

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

/// Rules of each kind for the tools that they are about, or all of them for every tool.
fn rules(is_for_all: bool) -> Vec<Rule> {
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
    (0..RULES).map(rule_of).collect()
}

fn measured(judge: &Judge, access: &Access) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let tries = (0..TRIES).map(|_| {
                let start = Instant::now();
                black_box(judge.judge_one(black_box(access)));
                start.elapsed()
            });
            tries.min().unwrap_or_default()
        })
        .collect();
    times.sort_unstable();
    (times[ROUNDS / 2], times[ROUNDS * 99 / 100])
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
        let rules = Arc::new(Rules::new(rules(is_for_all)));
        let judge = Judge::new(SessionMode::Default, vec![rules]);
        for (name, access) in &accesses {
            let (middle, high) = measured(&judge, access);
            println!("{:<40}{middle:>12.1?}{high:>12.1?}", format!("{name}, {kind}"));
            is_missed |= high > FIGURE;
        }
    }
    if is_checked && is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
