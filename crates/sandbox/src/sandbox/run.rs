//! One command: starts the launcher, gives it its policy, and hands both to a supervisor.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Shared;
use super::cgroup::Group;
use super::space;
use super::spare::start;
use super::supervisor::{Ended, Supervisor};
use crate::config::Limits;
use crate::error::SandboxError;
use crate::policy::{Policy, Report, write_frame, write_json};
use crate::request::{Command, Finished, Request};
use crate::validation;

/// Where programs are looked for, and what shells use, unless a request says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that every command gets besides those for its directories: no terminal, no questions.
const ENVIRONMENT: [(&str, &str); 9] = [
    ("PATH", PATH),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("PAGER", "cat"),
    ("GIT_PAGER", "cat"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("CI", "1"),
];

/// Runs a command. `visible` are paths that it can read and execute besides those of the configuration.
pub(super) async fn run(
    shared: &Shared,
    mut request: Request,
    has_namespaces: bool,
    visible: &[PathBuf],
) -> Result<Finished, SandboxError> {
    validation::check(&request)?;
    let begun = Instant::now();
    let frames = frames(shared, &mut request, has_namespaces, visible, shared.config.limits)?;
    let group = Group::make(shared.config.cgroup.as_deref(), &shared.config.limits)?;
    let started = match shared.spares.take() {
        Some(started) => started,
        None => start(&shared.launcher).map_err(|source| SandboxError::Launcher { source })?,
    };
    let (stop, stopped) = oneshot::channel();
    let supervisor = Supervisor::new(
        started.launcher,
        group,
        request.timeout,
        shared.config.grace,
        request.cancel.take(),
        stopped,
    )
    .within(space::used_up(request.space, space::places(&request), shared.measured.clone()));
    // A task of its own, so that it can clean up when nobody waits for this call any more. `stop` is
    // dropped with this future, which tells it.
    let task = tokio::spawn(async move {
        supervisor
            .supervise(
                started.lifeline,
                frames,
                started.output,
                request.output_bytes_max,
                request.progress,
            )
            .await
    });
    let ended = task.await.map_err(|error| SandboxError::Launcher { source: error.into() })?;
    drop(stop);
    shared.spares.refill(shared.launcher.clone());
    let Ended { report, status, output } =
        ended.map_err(|source| SandboxError::Launcher { source })?;
    refuse(report)?;
    Ok(Finished { status, output, duration: begun.elapsed() })
}

/// # Errors
///
/// What a launcher says of a command that did not run.
pub(super) fn refuse(report: Report) -> Result<(), SandboxError> {
    match report {
        Report::Exited(_) | Report::Signalled(_) => Ok(()),
        Report::Directory { role, path, reason } => {
            Err(SandboxError::Directory { role, path, reason })
        }
        Report::Program { program, reason } => Err(SandboxError::Program { program, reason }),
        Report::Setup { step, reason } => Err(SandboxError::Setup { step, reason }),
    }
}

/// All that the launcher is told before the command starts.
pub(super) fn frames(
    shared: &Shared,
    request: &mut Request,
    has_namespaces: bool,
    visible: &[PathBuf],
    limits: Limits,
) -> Result<Vec<u8>, SandboxError> {
    let configured = shared.config.extra_read_only.iter();
    let policy = Policy {
        identity: shared.identity,
        has_namespaces,
        network: request.network,
        project: request.project.clone(),
        scratch: request.scratch.clone(),
        workdir: request.workdir.clone(),
        arguments: arguments(&request.command),
        env: environment(request),
        limits,
        extra_read_only: configured.chain(visible).chain(&request.read_only).cloned().collect(),
        has_stdin: request.stdin.is_some(),
    };
    let mut frames = Vec::new();
    let mut write = || {
        write_json(&mut frames, &policy)?;
        match request.stdin.take() {
            Some(bytes) => write_frame(&mut frames, &bytes),
            None => Ok(()),
        }
    };
    // Validation leaves a path that is no text, of the working directory or the configuration.
    write()
        .map_err(|error: io::Error| SandboxError::InvalidRequest { reason: error.to_string() })?;
    Ok(frames)
}

fn arguments(command: &Command) -> Vec<String> {
    match command {
        Command::Arguments(arguments) => arguments.clone(),
        Command::Shell(line) => {
            let bash = "/bin/bash";
            let shell = if Path::new(bash).exists() { bash } else { "/bin/sh" };
            [shell, "-c", line].map(str::to_owned).to_vec()
        }
    }
}

fn environment(request: &Request) -> Vec<(String, String)> {
    let scratch = request.scratch.display().to_string();
    let fixed = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let places = ["HOME", "TMPDIR"].map(|name| (name.to_owned(), scratch.clone()));
    // The last value of a name is the one that counts.
    fixed.into_iter().chain(places).chain(request.env.iter().cloned()).collect()
}
