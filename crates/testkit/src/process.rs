//! The real command in a process of its own, to be killed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use iris_client::Client;

use crate::{SETUP_TOKEN, patiently};

/// A running `iris serve`. Killed when it is dropped.
pub struct ServerProcess {
    /// Like `http://127.0.0.1:40000`.
    pub url: String,
    child: KilledOnDrop,
    /// Kept so that the server can always write.
    _stdout: BufReader<ChildStdout>,
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // Fails when it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What goes wrong here is the test's failure.
impl ServerProcess {
    /// The command with the scripted model, open registration, no limits of rates and no other
    /// environment.
    pub fn command(executable: &str, data_dir: &Path) -> Command {
        let mut command = Command::new(executable);
        command
            .args(["serve", "--bind", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .env_clear()
            .env("IRIS_SETUP_TOKEN", SETUP_TOKEN)
            .env("IRIS_REGISTRATION", "open")
            .env("IRIS_PROVIDERS__DEMO__KIND", "scripted")
            .env("IRIS_DEFAULT_MODEL", "demo/script")
            .env("IRIS_DRAIN_SECONDS", "0")
            // Providers here answer what a test expects to be asked.
            .env("IRIS_TITLES", "false")
            .env("IRIS_REQUESTS_PER_SECOND", "0")
            .env("IRIS_PUBLIC_REQUESTS_PER_MINUTE", "0")
            .env("IRIS_CONNECTIONS_PER_USER_MAX", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// Starts the command and waits until it listens.
    pub async fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::null()).await
    }

    /// The same with standard error in a file.
    pub async fn start_logging(command: Command, log: &Path) -> Self {
        Self::start_with(command, File::create(log).unwrap().into()).await
    }

    async fn start_with(mut command: Command, stderr: Stdio) -> Self {
        let mut child = KilledOnDrop(command.stderr(stderr).spawn().unwrap());
        let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
        let listening = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            (stdout, line)
        });
        let (stdout, line) = patiently("the address", listening).await.unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { url, child, _stdout: stdout }
    }

    /// Runs a command that is expected to end by itself. Gives its exit code and standard error.
    pub async fn refused(command: Command) -> (Option<i32>, String) {
        let ended = Self::ended(command).await;
        (ended.0, ended.2)
    }

    /// The same with standard output before standard error.
    pub async fn ended(mut command: Command) -> (Option<i32>, String, String) {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = KilledOnDrop(command.spawn().unwrap());
        let stdout = tokio::task::spawn_blocking(read(child.0.stdout.take().unwrap()));
        let stderr = tokio::task::spawn_blocking(read(child.0.stderr.take().unwrap()));
        let said = patiently("the end of a command", async { tokio::join!(stdout, stderr) }).await;
        (child.0.wait().unwrap().code(), said.0.unwrap(), said.1.unwrap())
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// A client without tokens.
    pub fn client(&self) -> Client {
        Client::new(&self.url).unwrap()
    }

    /// Kills the process as `kill -9` does, and waits until it is gone.
    pub fn kill(self) {
        drop(self);
    }

    /// The same, and leaves the address.
    pub(crate) fn kill_now(&mut self) {
        // Fails when it has ended already.
        self.child.0.kill().ok();
        self.child.0.wait().ok();
    }

    /// Sends SIGTERM.
    pub fn tell_to_stop(&self) {
        let id = self.child.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// Sends SIGTERM and waits for the exit.
    pub async fn terminate(self) -> ExitStatus {
        self.tell_to_stop();
        self.exited().await
    }

    /// Waits for the exit.
    pub async fn exited(mut self) -> ExitStatus {
        let exit = tokio::task::spawn_blocking(move || self.child.0.wait());
        patiently("the exit", exit).await.unwrap().unwrap()
    }
}

fn read(mut from: impl Read) -> impl FnOnce() -> String {
    move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    }
}
