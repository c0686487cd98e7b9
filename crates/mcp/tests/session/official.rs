//! The official servers of the protocol (npm `@modelcontextprotocol/server-everything` and
//! `server-filesystem`, pinned in `tests/servers`): as programs in the sandbox, and over HTTP.
//!
//! `IRIS_MCP_SERVERS` names the `node_modules` that they are in; `.ci/run test` installs them there. Without
//! it this is skipped, unless `CI` is `true`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use iris_mcp::{
    Connection, Elicitation, ElicitationAnswer, ElicitationSource, HttpServer, Patience, Target,
    Token,
};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::lab::{Lab, SOON};
use crate::web::egress_to;

/// Where the servers are; none where the test is skipped.
fn servers() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("IRIS_MCP_SERVERS") {
        return Some(PathBuf::from(path).canonicalize().expect("IRIS_MCP_SERVERS is a directory"));
    }
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!is_ci, "IRIS_MCP_SERVERS names no official servers: .ci/run test installs them");
    eprintln!("skipped: IRIS_MCP_SERVERS is not set");
    None
}

fn node() -> PathBuf {
    let path = std::env::var_os("PATH").expect("a path");
    let found = std::env::split_paths(&path).map(|it| it.join("node")).find(|it| it.exists());
    found.expect("node is installed").canonicalize().expect("a path")
}

fn script(servers: &Path, name: &str) -> String {
    let path = servers.join("@modelcontextprotocol").join(name).join("dist/index.js");
    assert!(path.exists(), "`{}` is not installed", path.display());
    path.display().to_string()
}

/// The servers, and the directory that node is installed in.
async fn lab(servers: &Path) -> Option<Lab> {
    let prefix = node().ancestors().nth(2).expect("bin/node").to_owned();
    Lab::seeing(vec![servers.to_owned(), prefix]).await
}

async fn open(lab: &Lab, script: &str, argument: &str) -> Connection {
    let node = node().display().to_string();
    let target = lab.program(&[&node, script, argument]);
    Connection::open(target, Patience::default()).await.expect("a connection")
}

async fn call(connection: &Connection, name: &str, arguments: Value) -> String {
    let Value::Object(arguments) = arguments else { panic!("an object") };
    let answer = connection.call(name, arguments, None).await.expect("an answer");
    assert!(!answer.is_error, "{}", answer.text);
    answer.text
}

fn names(tools: &[iris_mcp::Definition]) -> Vec<&str> {
    tools.iter().map(|tool| tool.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_server_for_everything_is_driven_as_a_program() {
    let Some(servers) = servers() else { return };
    let Some(lab) = lab(&servers).await else { return };
    let connection = open(&lab, &script(&servers, "server-everything"), "stdio").await;
    let tools = connection.tools().await.expect("tools");
    assert!(names(&tools).contains(&"echo"), "{:?}", names(&tools));
    let hash = iris_mcp::hash_of_all(&tools);
    let again = iris_mcp::hash_of_all(&connection.tools().await.expect("tools"));
    assert_eq!(again, hash, "it lists the same twice");
    let text = call(&connection, "echo", json!({"message": "hello"})).await;
    assert!(text.contains("hello"), "{text}");
    let wrong = connection.call("echo", Map::new(), None).await.expect("an answer");
    assert!(wrong.is_error, "{}", wrong.text);
    assert_eq!(connection.report().counts, iris_mcp::Counts::default());
    elicits(&connection, &names(&tools)).await;
    connection.close().await;
}

/// Says yes to everything with what the schema wants at least.
struct Obliging;

impl ElicitationSource for Obliging {
    fn ask(&self, _: Elicitation) -> BoxFuture<'static, ElicitationAnswer> {
        async { ElicitationAnswer::Accept(json!({"name": "Ann"})) }.boxed()
    }
}

async fn elicits(connection: &Connection, tools: &[&str]) {
    let name = tools.iter().find(|name| name.contains("elicitation"));
    let Some(name) = name else { panic!("no tool asks people: {tools:?}") };
    let answer = connection.call(name, Map::new(), Some(Arc::new(Obliging))).await;
    let answer = answer.expect("an answer");
    assert!(!answer.is_error && answer.text.contains("Ann"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_server_for_files_works_in_the_project_and_nowhere_else() {
    let Some(servers) = servers() else { return };
    let Some(lab) = lab(&servers).await else { return };
    let project = lab.project().canonicalize().expect("a directory").display().to_string();
    let connection = open(&lab, &script(&servers, "server-filesystem"), &project).await;
    let tools = connection.tools().await.expect("tools");
    assert!(names(&tools).contains(&"write_file"), "{:?}", names(&tools));
    let path = format!("{project}/note.txt");
    let note = json!({"path": path, "content": "from the server\n"});
    call(&connection, "write_file", note).await;
    let written = std::fs::read_to_string(lab.project().join("note.txt")).expect("a file");
    assert_eq!(written, "from the server\n");
    let text = call(&connection, "read_text_file", json!({"path": path})).await;
    assert!(text.contains("from the server"), "{text}");
    let outside = Map::from_iter([("path".to_owned(), json!("/etc/shadow"))]);
    let refused = connection.call("read_text_file", outside, None).await.expect("an answer");
    assert!(refused.is_error, "{}", refused.text);
    connection.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_server_for_everything_is_driven_over_http() {
    let Some(servers) = servers() else { return };
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let mut server = Command::new(node())
        .args([script(&servers, "server-everything").as_str(), "streamableHttp"])
        .env("PORT", address.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node");
    let mut lines = BufReader::new(server.stderr.take().expect("a pipe")).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await.expect("a pipe") {
            if line.contains(&address.port().to_string()) {
                return;
            }
        }
        panic!("it ended");
    };
    timeout(SOON, listening).await.expect("it listens");
    let url = format!("http://{address}/mcp").parse().expect("a url");
    let egress = egress_to(&[address]);
    let target =
        Target::Http(HttpServer { egress, url, headers: Vec::new(), token: Token::default() });
    let connection = Connection::open(target, Patience::default()).await.expect("a connection");
    let tools = connection.tools().await.expect("tools");
    let text = call(&connection, "echo", json!({"message": "over http"})).await;
    assert!(text.contains("over http"), "{text}");
    elicits(&connection, &names(&tools)).await;
    assert_eq!(connection.report().counts, iris_mcp::Counts::default());
    connection.close().await;
}
