//! Nothing of a command is left when it ends, whoever ends it (C6, C9, C10).
//!
//! What lives is seen by a pipe in the project that every process of a command has open: its reader hears
//! the end when the last of them is gone.

use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use iris_sandbox::{Config, SandboxError, Status};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::lab::{Lab, PATIENCE, UID, config, example, is_root, labs, set_mode};

/// How long anything may live on.
pub(crate) const SURVIVAL_MAX: Duration = Duration::from_millis(200);
/// A daemon that two forks and a session of its own have cut loose, and one that ignores what it can. `9` is
/// the pipe; the last line says that all are there.
pub(crate) const TREE: &str = "exec 9>alive
    (setsid sh -c '(sleep 99999 & sleep 99999) & sleep 99999' &)
    (trap '' TERM INT HUP; while :; do sleep 99999; done) &
    setsid sh -c 'trap \"\" TERM; echo up >&9; while :; do sleep 99999; done' &
    ";

/// The end of the pipe that hears when all are gone.
pub(crate) struct Alive(pipe::Receiver);

impl Alive {
    pub(crate) fn new(lab: &Lab) -> Self {
        let path = lab.path("project/alive");
        drop(std::fs::remove_file(&path));
        mkfifo(&path, Mode::from_bits_truncate(0o666)).expect("a pipe");
        set_mode(&path, 0o666);
        Self(pipe::OpenOptions::new().open_receiver(&path).expect("a pipe"))
    }

