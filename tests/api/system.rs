//! What a service manager and its operator do with the real command: they hear of it, have it read its configuration
//! again, and ask what there is to set.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use iris_protocol::ErrorCode;
use iris_testkit::{Person, ServerProcess, moment, patiently};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{hang_up, iris, rest_refusal, root};

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self(UnixDatagram::bind(path).unwrap())
    }

    /// The next message that has this line.
    async fn heard(&self, line: &str) -> Vec<String> {
        let socket = self.0.try_clone().unwrap();
        let line = line.to_owned();
        let heard = tokio::task::spawn_blocking(move || {
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut buffer = [0; 1024];
            loop {
                let length = socket.recv(&mut buffer).unwrap();
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                if lines.contains(&line) {
                    return lines;
                }
            }
        });
        patiently("a message to the service manager", heard).await.unwrap()
    }
}

/// Waits until the log has a line with all of these words.
async fn logged(log: &Path, words: &[&str]) -> String {
    let found = async {
        loop {
            let text = std::fs::read_to_string(log).unwrap();
            let is_it = |line: &&str| words.iter().all(|word| line.contains(word));
            if let Some(line) = text.lines().find(is_it) {
                return line.to_owned();
            }
            moment().await;
        }
    };
    patiently(&words.join(" "), found).await
}

