//! What has to be measured in a process in which nothing else happens: memory, and children that nobody
//! has waited for.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "what should not happen fails the test")]

#[path = "sandbox/lab.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod lab;

use std::fs;
use std::time::Duration;

use iris_sandbox::Status;

use lab::{Lab, labs};

/// Bytes of memory of this process: the second number of `/proc/self/statm`, in pages.
fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("a file");
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size() as u64
}

/// Children of this process, those that have ended and those that have not.
fn children() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("threads").filter_map(Result::ok);
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

async fn yes_does_not_grow_memory(lab: &Lab) {
    lab.text("true").await;
    let before = resident_bytes();
    let mut request = lab.shell("yes");
    request.timeout = Duration::from_secs(1);
    let finished = lab.sandbox.run(request).await.expect("a run");
    assert_eq!(finished.status, Status::TimedOut);
    // More than any pipe or buffer holds, so somebody has read on.
    assert!(finished.output.bytes_total > 16 * 1024 * 1024, "{}", finished.output.bytes_total);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes more");
}

async fn no_child_is_left(lab: &Lab) {
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
    let begun = std::time::Instant::now();
    while !children().is_empty() && begun.elapsed() < lab::PATIENCE {
        tokio::task::yield_now().await;
    }
    assert_eq!(children(), Vec::<String>::new());
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_what_it_was_before() {
    for lab in labs().await {
        yes_does_not_grow_memory(&lab).await;
        no_child_is_left(&lab).await;
    }
}
