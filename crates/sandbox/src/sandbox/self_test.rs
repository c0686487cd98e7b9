//! Tries to break out of the sandbox, from inside, and names what did not hold.

use std::fs::{self, Permissions};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::cgroup::{self, Group};
use super::{Shared, run};
use crate::LAUNCHER_ARGUMENT;
use crate::config::{Missing, Tier};
use crate::error::SandboxError;
use crate::launcher::{Attempts, PROBE, Probe, Targets};
use crate::request::{Command, Request, Status};
use crate::sharing::share_directory;

/// How long one round of attempts may take; it takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Bubblewrap, with which a sandbox without Landlock could be made.
const BUBBLEWRAP: [&str; 2] = ["/usr/bin/bwrap", "/usr/local/bin/bwrap"];

/// What was found.
pub(super) struct Found {
    pub(super) tier: Tier,
    pub(super) missing: Vec<Missing>,
}

/// Finds the highest tier that holds.
pub(super) async fn run(shared: &Shared) -> Found {
    let mut missing = Vec::new();
    if let Some(parent) = &shared.config.cgroup {
        cgroup::sweep(parent);
    }
    let stage = match Stage::set(shared) {
        Ok(stage) => stage,
        Err(error) => {
            missing.push(Missing { feature: "self-test".to_owned(), reason: error.to_string() });
            return Found { tier: Tier::S0, missing };
        }
    };
    for (tier, has_namespaces) in [(Tier::S3, true), (Tier::S2, false)] {
        if has_namespaces && !shared.config.namespaces {
            let reason = "they are switched off in the configuration".to_owned();
            missing.push(Missing { feature: "namespaces".to_owned(), reason });
            continue;
        }
        match stage.attempt(shared, has_namespaces).await {
            Ok(tolerated) => {
                missing.extend(tolerated);
                missing.extend(cgroup_missing(shared));
                return Found { tier, missing };
            }
            Err(reason) => missing.push(Missing {
                feature: format!("{} of {tier}", reason.feature),
                reason: reason.reason,
            }),
        }
    }
    let has_bubblewrap = BUBBLEWRAP.iter().any(|path| Path::new(path).exists());
    let tier = if has_bubblewrap { Tier::S1 } else { Tier::S0 };
    Found { tier, missing }
}

/// A project, and around it what must not be reached.
struct Stage {
    /// Removed at the end.
    directory: TempDir,
    executable: PathBuf,
    targets: Targets,
    _tcp: TcpListener,
    _udp: UdpSocket,
    _abstract: UnixListener,
}

impl Stage {
    /// # Errors
    ///
    /// What the file system or the network of this machine said.
    fn set(shared: &Shared) -> io::Result<Self> {
        let directory = TempDir::with_prefix("iris-sandbox-")?;
        let base = directory.path().canonicalize()?;
        fs::set_permissions(&base, Permissions::from_mode(0o755))?;
        // Open to everybody, so that it is the sandbox that holds and not the mode.
        let outside = base.join("outside");
        let secret = outside.join("secret");
        fs::create_dir(&outside)?;
        fs::write(&secret, "secret")?;
        fs::set_permissions(&outside, Permissions::from_mode(0o777))?;
        fs::set_permissions(&secret, Permissions::from_mode(0o666))?;
        fs::create_dir_all(base.join("project/.git/hooks"))?;
        fs::write(base.join("project/.git/config"), "")?;
        fs::create_dir(base.join("scratch"))?;
        if let Some(identity) = shared.identity {
            for name in ["project", "scratch"] {
                share_directory(&base.join(name), identity.uid, identity.gid)?;
            }
        }
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let name = base.display().to_string();
        let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let targets = Targets {
            outside,
            tcp: tcp.local_addr()?,
            udp: udp.local_addr()?,
            abstract_name: name,
            server: std::process::id(),
        };
        // Inside, its own link in /proc leads elsewhere.
        let executable = shared.launcher.canonicalize()?;
        Ok(Self { directory, executable, targets, _tcp: tcp, _udp: udp, _abstract: socket })
    }

