//! What it takes to look through a project: `grep` and `glob` over 50,000 files, `read` of a megabyte.
//!
//! Each search is measured beside ripgrep on the same files, when `rg` is on the path, and else beside
//! what ripgrep is made of: the parallel walk of `ignore` with `grep-searcher`, without any output. The
//! figures are at most twice the time of that, and 5 ms for the read, each at the median. Prints a table;
//! with `--check` it fails when a figure is missed. The files are in the cache of the system.

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a table for people; a step that fails ends the measurement"
)]

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use grep_regex::RegexMatcher;
use grep_searcher::{Searcher, sinks};
use ignore::overrides::OverrideBuilder;
use ignore::{WalkBuilder, WalkState};
use iris_agent::permissions::Judge;
use iris_protocol::SessionMode;
use iris_tools::{ReadLog, ToolContext, ToolOutput, ToolRegistry};
use iris_workspace::Workspace;
use serde_json::{Value, json};

const DIRECTORIES: usize = 500;
const FILES_IN_EACH: usize = 100;
/// One file in this many is a `.rs` file and has a line that is looked for: fewer than the tools show.
const FOUND_EVERY: usize = 500;
const MATCHES: usize = DIRECTORIES * FILES_IN_EACH / FOUND_EVERY;
const ROUNDS: usize = 15;
const RATIO_MAX: f64 = 2.0;
const READ_MAX: Duration = Duration::from_millis(5);

fn make_tree(root: &Path) {
    fs::write(root.join(".gitignore"), "*.log\ntarget/\n/build\n").unwrap();
    let text = "let value = compute(input, 42);\n".repeat(30);
    for directory in 0..DIRECTORIES {
        let path =
            root.join(format!("package-{}", directory / 25)).join(format!("module-{directory}"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..FILES_IN_EACH {
            let number = directory * FILES_IN_EACH + file;
            if number.is_multiple_of(FOUND_EVERY) {
                fs::write(
                    path.join(format!("file-{number}.rs")),
                    format!("{text}a needle_{number}\n"),
                )
            } else {
                fs::write(path.join(format!("file-{number}.txt")), &text)
            }
            .unwrap();
        }
    }
}

/// The median of `ROUNDS` times, after one that does not count.
fn median(mut work: impl FnMut()) -> Duration {
    work();
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

struct Project {
    runtime: tokio::runtime::Runtime,
    registry: ToolRegistry,
    workspace: Workspace,
}

impl Project {
    fn call(&self, tool: &str, input: &Value) -> ToolOutput {
        let judge = Arc::new(Judge::new(SessionMode::Default, vec![]));
        let ctx = ToolContext::new(self.workspace.clone(), Arc::new(ReadLog::new()), judge);
        self.registry.validate(tool, input).unwrap();
        let tool = self.registry.get(tool).unwrap();
        self.runtime.block_on(tool.run(ctx, input.clone())).unwrap()
    }
}

/// Lines of the output of ripgrep.
fn rg(root: &Path, arguments: &[&str]) -> usize {
    let output = Command::new("rg").args(arguments).current_dir(root).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().count()
}

fn walker(root: &Path) -> WalkBuilder {
    let mut walker = WalkBuilder::new(root);
    walker.require_git(false).threads(std::thread::available_parallelism().unwrap().get());
    walker
}

fn floor_grep(root: &Path) -> usize {
    let matcher = RegexMatcher::new_line_matcher("needle_[0-9]+").unwrap();
    let count = AtomicUsize::new(0);
    walker(root).build_parallel().run(|| {
        let (matcher, count, mut searcher) = (matcher.clone(), &count, Searcher::new());
        Box::new(move |entry| {
            let entry = entry.unwrap();
            if entry.file_type().is_some_and(|kind| kind.is_file()) {
                let sink = sinks::Lossy(|_, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                    Ok(true)
                });
                searcher.search_path(&matcher, entry.path(), sink).unwrap();
            }
            WalkState::Continue
        })
    });
    count.into_inner()
}

fn floor_glob(root: &Path) -> usize {
    let only = OverrideBuilder::new(root).add("*.rs").unwrap().build().unwrap();
    let count = AtomicUsize::new(0);
    walker(root).overrides(only).build_parallel().run(|| {
        let count = &count;
        Box::new(move |entry| {
            let is_file = entry.unwrap().file_type().is_some_and(|kind| kind.is_file());
            count.fetch_add(is_file.into(), Ordering::Relaxed);
            WalkState::Continue
        })
    });
    count.into_inner()
}

fn main() -> ExitCode {
    let is_checked = std::env::args().any(|argument| argument == "--check");
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    make_tree(root);
    let large = "a line of text that is as long as many others are, numbered by the tool\n";
    let large = large.repeat(1_000_000 / large.len());
    let project = Project {
        runtime: tokio::runtime::Runtime::new().unwrap(),
        registry: ToolRegistry::builtin().unwrap(),
        workspace: Workspace::open(root).unwrap(),
    };
    let has_rg = Command::new("rg").arg("--version").output().is_ok();
    let beside = if has_rg { "rg" } else { "ignore and grep-searcher, parallel" };
    println!("{:<34}{:>12}{:>12}{:>8}", "median of", "Iris", "beside", "ratio");
    let mut is_missed = false;
    let mut searched = |name: &str, tool: &str, input: Value, other: &dyn Fn() -> usize| {
        assert_eq!(other(), MATCHES, "both must find the same");
        let found = project.call(tool, &input).metadata;
        let found = found.get("matches").or_else(|| found.get("count")).and_then(Value::as_u64);
        assert_eq!(found, Some(MATCHES as u64), "both must find the same");
        let own = median(|| drop(black_box(project.call(tool, &input))));
        let floor = median(|| {
            black_box(other());
        });
        let ratio = own.as_secs_f64() / floor.as_secs_f64();
        println!("{name:<34}{own:>12.1?}{floor:>12.1?}{ratio:>8.2}");
        is_missed |= ratio > RATIO_MAX;
    };
    searched("grep over 50,000 files", "grep", json!({"pattern": "needle_[0-9]+"}), &|| {
        if has_rg { rg(root, &["needle_[0-9]+"]) } else { floor_grep(root) }
    });
    searched("glob over 50,000 files", "glob", json!({"pattern": "**/*.rs"}), &|| {
        if has_rg { rg(root, &["--files", "-g", "*.rs"]) } else { floor_glob(root) }
    });
    fs::write(root.join("large"), &large).unwrap();
    let own = median(|| drop(black_box(project.call("read", &json!({"path": "large"})))));
    let floor = median(|| drop(black_box(fs::read_to_string(root.join("large")).unwrap())));
    let ratio = own.as_secs_f64() / floor.as_secs_f64();
    println!("{:<34}{own:>12.1?}{floor:>12.1?}{ratio:>8.2}", "read of 1 MB");
    is_missed |= own > READ_MAX;
    println!("\nbeside: {beside}; the read beside reading the file and checking that it is UTF-8");
    if is_checked && is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