#[tokio::test]
async fn the_service_manager_hears_of_the_start_of_life_of_a_reload_and_of_the_end() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = Manager::at(&path);
    let mut command = iris(&dir.path().join("data"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let server = ServerProcess::start(command).await;
    let ready = manager.heard("READY=1").await;
    assert_eq!(ready[1], format!("STATUS=Listening on {}", server.url));
    manager.heard("WATCHDOG=1").await;
    manager.heard("WATCHDOG=1").await;
    hang_up(&server);
    let reloading = manager.heard("RELOADING=1").await;
    let at = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(at.parse::<u64>().unwrap() > 0);
    let ready = manager.heard("READY=1").await;
    assert_eq!(ready[1], "STATUS=Running; the configuration was read again");
    server.tell_to_stop();
    manager.heard("STOPPING=1").await;
    assert!(server.exited().await.success());
}

#[tokio::test]
async fn a_socket_of_the_abstract_namespace_hears_too() {
    let dir = tempdir().unwrap();
    let name = format!("iris-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager(UnixDatagram::bind_addr(&address).unwrap());
    let mut command = iris(dir.path());
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let server = ServerProcess::start(command).await;
    manager.heard("READY=1").await;
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn on_sighup_a_server_takes_what_can_change_and_names_the_rest() {
    let dir = tempdir().unwrap();
    let (file, log) = (dir.path().join("iris.toml"), dir.path().join("stderr"));
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("runs_per_minute = 0\nallowed_origins = ['https://a.example']\n");
    let mut command = iris(&dir.path().join("data"));
    command.env("IRIS_CONFIG", &file);
    let server = ServerProcess::start_logging(command, &log).await;
    let admin = root(&server).await;
    let from = |origin: &'static str| status_for(&server, origin);
    assert_eq!(from("https://a.example").await, 200);
    assert_eq!(from("https://b.example").await, 403);
    let project = admin.project("p").await.id;

    write(
        "runs_per_minute = 1\nallowed_origins = ['https://b.example']\nlog = 'debug'\n\
         events_kept_days = 3\nruns_working_max = 7\n",
    );
    hang_up(&server);
    let line = logged(&log, &["the configuration was read again"]).await;
    for key in ["allowed_origins", "log", "runs_per_minute", "runs_working_max"] {
        assert!(line.contains(key), "{key}: {line}");
    }
    assert!(!line.contains("events_kept_days"), "{line}");
    let line = logged(&log, &["WARN", "counts with the next start"]).await;
    assert!(line.contains("events_kept_days"), "{line}");
    assert_eq!(from("https://a.example").await, 403);
    assert_eq!(from("https://b.example").await, 200);
    assert_eq!(admin.get("/v1/admin/log").await.json["data"]["filter"], "debug");
    let session = admin.session(&project).await.id;
    let messages = format!("/v1/projects/{project}/sessions/{session}/messages");
    assert_eq!(admin.post(&messages, json!({ "content": "say a" })).await.status, 202);
    let refused = admin.post(&messages, json!({ "content": "say b" })).await;
    assert_eq!(rest_refusal(&refused).code, ErrorCode::RateLimited);
    let audited = reload_record(&admin).await;
    assert_eq!(audited["details"]["withNextStart"], json!(["events_kept_days"]));
    assert!(audited["userId"].is_null(), "{audited}");

    // What is wrong changes nothing, and says where it is.
    write("allowed_origins = ['https://c.example']\nruns_per_minut = 5\n");
    hang_up(&server);
    let line = logged(&log, &["ERROR", "nothing of it was taken"]).await;
    assert!(line.contains("line 2") && line.contains("did you mean `runs_per_minute`?"), "{line}");
    assert_eq!(from("https://c.example").await, 403);
    assert_eq!(from("https://b.example").await, 200);
    assert!(server.terminate().await.success());
}

#[tokio::test]
async fn the_name_of_a_server_stays_the_one_that_logins_come_back_to_until_it_starts_again() {
    let dir = tempdir().unwrap();
    let (file, log) = (dir.path().join("iris.toml"), dir.path().join("stderr"));
    std::fs::write(&file, "public_url = 'https://a.example'\n").unwrap();
    let mut command = iris(&dir.path().join("data"));
    command.env("IRIS_CONFIG", &file);
    let server = ServerProcess::start_logging(command, &log).await;
    std::fs::write(&file, "public_url = 'https://b.example'\n").unwrap();
    hang_up(&server);
    let line = logged(&log, &["WARN", "counts with the next start"]).await;
    assert!(line.contains("public_url"), "{line}");
    assert_eq!(status_at(&server, "Host: a.example").await, 200);
    assert_ne!(status_at(&server, "Host: b.example").await, 200);
    assert!(server.terminate().await.success());
}

/// The status of a request from a page of this origin.
async fn status_for(server: &ServerProcess, origin: &str) -> u16 {
    let address = server.url.strip_prefix("http://").unwrap();
    status_at(server, &format!("Host: {address}\r\nOrigin: {origin}")).await
}

/// The status of a request with these headers.
async fn status_at(server: &ServerProcess, headers: &str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET /health/live HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    patiently("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn reload_record(admin: &Person) -> Value {
    let records = admin.get("/v1/admin/audit?action=server.reload").await;
    let record = records.json["data"][0].clone();
    assert_eq!(record["target"], "configuration", "{records:?}");
    record
}

fn config(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    command.arg("config").args(arguments).env_clear();
    command
}

#[tokio::test]
async fn iris_config_says_what_is_wrong_and_what_there_is() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("iris.toml");
    let at = file.to_str().unwrap();
    let (code, text, _) = ServerProcess::ended(config(&["--check", "--data-dir", "/tmp/x"])).await;
    assert_eq!((code, text.as_str()), (Some(0), "the configuration is right\n"));

    std::fs::write(&file, "log = 'info'\n[providers.local]\nkindd = 'ollama'\n").unwrap();
    let (code, text, _) = ServerProcess::ended(config(&["--config", at])).await;
    assert_eq!(code, Some(78));
    let expected = format!(
        "failed: unknown key `providers.local.kindd` in `{at}`, line 3; did you mean `kind`?"
    );
    assert!(text.starts_with(&expected), "{text}");
    let (code, text, _) = ServerProcess::ended(config(&["--config", at, "--json"])).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["key"]), (Some(78), &json!("providers.local.kindd")));

    // The printed file is one that a server takes, and that says nothing new.
    let (code, text, _) = ServerProcess::ended(config(&["--print-default", "--explain"])).await;
    assert_eq!(code, Some(0));
    assert!(text.contains("# Variable: IRIS_DRAIN_SECONDS\n"), "{text}");
    std::fs::write(&file, text).unwrap();
    let (code, text, _) =
        ServerProcess::ended(config(&["--config", at, "--data-dir", "/tmp/x"])).await;
    assert_eq!((code, text.as_str()), (Some(0), "the configuration is right\n"));
    let (_, text, _) = ServerProcess::ended(config(&["--explain", "--json"])).await;
    let all: Value = serde_json::from_str(&text).unwrap();
    let all = all["settings"].as_array().unwrap();
    let drain = all.iter().find(|it| it["key"] == "drain_seconds").unwrap();
    assert_eq!((&drain["default"], &drain["max"]), (&json!("30"), &json!(3600)));
}

#[tokio::test]
async fn the_doctor_looks_at_the_file_system_the_keys_the_clock_and_proxies() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("data");
    let server = ServerProcess::start(iris(&data)).await;
    assert!(server.terminate().await.success());
    let ahead = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    std::fs::File::options()
        .write(true)
        .open(data.join("lock"))
        .unwrap()
        .set_modified(ahead)
        .unwrap();
    std::fs::write(data.join("master.key"), "short").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    command.args(["doctor", "--json", "--data-dir"]).arg(&data).env_clear();
    command
        .env("IRIS_BIND", "127.0.0.1:0")
        .env("IRIS_PROVIDERS__A__KIND", "ollama")
        .env("IRIS_PROVIDERS__A__PROXY", "http://127.0.0.1:9");
    let (code, text, _) = ServerProcess::ended(command).await;
    assert_eq!(code, Some(1), "{text}");
    let findings: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let state = |what: &str, part: &str| {
        let is_it = |it: &&Value| it["what"] == what && it["says"].as_str().unwrap().contains(part);
        findings.iter().find(is_it).map(|it| it["state"].as_str().unwrap().to_owned())
    };
    assert!(state("file system", "").is_some_and(|state| state != "failed"), "{text}");
    assert_eq!(state("keys", "jwt.key").as_deref(), Some("ok"), "{text}");
    assert_eq!(state("keys", "master.key").as_deref(), Some("failed"), "{text}");
    assert_eq!(state("clock", "").as_deref(), Some("warning"), "{text}");
    assert_eq!(state("proxy", "127.0.0.1:9").as_deref(), Some("warning"), "{text}");
}