    /// Lets the attempts be made. What is tolerated in this tier comes back, to be told.
    ///
    /// # Errors
    ///
    /// The first thing that did not hold, or why the attempts could not be made.
    async fn attempt(
        &self,
        shared: &Shared,
        has_namespaces: bool,
    ) -> Result<Vec<Missing>, Missing> {
        let attempts = self.attempts(shared, has_namespaces).await?;
        if let Some(reason) = attempts.broken {
            return Err(Missing { feature: "the work inside".to_owned(), reason });
        }
        let mut tolerated = Vec::new();
        for escaped in attempts.escaped {
            let missing = Missing {
                feature: escaped.feature().to_owned(),
                reason: format!("{escaped:?}: it was done"),
            };
            if has_namespaces || !escaped.is_left_to_namespaces() {
                return Err(missing);
            }
            tolerated.push(missing);
        }
        Ok(tolerated)
    }

    async fn attempts(&self, shared: &Shared, has_namespaces: bool) -> Result<Attempts, Missing> {
        let broken = |reason: String| Missing { feature: "the self-test".to_owned(), reason };
        let targets =
            serde_json::to_string(&self.targets).map_err(|error| broken(error.to_string()))?;
        let executable = self.executable.display().to_string();
        let arguments = vec![executable, LAUNCHER_ARGUMENT.to_owned(), PROBE.to_owned(), targets];
        let base =
            self.directory.path().canonicalize().map_err(|error| broken(error.to_string()))?;
        let mut request =
            Request::new(Command::Arguments(arguments), base.join("project"), base.join("scratch"));
        request.timeout = TIMEOUT;
        let visible = [self.executable.clone()];
        let finished = match run::run(shared, request, has_namespaces, &visible).await {
            Ok(finished) => finished,
            Err(SandboxError::Setup { step, reason }) => {
                return Err(Missing { feature: step, reason });
            }
            Err(error) => return Err(broken(chain(&error))),
        };
        let text = finished.output.text();
        match serde_json::from_str(&text) {
            Ok(attempts) if finished.status == Status::Exited(0) => Ok(attempts),
            Ok(_) | Err(_) => Err(broken(format!("{:?}: {}", finished.status, text.trim()))),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// What a configured cgroup does not do.
fn cgroup_missing(shared: &Shared) -> Option<Missing> {
    let missing = |reason: String| Some(Missing { feature: "cgroup".to_owned(), reason });
    match Group::make(shared.config.cgroup.as_deref(), &shared.config.limits) {
        Ok(None) => missing("none is configured; limits count by process".to_owned()),
        Ok(Some(group)) => {
            let absent = group.absent_limits(&shared.config.limits);
            if absent.is_empty() { None } else { missing(format!("no {}", absent.join(", "))) }
        }
        Err(error) => missing(error.to_string()),
    }
}

// `Probe` names what each attempt stands for.
impl Probe {
    /// Which part of the sandbox is missing when this attempt succeeds.
    fn feature(self) -> &'static str {
        match self {
            Self::ReadOutside | Self::ListOutside | Self::WriteOutside => "landlock for files",
            Self::ChangeModeOutside => "protection of the modes of files outside",
            Self::WriteProtected => "protection of .git and .iris",
            Self::ReadEnvironment | Self::Trace => "protection of other processes",
            Self::Signal => "landlock for signals",
            Self::Tcp | Self::Udp => "seccomp for the network",
            Self::AbstractSocket => "landlock for abstract sockets",
            Self::MakeNamespace | Self::Mount | Self::SetId => "seccomp",
            Self::NewPrivileges => "no new privileges",
        }
    }

    /// Whether Landlock and seccomp alone cannot hold this.
    fn is_left_to_namespaces(self) -> bool {
        match self {
            Self::ChangeModeOutside | Self::WriteProtected => true,
            Self::ReadOutside
            | Self::ListOutside
            | Self::WriteOutside
            | Self::ReadEnvironment
            | Self::Trace
            | Self::Signal
            | Self::Tcp
            | Self::Udp
            | Self::AbstractSocket
            | Self::MakeNamespace
            | Self::Mount
            | Self::SetId
            | Self::NewPrivileges => false,
        }
    }
}
