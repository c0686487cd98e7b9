//! Where the programs of the tests run.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use iris_mcp::{CallAnswer, Connection, McpError, Patience, Target};
use iris_sandbox::{Command, Config, Request, Sandbox};
use serde_json::{Map, Value};
use tempfile::TempDir;

/// How long anything may take that should be quick.
pub(crate) const SOON: Duration = Duration::from_mins(1);

pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
    base: TempDir,
}

/// An example of this crate, which cargo builds before it runs tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.ancestors().nth(2).expect("target/profile/deps");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "`{}` is not built", path.display());
    path
}

impl Lab {
    /// None on a machine whose kernel has no sandbox, unless `IRIS_TEST_TIER` or CI says that it must.
    pub(crate) async fn new() -> Option<Self> {
        Self::seeing(Vec::new()).await
    }

    /// The same whose programs see these directories too.
    pub(crate) async fn seeing(mut directories: Vec<PathBuf>) -> Option<Self> {
        directories.push(example("mcp_fake").parent().expect("a folder").to_owned());
        let is_root = fs::metadata("/proc/self").expect("a process").uid() == 0;
        let sandbox = Sandbox::start(Config {
            uid: is_root.then_some(10_999),
            launcher: Some(example("mcp_launcher")),
            extra_read_only: directories,
            ..Config::default()
        })
        .await;
        if let Err(error) = sandbox.check() {
            let is_ci = std::env::var("CI").as_deref() == Ok("true");
            assert!(!is_ci && std::env::var_os("IRIS_TEST_TIER").is_none(), "{error}");
            eprintln!("skipped: {error}");
            return None;
        }
        let base = TempDir::with_prefix_in("iris-mcp-", "/var/tmp").expect("a directory");
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        for name in ["project", "scratch"] {
            fs::create_dir(base.path().join(name)).expect("a directory");
            sandbox.share_directory(&base.path().join(name)).expect("a shared directory");
        }
        Some(Self { sandbox, base })
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.base.path().join("project")
    }

    /// A program in the sandbox.
    pub(crate) fn program(&self, arguments: &[&str]) -> Target {
        let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        let scratch = self.base.path().join("scratch");
        let request = Request::new(Command::Arguments(arguments), self.project(), scratch);
        Target::Program { sandbox: self.sandbox.clone(), request: Box::new(request) }
    }

    /// The fake server.
    pub(crate) fn fake(&self, arguments: &[&str]) -> Target {
        let fake = example("mcp_fake").display().to_string();
        self.program(&[&[fake.as_str()], arguments].concat())
    }

    pub(crate) async fn open(&self, arguments: &[&str]) -> Connection {
        Connection::open(self.fake(arguments), Patience::default()).await.expect("a connection")
    }
}

/// Calls a tool with a text.
pub(crate) async fn call(
    connection: &Connection,
    name: &str,
    text: &str,
) -> Result<CallAnswer, McpError> {
    let arguments = Map::from_iter([("text".to_owned(), Value::String(text.to_owned()))]);
    connection.call(name, arguments, None).await
}

/// The text of a call that worked.
pub(crate) async fn text(connection: &Connection, name: &str, given: &str) -> String {
    let answer = call(connection, name, given).await.expect("an answer");
    assert!(!answer.is_error, "{}", answer.text);
    answer.text
}
