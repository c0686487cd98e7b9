//! A command that is talked to while it runs.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command as Process};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Shared;
use super::cgroup::Group;
use super::run::{frames, refuse};
use super::supervisor::Supervisor;
use crate::config::Limits;
use crate::error::SandboxError;
use crate::launcher::{PIPED, send_input};
use crate::policy::Report;
use crate::request::{Request, Status};
use crate::talk::Talk;
use crate::{LAUNCHER_ARGUMENT, validation};

/// What keeps a command alive that is talked to. Dropping it kills all processes of the command.
#[derive(Debug)]
pub struct Running {
    watching: JoinHandle<io::Result<Report>>,
    /// Dropped, it tells the supervisor that nobody needs the command any more.
    _stop: oneshot::Sender<()>,
}

impl Running {
    /// Waits until nothing of the command runs any more. A caller may give up the wait and wait again; after
    /// the answer it has nothing more to say.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::run`](crate::Sandbox::run); what keeps a command from starting is told here too.
    pub async fn ended(&mut self) -> Result<Status, SandboxError> {
        let launcher = |source| SandboxError::Launcher { source };
        let report = (&mut self.watching).await.map_err(|error| launcher(error.into()))?;
        let report = report.map_err(launcher)?;
        let status = match &report {
            Report::Signalled(signal) => Status::Signalled(*signal),
            Report::Exited(code) => Status::Exited(*code),
            Report::Directory { .. } | Report::Program { .. } | Report::Setup { .. } => {
                Status::Exited(0)
            }
        };
        refuse(report)?;
        Ok(status)
    }
}

/// Starts a command with pipes to talk to it.
pub(super) fn open(
    shared: &Shared,
    mut request: Request,
    has_namespaces: bool,
) -> Result<Talk, SandboxError> {
    validation::check(&request)?;
    validation::check_talk(&request)?;
    // It may run for weeks; how much it takes at once is limited as ever.
    let limits = Limits { cpu_seconds: u64::MAX, ..shared.config.limits };
    let frames = frames(shared, &mut request, has_namespaces, &[], limits)?;
    let group = Group::make(shared.config.cgroup.as_deref(), &limits)?;
    let started = start(&shared.launcher).map_err(|source| SandboxError::Launcher { source })?;
    let (stop, stopped) = oneshot::channel();
    let grace = shared.config.grace;
    let supervisor = Supervisor::new(started.launcher, group, Duration::MAX, grace, None, stopped);
    let watching = tokio::spawn(supervisor.attend(started.lifeline, frames));
    Ok(Talk {
        stdin: Box::new(started.stdin),
        stdout: Box::new(started.stdout),
        stderr: Box::new(started.stderr),
        running: Running { watching, _stop: stop },
    })
}

/// A launcher that has the pipe for the input and waits for its policy.
struct Started {
    launcher: Child,
    lifeline: UnixStream,
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

fn start(launcher: &Path) -> io::Result<Started> {
    let (ours, theirs) = StdUnixStream::pair()?;
    let (input, stdin): (PipeReader, PipeWriter) = io::pipe()?;
    let (stdout, output) = io::pipe()?;
    let (stderr, errors) = io::pipe()?;
    send_input(&ours, &input)?;
    ours.set_nonblocking(true)?;
    let launcher = Process::new(launcher)
        .args([LAUNCHER_ARGUMENT, PIPED])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(output)
        .stderr(errors)
        .spawn()?;
    Ok(Started {
        launcher,
        lifeline: UnixStream::from_std(ours)?,
        stdin: pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?,
        stdout: pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?,
        stderr: pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?,
    })
}
