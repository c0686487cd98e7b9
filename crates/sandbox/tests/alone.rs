//! What has to be measured in a process in which nothing else happens: memory, and children that nobody
//! has waited for.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "what should not happen fails the test")]

#[path = "sandbox/lab.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod lab;

use std::fs;
use std::time::Duration;

use iris_sandbox::{LAUNCHER_ARGUMENT, Status};

use lab::{Lab, labs};

/// KiB of memory of this process: now, and the most so far.
fn memory() -> [u64; 2] {
    let status = fs::read_to_string("/proc/self/status").expect("a file");
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    })
}

/// Children of this process, those that have ended and those that have not.
fn children() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("threads").filter_map(Result::ok);
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Lines, one line without an end, and memory that the sandbox does not give (C7, C8).
async fn hostile_commands_do_not_grow_memory(lab: &Lab) {
    lab.text("true").await;
    let [before, _] = memory();
    for line in ["yes", "yes | tr -d '\\n'"] {
        let mut request = lab.shell(line);
        request.timeout = Duration::from_secs(1);
        let finished = lab.sandbox.run(request).await.expect("a run");
        assert_eq!(finished.status, Status::TimedOut);
        // More than any pipe or buffer holds, so somebody has read on.
        assert!(finished.output.bytes_total > 16 * 1024 * 1024, "{}", finished.output.bytes_total);
    }
    let gluttony = format!("{} private 64", lab::example("glutton").display());
    assert_eq!(lab.run(&gluttony).await.status, Status::Exited(1));
    let [_, most] = memory();
    assert!(most < before + 8 * 1024, "{before} KiB before, {most} KiB at most");
}

async fn no_child_is_left(lab: &Lab, waiting: usize) {
    for _ in 0..5 {
        assert_eq!(lab.run("(setsid sleep 99999 &); exit 3").await.status, Status::Exited(3));
        let mut request = lab.shell("echo up; sleep 99999");
        let (progress, mut pieces) = tokio::sync::mpsc::channel(4);
        request.progress = Some(progress);
        let sandbox = lab.sandbox.clone();
        let running = tokio::spawn(async move { sandbox.run(request).await });
        pieces.recv().await.expect("a line");
        running.abort();
        // The other end is dropped when everything has been cleaned up.
        while pieces.recv().await.is_some() {}
    }
    lab.text("true").await;
    only_left(waiting).await;
}

/// Whether a child is a launcher that has started nothing.
fn is_waiting(child: &String) -> bool {
    let started = fs::read_to_string(format!("/proc/{child}/task/{child}/children"));
    let arguments = fs::read_to_string(format!("/proc/{child}/cmdline"));
    started.is_ok_and(|started| started.is_empty())
        && arguments.is_ok_and(|arguments| arguments.contains(LAUNCHER_ARGUMENT))
}

/// Waits until nothing is left but so many launchers that wait for a command, soon.
async fn only_left(most: usize) {
    let is_so = |left: &[String]| left.len() <= most && left.iter().all(is_waiting);
    let begun = std::time::Instant::now();
    let mut left = children();
    // A launcher started ahead counts once it is one: until then it looks like its parent.
    while !is_so(&left) && begun.elapsed() < lab::PATIENCE {
        tokio::task::yield_now().await;
        left = children();
    }
    assert!(is_so(&left), "{left:?}");
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}

/// Threads of the runtime besides the one of the test.
const WORKERS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_what_it_was_before() {
    let mut labs = labs().await;
    while let Some(lab) = labs.pop() {
        hostile_commands_do_not_grow_memory(&lab).await;
        // Each has a launcher that waits for each thread at most.
        no_child_is_left(&lab, (labs.len() + 1) * (WORKERS + 1)).await;
    }
    only_left(0).await;
}
