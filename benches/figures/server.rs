//! The release binary as a child process.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// Lets the figures make the first administrator.
pub(crate) const SETUP_TOKEN: &str = "abcdefghijklmnop0123456789";
/// The provider of the scripted model.
pub(crate) const PROVIDER: &str = "scripted";

/// How an answer begins when all is well.
pub(crate) const OK: &str = "HTTP/1.1 200 ";

/// The server's program: the one that `IRIS` names, that of a release for example, else the one that was built
/// with this.
pub(crate) fn binary() -> OsString {
    std::env::var_os("IRIS").unwrap_or_else(|| env!("CARGO_BIN_EXE_iris").into())
}

/// Everybody here is one user who does much.
const LIMITS_OFF: [(&str, &str); 9] = [
    ("IRIS_REQUESTS_PER_SECOND", "0"),
    ("IRIS_CONNECTIONS_PER_USER_MAX", "0"),
    ("IRIS_REFUSALS_PER_MINUTE_MAX", "0"),
    ("IRIS_PUBLIC_REQUESTS_PER_MINUTE", "0"),
    ("IRIS_KEY_REQUESTS_PER_SECOND", "0"),
    ("IRIS_RUNS_PER_MINUTE", "0"),
    ("IRIS_UPLOADS_PER_MINUTE", "0"),
    ("IRIS_LOGIN_FAILURES_PER_10_MINUTES", "0"),
    ("IRIS_UNKNOWN_CONNECTIONS_PER_ADDRESS_MAX", "0"),
];

/// A server that runs until it is stopped or dropped.
pub(crate) struct Server {
    child: Child,
    url: String,
    /// From the spawn to the line that says where it listens.
    pub(crate) listening_after: Duration,
    /// From the spawn to the first answer that it is ready.
    pub(crate) ready_after: Duration,
}

/// A directory on the disk of the build, which is a real one where `/tmp` may not be.
pub(crate) fn data_dir() -> io::Result<TempDir> {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub(crate) fn start(data_dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(data_dir, &[])
    }

    /// The same with further settings.
    pub(crate) fn start_with(data_dir: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_as(Command::new(binary()), data_dir, settings)
    }

    /// The same as what `command` begins: the program, or what starts it in its own place.
    pub(crate) fn start_as(
        mut command: Command,
        data_dir: &Path,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let spawned_at = Instant::now();
        let child = command
            .args(["serve", "--bind", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .env_clear()
            .env("IRIS_SETUP_TOKEN", SETUP_TOKEN)
            .env("IRIS_PROVIDERS__SCRIPTED__KIND", "scripted")
            .env("IRIS_DEFAULT_MODEL", format!("{PROVIDER}/script"))
            .envs(LIMITS_OFF)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let zero = Duration::ZERO;
        let mut server =
            Self { child, url: String::new(), listening_after: zero, ready_after: zero };
        server.url = server.read_url()?;
        server.listening_after = spawned_at.elapsed();
        server.check_ready()?;
        server.ready_after = spawned_at.elapsed();
        Ok(server)
    }

    fn read_url(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().context("the server has no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.trim_end().strip_prefix("listening on ");
        Ok(url.with_context(|| format!("the server did not start: `{line}`"))?.to_owned())
    }

    fn check_ready(&self) -> anyhow::Result<()> {
        let answer = self.get("/health/ready", "")?;
        if !answer.starts_with(OK) {
            bail!("the server is not ready: {answer}");
        }
        Ok(())
    }

    /// The answer as it comes, with as little client as possible, so that its own work does not count.
    pub(crate) fn get(&self, path: &str, token: &str) -> anyhow::Result<String> {
        let address = self.url.strip_prefix("http://").context("not an address")?;
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             connection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory in MB; see [`memory_mb`].
    pub(crate) fn memory_mb(&self, line: &str) -> anyhow::Result<f64> {
        memory_mb(&self.id().to_string(), line)
    }

    /// Stops it as an operator does, and waits.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status()?;
        let ended = self.child.wait()?;
        if !told.success() || !ended.success() {
            bail!("the server did not stop well: {ended}");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A line of `/proc/PROCESS/status` that counts KiB, such as `VmRSS`, in MB (10^6 bytes).
pub(crate) fn memory_mb(process: &str, line: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
    let found = found.and_then(|rest| rest.split_whitespace().next());
    let kib: f64 = found.with_context(|| format!("no line `{line}`"))?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// How long a process of this binary lives that only answers a flag.
pub(crate) fn bare_process(flag: &str) -> anyhow::Result<Duration> {
    let spawned_at = Instant::now();
    let output = Command::new(binary()).arg(flag).env_clear().output()?;
    let took = spawned_at.elapsed();
    if !output.status.success() || output.stdout.is_empty() {
        bail!("`{flag}` failed: {}", output.status);
    }
    Ok(took)
}

/// The write-ahead log of the only project of a data directory.
pub(crate) fn project_log(data_dir: &Path, project_id: &str) -> PathBuf {
    data_dir.join("projects").join(project_id).join("project.db-wal")
}
