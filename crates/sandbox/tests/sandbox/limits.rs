//! What a command takes is bounded (C6, C7).

use std::fs;
use std::path::PathBuf;

use iris_sandbox::{Config, Limits, Shortage, Space, Status};

use crate::ending::{Alive, SURVIVAL_MAX};
use crate::lab::{Lab, PATIENCE, config, example, is_root, labs};

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_meets_the_limit_of_processes_and_is_gone_at_the_end() {
    for namespaces in [true, false] {
        let limits = Limits { processes: 40, ..Limits::default() };
        let Some(lab) = Lab::with(Config { limits, namespaces, ..config() }).await else { return };
        let mut alive = Alive::new(&lab);
        let mut request = lab.shell(
            "exec 9>alive; echo up >&9; b() { b | b & }; b 2>&1; for i in $(seq 2000); do sleep 60 & done",
        );
        request.timeout = std::time::Duration::from_secs(3);
        let (finished, ()) = tokio::join!(lab.sandbox.run(request), alive.up());
        let lived = alive.gone().await;
        let finished = finished.expect("a run");
        let text = finished.output.text();
        assert!(text.contains("fork"), "{:?} `{text}`", finished.status);
        assert!(lived < SURVIVAL_MAX, "{lived:?} in {}", lab.sandbox.tier());
        assert_eq!(lab.text("echo works again").await, "works again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_has_a_limit_of_processes_of_its_own() {
    let limits = Limits { processes: 30, ..Limits::default() };
    let Some(lab) = Lab::with(Config { limits, ..config() }).await else { return };
    if !lab.is_isolated() {
        return;
    }
    // Twice 20 would not fit into one limit of 30.
    let line = "for i in $(seq 20); do sleep 99999 & done; echo up; read -r line < /dev/zero & jobs -r | wc -l";
    let (first, second) = tokio::join!(lab.run(line), lab.run(line));
    for finished in [first, second] {
        assert_eq!(finished.output.text(), "up\n21\n");
    }
}

/// A line of shell that asks for this much memory at once.
fn allocate(kind: &str, gib: u64) -> String {
    format!("{} {kind} {gib}", example("glutton").display())
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded() {
    for lab in labs().await {
        for kind in ["private", "shared"] {
            let finished = lab.run(&allocate(kind, 64)).await;
            let text = finished.output.text();
            assert_eq!(finished.status, Status::Exited(1), "{kind}: {text}");
            // Outside of the sandbox the kernel promises it, as long as nothing is written there.
            let outside = lab.outside(&allocate(kind, 64), true);
            assert!(outside.status.success(), "{kind}: {outside:?}");
        }
        assert_eq!(lab.run(&allocate("private", 1)).await.status, Status::Exited(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_descriptors_time_and_core_files_are_bounded() {
    let limits =
        Limits { file_bytes: 1024 * 1024, open_files: 64, cpu_seconds: 1, ..Limits::default() };
    let Some(lab) = Lab::with(Config { limits, ..config() }).await else { return };
    let finished = lab.run("exec head -c 100G /dev/zero > big").await;
    assert_eq!(finished.status, Status::Signalled(25), "not SIGXFSZ"); // signal(7)
    assert_eq!(lab.text("stat -c %s big").await, "1048576");

    let finished =
        lab.run("for i in $(seq 3 200); do eval \"exec $i</dev/null\" || exit 9; done").await;
    let text = finished.output.text();
    assert!(text.contains("Too many open files") || text.contains("Bad file descriptor"), "{text}");

    let finished = lab.run("exec sh -c 'while :; do :; done'").await;
    // Both limits of processor time are the same, so it is killed and not only told.
    assert_eq!(finished.status, Status::Signalled(9));
    assert_eq!(lab.text("ulimit -c; ulimit -Hc").await, "0\n0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_when_the_disk_has_less_free_than_it_has_to_leave() {
    let Some(lab) = Lab::new().await else { return };
    let mut request = lab.shell("echo begun; sleep 99999");
    request.space = Space { free_bytes_min: u64::MAX, ..Space::default() };
    let finished = lab.sandbox.run(request).await.expect("a run");
    assert_eq!(finished.status, Status::OutOfSpace(Shortage::Disk));
    let mut request = lab.shell("echo enough");
    request.space = Space { free_bytes_min: 1, ..Space::default() };
    assert_eq!(lab.sandbox.run(request).await.expect("a run").status, Status::Exited(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_when_its_directories_grow_beyond_their_bound() {
    const MIB: u64 = 1024 * 1024;
    let Some(lab) = Lab::new().await else { return };
    let grow = "while :; do head -c 100000 /dev/zero >> $HOME/big; sleep 0.02; done";
    let mut request = lab.shell(grow);
    request.space = Space { bytes_max: MIB, ..Space::default() };
    let finished = lab.sandbox.run(request).await.expect("a run");
    assert_eq!(finished.status, Status::OutOfSpace(Shortage::Directories));
    assert!(std::fs::metadata(lab.path("scratch/big")).expect("a file").len() > MIB);

    // Whoever makes nothing more of it may go on, and clear up.
    let mut request = lab.shell("sleep 2.5; rm $HOME/big; echo removed");
    request.space = Space { bytes_max: MIB, ..Space::default() };
    let finished = lab.sandbox.run(request).await.expect("a run");
    assert_eq!((finished.status, finished.output.text()), (Status::Exited(0), "removed\n".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_the_first_to_go_when_memory_runs_out() {
    let Some(lab) = Lab::with(Config { namespaces: false, ..config() }).await else { return };
    let Some(isolated) = Lab::new().await else { return };
    if isolated.is_isolated() {
        assert_eq!(isolated.text("cat /proc/self/oom_score_adj").await, "1000");
    }
    // Without a /proc of its own a command cannot look, so somebody outside does.
    lab.sandbox.share_directory(&lab.path("project")).expect("a directory");
    let mut request = lab.shell("echo $$; read -r line < /dev/stdin; sleep 99999");
    let (progress, mut pieces) = tokio::sync::mpsc::channel(4);
    let (cancel, cancelled) = tokio::sync::oneshot::channel();
    (request.progress, request.cancel) = (Some(progress), Some(cancelled));
    let look = async {
        let piece = pieces.recv().await.expect("a number");
        let pid = String::from_utf8(piece).expect("text");
        let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", pid.trim()));
        cancel.send(()).expect("a run");
        score.expect("a score").trim().to_owned()
    };
    let (_, score) = tokio::join!(lab.sandbox.run(request), look);
    assert_eq!(score, "1000");
}

/// `nice` without a command says how nice it is (nice(1)).
#[tokio::test(flavor = "multi_thread")]
async fn commands_stand_behind_the_server_when_processor_time_is_scarce() {
    let limits = Limits { nice: 7, ..Limits::default() };
    let Some(lab) = Lab::with(Config { limits, ..config() }).await else { return };
    let outside = std::process::Command::new("nice").output().expect("a number").stdout;
    let outside: i32 = String::from_utf8_lossy(&outside).trim().parse().expect("a number");
    assert_eq!(lab.text("nice").await, (outside + 7).min(19).to_string());
}

/// A group of the kernel to make others in, removed when it is dropped.
struct Parent(PathBuf);

impl Parent {
    /// None where the tests may make none: they are not root's, there is no hierarchy of cgroup v2, or it
    /// cannot be written, as in most containers.
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mut mounts = mounts.lines().map(|mount| mount.split(' ').collect::<Vec<_>>());
        let top = mounts.find_map(|mount| match mount.as_slice() {
            [_, top, "cgroup2", ..] => Some(PathBuf::from(top)),
            _ => None,
        });
        let path = top.filter(|_| is_root())?.join(format!("iris-test-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&path) {
            eprintln!("skipped: `{}`: {error}", path.display());
            return None;
        }
        // Those that the groups above have.
        for controller in ["+pids", "+memory", "+cpu"] {
            drop(fs::write(path.join("cgroup.subtree_control"), controller));
        }
        Some(Self(path))
    }

    /// What the groups in it say in a file that each of them has.
    fn says(&self, file: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a directory").filter_map(Result::ok);
        let groups = entries.filter(|entry| entry.path().is_dir());
        groups.filter_map(|group| fs::read_to_string(group.path().join(file)).ok()).collect()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_the_kernel_is_used_and_removed() {
    let Some(parent) = Parent::make() else { return };
    // Half of a processor.
    let limits = Limits { cpu_percent: Some(50), ..Limits::default() };
    let config = Config { cgroup: Some(parent.0.clone()), limits, ..config() };
    let Some(lab) = Lab::with(config).await else { return };
    let mut request = lab.shell("echo up; sleep 99999");
    let (progress, mut pieces) = tokio::sync::mpsc::channel(4);
    let (cancel, cancelled) = tokio::sync::oneshot::channel();
    (request.progress, request.cancel) = (Some(progress), Some(cancelled));
    let look = async {
        pieces.recv().await.expect("a line");
        let [processes] = &parent.says("cgroup.procs")[..] else { panic!("not one group") };
        assert!(processes.lines().count() >= 2, "no launcher and command: {processes}");
        // There is none where the controller is not switched on.
        let quotas = parent.says("cpu.max");
        assert!(quotas.is_empty() || quotas == ["50000 100000\n"], "{quotas:?}");
        cancel.send(()).expect("a run");
    };
    let (finished, ()) = tokio::join!(lab.sandbox.run(request), look);
    assert_eq!(finished.expect("a run").status, Status::Cancelled);
    let begun = std::time::Instant::now();
    while !parent.says("cgroup.procs").is_empty() && begun.elapsed() < PATIENCE {
        tokio::task::yield_now().await;
    }
    assert_eq!(parent.says("cgroup.procs"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_no_group_of_the_kernel_is_reported() {
    let cgroup = Some(std::env::temp_dir());
    let sandbox = iris_sandbox::Sandbox::start(Config { cgroup, ..config() }).await;
    let missing: Vec<String> = sandbox.missing().iter().map(ToString::to_string).collect();
    assert!(missing.iter().any(|line| line.contains("cgroup v2")), "{missing:?}");
}
