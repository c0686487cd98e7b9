//! What the sandbox costs: `true` inside of it, less a plain `true`, taken in turns.
//!
//! `cargo bench -p iris-sandbox` prints the medians; with `--check` it fails when the sandbox adds more than 3 ms to
//! one, or runs nothing on this machine. As root, commands run as the user 10999. The
//! variable `IRIS_LAUNCHER` names another executable as launcher than this one, such as the server;
//! `IRIS_TIER=S2` leaves namespaces out, and `IRIS_CGROUP` names a directory to make groups in.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench prints and ends at once")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command as Plain, ExitCode, Stdio};
use std::time::{Duration, Instant};

use iris_sandbox::{
    Command, Config, LAUNCHER_ARGUMENT, Request, Sandbox, Status, Tier, launcher_main,
};
use tempfile::TempDir;

const ROUNDS: usize = 300;
/// What the sandbox may add to the median (threat model, and docs/sandbox.md).
const EXTRA_MAX: Duration = Duration::from_millis(3);
/// Memory of a server that has worked for a while.
const BALLAST_BYTES: usize = 1024 * 1024 * 1024;
/// A user that no system has.
const UID: u32 = 10999;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == LAUNCHER_ARGUMENT) {
        return launcher_main();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let is_checked = std::env::args().any(|argument| argument == "--check");
    let is_fast = runtime.block_on(measure());
    if is_checked && !is_fast { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn measure() -> bool {
    let place = TempDir::new().expect("a directory");
    let (project, scratch) = (directory(&place, "project"), directory(&place, "scratch"));
    let is_root = place.path().metadata().expect("a directory").uid() == 0;
    let started = Instant::now();
    let sandbox = Sandbox::start(Config {
        minimum: Tier::S2,
        uid: is_root.then_some(UID),
        launcher: std::env::var_os("IRIS_LAUNCHER").map(PathBuf::from),
        cgroup: std::env::var_os("IRIS_CGROUP").map(PathBuf::from),
        namespaces: std::env::var_os("IRIS_TIER").is_none_or(|tier| tier != "S2"),
        ..Config::default()
    })
    .await;
    println!("tier {}, self-test {:?}", sandbox.tier(), started.elapsed());
    if let Err(error) = sandbox.check() {
        println!("nothing is measured: {error}");
        return false;
    }
    for directory in [&project, &scratch] {
        sandbox.share_directory(directory).expect("a shared directory");
    }
    let small = compare(&sandbox, &project, &scratch).await;
    println!("with an empty server: {small:?} more");
    let ballast = vec![1_u8; BALLAST_BYTES];
    let large = compare(&sandbox, &project, &scratch).await;
    println!("with 1 GiB in memory: {large:?} more");
    drop(std::hint::black_box(ballast));
    small <= EXTRA_MAX && large <= EXTRA_MAX
}

fn directory(place: &TempDir, name: &str) -> PathBuf {
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path(), everybody).expect("a mode");
    let path = place.path().join(name);
    std::fs::create_dir(&path).expect("a directory");
    path
}

fn plain_true() -> Duration {
    let begun = Instant::now();
    let output = Plain::new("/bin/true").stdin(Stdio::null()).output().expect("a process");
    assert!(output.status.success());
    begun.elapsed()
}

/// What the sandbox adds to the median.
async fn compare(sandbox: &Sandbox, project: &Path, scratch: &Path) -> Duration {
    let (mut plain, mut sandboxed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // The first does not count: beside it the launcher for the next command is started.
        plain_true();
        plain.push(plain_true());

        let command = Command::Arguments(vec!["/bin/true".to_owned()]);
        let begun = Instant::now();
        let request = Request::new(command, project.to_owned(), scratch.to_owned());
        let finished = sandbox.run(request).await.expect("a run");
        sandboxed.push(begun.elapsed());
        assert_eq!(finished.status, Status::Exited(0));
    }
    let (plain, sandboxed) = (median(plain), median(sandboxed));
    println!("plain {plain:?}, sandboxed {sandboxed:?}");
    sandboxed.saturating_sub(plain)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
