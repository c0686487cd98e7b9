//! Where the tests run commands: a project, a scratch directory, and what lies around them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output as ProcessOutput, Stdio};
use std::time::Duration;

use iris_sandbox::{Command, Config, Finished, Request, Sandbox, Status, Tier};
use tempfile::TempDir;

/// A user and group that no system has; what commands run as when the tests run as root.
pub(crate) const UID: u32 = 10999;
/// How long anything may take that should be quick.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The tier below which tests fail where they were skipped otherwise: `IRIS_TEST_TIER`, in CI S3 without it.
fn required_tier() -> Option<String> {
    let is_ci = std::env::var("CI").as_deref() == Ok("true");
    std::env::var("IRIS_TEST_TIER").ok().or_else(|| is_ci.then(|| "S3".to_owned()))
}

/// An example of this crate, which cargo builds before it runs tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.ancestors().nth(2).expect("target/profile/deps");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "`{}` is not built", path.display());
    path
}

/// What a test configures when nothing else matters.
pub(crate) fn config() -> Config {
    Config {
        uid: is_root().then_some(UID),
        launcher: Some(example("launcher")),
        extra_read_only: vec![example("intruder").parent().expect("a folder").to_owned()],
        ..Config::default()
    }
}

/// A project and its surroundings.
pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
    base: TempDir,
}

impl Lab {
    /// In the highest tier of this machine.
    pub(crate) async fn new() -> Option<Self> {
        let lab = Self::with(config()).await?;
        // Else the tests of namespaces would show nothing where they are known to work.
        let is_required = required_tier().as_deref() == Some("S3");
        assert!(lab.is_isolated() || !is_required, "{:?}", lab.sandbox.missing());
        Some(lab)
    }

    /// Without namespaces.
    pub(crate) async fn without_namespaces() -> Option<Self> {
        Self::with(Config { namespaces: false, ..config() }).await
    }

    /// None on a machine whose kernel has no sandbox, unless it has to have one.
    pub(crate) async fn with(config: Config) -> Option<Self> {
        let sandbox = Sandbox::start(config).await;
        if sandbox.check().is_err() {
            let missing = sandbox.missing();
            assert!(required_tier().is_none(), "no sandbox: {missing:?}");
            eprintln!("skipped: this machine has no sandbox: {missing:?}");
            return None;
        }
        let base = TempDir::with_prefix_in("iris-lab-", "/var/tmp").expect("a directory");
        let lab = Self { sandbox, base };
        set_mode(lab.base.path(), 0o755);
        for name in ["project", "scratch", "outside", "sibling"] {
            fs::create_dir(lab.path(name)).expect("a directory");
        }
        // The mode lets everybody do everything: what holds is the sandbox.
        for name in ["outside", "sibling"] {
            set_mode(&lab.path(name), 0o777);
            lab.open_file(&format!("{name}/secret"), "secret");
        }
        for name in ["project", "scratch"] {
            lab.sandbox.share_directory(&lab.path(name)).expect("a shared directory");
        }
        Some(lab)
    }

    /// Somewhere in the lab.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// A file that everybody may read and write.
    pub(crate) fn open_file(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("a file");
        set_mode(&self.path(name), 0o666);
    }

    /// A request for a line of shell.
    pub(crate) fn shell(&self, line: &str) -> Request {
        let mut request = Request::new(
            Command::Shell(line.to_owned()),
            self.path("project"),
            self.path("scratch"),
        );
        request.env = vec![("OUT".to_owned(), self.path("outside").display().to_string())];
        request
    }

    /// Runs a line of shell inside.
    pub(crate) async fn run(&self, line: &str) -> Finished {
        self.sandbox.run(self.shell(line)).await.expect("a run")
    }

    /// What a line of shell that has to succeed prints inside.
    pub(crate) async fn text(&self, line: &str) -> String {
        let finished = self.run(line).await;
        let text = finished.output.text();
        assert_eq!(finished.status, Status::Exited(0), "`{line}` printed `{text}`");
        text.trim_end().to_owned()
    }

    /// Runs a line of shell outside, in the project, as who commands run as or as who the tests are.
    pub(crate) fn outside(&self, line: &str, is_user: bool) -> ProcessOutput {
        let mut shell = Process::new("/bin/sh");
        shell
            .args(["-c", line])
            .current_dir(self.path("project"))
            .env("OUT", self.path("outside"))
            .stdin(Stdio::null());
        if is_user && is_root() {
            shell.uid(UID).gid(UID);
        }
        shell.output().expect("a process")
    }

    pub(crate) fn is_isolated(&self) -> bool {
        self.sandbox.tier() >= Tier::S3
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

/// Both kinds of labs, one after the other, or none where the machine has no sandbox: with namespaces where there are any, and without.
pub(crate) async fn labs() -> Vec<Lab> {
    let Some(best) = Lab::new().await else { return Vec::new() };
    let other = if best.is_isolated() { Lab::without_namespaces().await } else { None };
    [best].into_iter().chain(other).collect()
}
