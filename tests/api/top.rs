//! `iris top` and `iris logs` as operators run them: processes beside a server process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use iris_protocol::{ActorPage, SupervisionKind, SupervisionRecord};
use iris_testkit::{PASSWORD, SETUP_TOKEN, ServerProcess, patiently};
use tempfile::tempdir;
use tokio::sync::mpsc;

use crate::root;

/// A server on a port that stays the same when it is started again.
async fn start(bind: &str, data_dir: &Path) -> ServerProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    command.args(["serve", "--bind", bind, "--data-dir"]).arg(data_dir);
    command.env_clear().env("IRIS_SETUP_TOKEN", SETUP_TOKEN);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    ServerProcess::start(command).await
}

/// A command for operators at a server.
fn iris(url: &str, token: &str, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    command.args(args.split_whitespace()).env_clear();
    command.env("IRIS_URL", url).env("IRIS_TOKEN", token);
    command
}

/// Runs it to its end: exit code, standard output, standard error.
async fn told(url: &str, token: &str, args: &str) -> (Option<i32>, String, String) {
    ServerProcess::ended(iris(url, token, args)).await
}

/// `iris logs --follow --json` on its way. Killed when it is dropped.
struct Follower {
    child: Child,
    lines: mpsc::Receiver<String>,
    last: u64,
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Fails when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Follower {
    fn start(url: &str, token: &str) -> Self {
        let mut command = iris(url, token, "logs --follow --json");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (lines_tx, lines) = mpsc::channel(16);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // A test that has heard enough closes the pipe.
                if lines_tx.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, last: 0 }
    }

    /// The record of that kind about that actor; all before it have to come in order too.
    async fn wait_for(&mut self, kind: SupervisionKind, path: &str) -> SupervisionRecord {
        let waiting = async {
            loop {
                let line = self.lines.recv().await.unwrap();
                let record: SupervisionRecord = serde_json::from_str(&line).unwrap();
                assert!(record.id > self.last, "{line}");
                self.last = record.id;
                if record.kind == kind && record.path == path {
                    return record;
                }
            }
        };
        patiently("a record", waiting).await
    }

    async fn exit_code(mut self) -> Option<i32> {
        // Lets it write on, or find that nobody reads.
        self.lines.close();
        while self.lines.recv().await.is_some() {}
        let ended = tokio::task::spawn_blocking(move || self.child.wait().unwrap().code());
        patiently("the end of `iris logs`", ended).await.unwrap()
    }
}

#[tokio::test]
async fn the_actors_are_printed_once() {
    let dir = tempdir().unwrap();
    let server = start("127.0.0.1:0", dir.path()).await;
    let root = root(&server).await;
    let project = root.conversation().await.project;
    let path = format!("node/directory/project/{project}");

    let (code, text, errors) = told(&server.url, root.token(), "top --once --json").await;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let page: ActorPage = serde_json::from_str(&text).unwrap();
    let find = |path: &str| page.actors.iter().find(|actor| actor.path == path);
    assert_eq!(find(&path).map(|actor| actor.kind.as_str()), Some("project"));
    assert!(find("node/root").is_some() && find("node/directory").is_some(), "{text}");
    assert_eq!(page.node.version, env!("CARGO_PKG_VERSION"));

    let args = format!("top --once --project {project} --kind project");
    let (code, text, _) = told(&server.url, root.token(), &args).await;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 3), "{text}");
    assert!(lines[1].starts_with("ACTOR ") && lines[2].starts_with(&path), "{text}");
}

#[tokio::test]
async fn an_administrator_may_log_in_for_it() {
    let dir = tempdir().unwrap();
    let server = start("127.0.0.1:0", dir.path()).await;
    root(&server).await;
    let mut command = iris(&server.url, "", "top --once --email root@example.com");
    command.env_remove("IRIS_TOKEN").env("IRIS_PASSWORD", PASSWORD);
    let (code, text, errors) = ServerProcess::ended(command).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(text.contains("node/root"), "{text}");
}

#[tokio::test]
async fn who_is_refused_or_finds_nobody_is_told_why() {
    let dir = tempdir().unwrap();
    let server =
        ServerProcess::start(ServerProcess::command(env!("CARGO_BIN_EXE_iris"), dir.path()));
    let server = server.await;
    let ann = iris_protocol::AuthRegister {
        invitation: None,
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let ann = server.client().register(&ann).await.unwrap().access_token;
    for (url, token, args, code, words) in [
        (server.url.as_str(), ann.as_str(), "top --once", 77, "FORBIDDEN: "),
        (&server.url, &ann, "logs", 77, "FORBIDDEN: "),
        (&server.url, &ann, "logs --follow", 77, "FORBIDDEN: "),
        (&server.url, "nonsense", "top --once", 77, "log in with `iris login`"),
        ("http://127.0.0.1:1", &ann, "top --once", 69, "no connection to the server: "),
        ("http://127.0.0.1:1", &ann, "logs --follow", 69, "no connection to the server: "),
        ("nowhere", &ann, "top --once", 2, "`nowhere`"),
        (&server.url, &ann, "top", 2, "use `--once`"),
        (&server.url, &ann, "top --json", 2, "--once"),
        (&server.url, &ann, "logs --kind gone", 2, "`gone`"),
    ] {
        let (ended, text, errors) = told(url, token, args).await;
        assert_eq!((ended, text.as_str()), (Some(code), ""), "{args}: {errors}");
        assert!(errors.contains(words), "{args}: {errors}");
    }
}

#[tokio::test]
async fn the_log_is_followed_through_a_restart_of_the_server() {
    let dir = tempdir().unwrap();
    let server = start("127.0.0.1:0", dir.path()).await;
    let bind = server.url.strip_prefix("http://").unwrap().to_owned();
    let root = root(&server).await;
    let mut follower = Follower::start(&server.url, root.token());
    follower.wait_for(SupervisionKind::Started, "node/root").await;
    let project = root.conversation().await.project;
    let path = format!("node/directory/project/{project}");
    follower.wait_for(SupervisionKind::Started, &path).await;
    server.kill();

    let _server = start(&bind, dir.path()).await;
    root.session(&project).await;
    follower.wait_for(SupervisionKind::Started, &path).await;
    let id = follower.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(follower.exit_code().await, Some(0));
}

#[tokio::test]
async fn following_ends_well_when_nobody_reads() {
    let dir = tempdir().unwrap();
    let server = start("127.0.0.1:0", dir.path()).await;
    let root = root(&server).await;
    let mut follower = Follower::start(&server.url, root.token());
    follower.wait_for(SupervisionKind::Started, "node/root").await;
    // The next lines find the pipe closed.
    follower.lines.close();
    let coming_and_going = async {
        while follower.child.try_wait().unwrap().is_none() {
            root.connect().await.close().await;
        }
    };
    patiently("`iris logs` to end", coming_and_going).await;
    assert_eq!(follower.exit_code().await, Some(0));
}