    /// Waits until the processes are there.
    pub(crate) async fn up(&mut self) {
        let mut line = [0; 3];
        // The pipe reads as ended until somebody has opened it.
        loop {
            let read = timeout(PATIENCE, self.0.readable());
            read.await.expect("the processes start").expect("a pipe");
            match self.0.try_read(&mut line) {
                Ok(3) => return,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// How long it takes from now until all are gone.
    pub(crate) async fn gone(mut self) -> Duration {
        let begun = Instant::now();
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await;
        end.expect("everything ends").expect("a pipe");
        begun.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_a_command_ends_though_children_hold_its_output() {
    for lab in labs().await {
        let mut alive = Alive::new(&lab);
        let line = format!("{TREE} read -r line < ready; echo done; exit 7");
        mkfifo(&lab.path("project/ready"), Mode::from_bits_truncate(0o666)).expect("a pipe");
        set_mode(&lab.path("project/ready"), 0o666);
        let ready = lab.path("project/ready");
        let running = lab.run(&line);
        let telling = async {
            alive.up().await;
            std::fs::write(ready, "go\n").expect("a line");
        };
        let (finished, ()) = tokio::join!(running, telling);
        assert_eq!((finished.status, finished.output.text()), (Status::Exited(7), "done\n".into()));
        let lived = alive.gone().await;
        assert!(lived < SURVIVAL_MAX, "{lived:?} in {}", lab.sandbox.tier());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_time_is_over_though_children_ignore_it() {
    let grace = Duration::from_millis(300);
    for namespaces in [true, false] {
        let Some(lab) = Lab::with(Config { grace, namespaces, ..config() }).await else { return };
        let mut alive = Alive::new(&lab);
        let mut request =
            lab.shell(&format!("{TREE} trap '' TERM; echo begun; while :; do sleep 9; done"));
        request.timeout = Duration::from_secs(2);
        let begun = Instant::now();
        let (finished, ()) = tokio::join!(lab.sandbox.run(request), alive.up());
        let finished = finished.expect("a run");
        assert_eq!(finished.status, Status::TimedOut);
        assert_eq!(finished.output.text(), "begun\n");
        assert!(begun.elapsed() >= Duration::from_secs(2) + grace, "{:?}", begun.elapsed());
        let lived = alive.gone().await;
        assert!(lived < SURVIVAL_MAX, "{lived:?} in {}", lab.sandbox.tier());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_listens_may_end_properly_when_time_is_over() {
    // Long enough to tell that nothing was killed.
    let grace = Duration::from_mins(10);
    let Some(lab) = Lab::with(Config { grace, ..config() }).await else { return };
    let mut request = lab.shell("trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done");
    request.timeout = Duration::from_secs(1);
    let finished = lab.sandbox.run(request).await.expect("a run");
    assert_eq!(finished.status, Status::TimedOut);
    assert!(finished.output.text().ends_with("bye\n"), "{}", finished.output.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_nobody_waits_any_more() {
    for lab in labs().await {
        let mut alive = Alive::new(&lab);
        let request = lab.shell(&format!("{TREE} wait"));
        let sandbox = lab.sandbox.clone();
        let running = tokio::spawn(async move { sandbox.run(request).await });
        alive.up().await;
        running.abort();
        let lived = alive.gone().await;
        assert!(lived < SURVIVAL_MAX, "{lived:?} in {}", lab.sandbox.tier());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_can_be_cancelled_and_its_output_is_kept() {
    for lab in labs().await {
        let mut alive = Alive::new(&lab);
        let mut request = lab.shell(&format!("echo so far; {TREE} wait"));
        let (cancel, cancelled) = oneshot::channel();
        request.cancel = Some(cancelled);
        let cancelling = async {
            alive.up().await;
            cancel.send(()).expect("a run");
        };
        let (finished, ()) = tokio::join!(lab.sandbox.run(request), cancelling);
        let finished = finished.expect("a run");
        assert_eq!(
            (finished.status, finished.output.text()),
            (Status::Cancelled, "so far\n".into())
        );
        let lived = alive.gone().await;
        assert!(lived < SURVIVAL_MAX, "{lived:?} in {}", lab.sandbox.tier());
    }
}

/// A server in a process of its own that runs the tree.
fn server(lab: &Lab, is_talk: bool) -> Child {
    Process::new(example("server"))
        .arg(example("launcher"))
        .arg(if is_root() { UID.to_string() } else { "-".to_owned() })
        .arg(if lab.is_isolated() { "yes" } else { "no" })
        .args([lab.path("project"), lab.path("scratch")])
        .arg(format!("{TREE} wait"))
        .args(is_talk.then_some("talk"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a server")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_the_server_is_killed() {
    for lab in labs().await {
        for is_talk in [false, true] {
            let mut alive = Alive::new(&lab);
            let mut server = server(&lab, is_talk);
            alive.up().await;
            server.kill().expect("a server"); // SIGKILL
            let lived = alive.gone().await;
            server.wait().expect("an end");
            assert!(lived < SURVIVAL_MAX, "{lived:?} in {}", lab.sandbox.tier());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_the_launcher_is_killed() {
    let Some(lab) = Lab::new().await else { return };
    if !lab.is_isolated() {
        // Without namespaces processes outlive it, as docs/sandbox.md says.
        return;
    }
    let mut alive = Alive::new(&lab);
    let server = server(&lab, false);
    alive.up().await;
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).expect("threads");
    let lists = tasks.map(|task| task.expect("a thread").path().join("children"));
    let children: String = lists.filter_map(|list| std::fs::read_to_string(list).ok()).collect();
    // Whatever else there is for a moment, the launcher has a child.
    let has_child = |child: &&str| {
        let below = std::fs::read_to_string(format!("/proc/{child}/task/{child}/children"));
        below.is_ok_and(|below| !below.is_empty())
    };
    let launchers: Vec<&str> = children.split_whitespace().filter(has_child).collect();
    let [launcher] = launchers.as_slice() else { panic!("{launchers:?}") };
    let launcher = launcher.parse().expect("an id");
    kill(Pid::from_raw(launcher), Signal::SIGKILL).expect("a launcher");
    let lived = alive.gone().await;
    let output = server.wait_with_output().expect("an end");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("the launcher of the sandbox failed"), "{told}");
    assert!(lived < SURVIVAL_MAX, "{lived:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_of_a_command_itself_are_told() {
    for lab in labs().await {
        for (line, expected) in [
            ("kill -TERM $$", Status::Signalled(15)),
            ("kill -KILL $$", Status::Signalled(9)),
            ("kill 0; exit 4", Status::Signalled(15)),
            ("kill -9 -1; exit 4", Status::Signalled(9)),
            ("exit 200", Status::Exited(200)),
        ] {
            let status = lab.run(line).await.status;
            // Bash leaves itself out of the last.
            let is_left_out = line.contains("-1") && status == Status::Exited(4);
            assert!(status == expected || is_left_out, "`{line}`: {status:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_that_says_nothing_is_an_error() {
    let mut config = config();
    config.launcher = Some("/bin/true".into());
    let sandbox = iris_sandbox::Sandbox::start(config).await;
    let missing: Vec<String> = sandbox.missing().iter().map(ToString::to_string).collect();
    assert!(missing.iter().any(|line| line.contains("launcher")), "{missing:?}");
    assert!(matches!(sandbox.check(), Err(SandboxError::Unavailable { .. })));
}
