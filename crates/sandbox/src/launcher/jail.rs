//! The thread behind all walls: starts the command there, and ends what has become of it.
//!
//! Landlock, seccomp, user and group belong to threads, so the process around this one stays outside:
//! the command cannot signal it, and it can still see what it has to watch.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;
use rustix::process::{getppid, test_kill_process};

use super::syscalls::Filter;
use super::{At, Trouble, accesses, directory, limits, namespaces};
use crate::policy::{Policy, Report};

/// How long killed processes get before they are killed again.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// What is wanted of all processes of the command.
#[derive(Clone, Copy)]
pub(super) enum Wish {
    /// That they end.
    Terminate,
    /// That they are killed.
    Kill,
}

/// What the command works with.
pub(super) struct Places {
    pub(super) project: OwnedFd,
    pub(super) scratch: OwnedFd,
    /// The standard input; `None` is nothing to read.
    pub(super) stdin: Option<PipeReader>,
}

/// The thread, which waits for what the command works with.
pub(super) struct Jail {
    places: Sender<Places>,
    outcome: Receiver<Result<u32, Trouble>>,
}

impl Jail {
    /// Starts the thread, which does what it can do alone: some of it takes the kernel long.
    ///
    /// When the command runs, it carries out what is wanted of it.
    pub(super) fn start(policy: Policy, wanted: Receiver<Wish>) -> Result<Self, Trouble> {
        let (places, opened) = channel();
        let (started, outcome) = channel();
        let jail = thread::Builder::new().name("jail".to_owned());
        jail.spawn(move || {
            let result = start_command(&policy, &opened);
            let is_running = result.is_ok();
            if started.send(result).is_ok() && is_running {
                carry_out(&wanted);
            }
        })
        .at("a thread")?;
        Ok(Self { places, outcome })
    }

    /// Goes behind the walls and starts the command in the working directory of this process. Answers with
    /// the first process of the command.
    pub(super) fn enter(self, places: Places) -> Result<u32, Trouble> {
        // A thread that has ended has left the reason.
        drop(self.places.send(places));
        self.outcome.recv().at("a thread")?
    }
}

fn start_command(policy: &Policy, opened: &Receiver<Places>) -> Result<u32, Trouble> {
    if policy.has_namespaces {
        namespaces::separate_network(policy.network)?;
    }
    let filter = Filter::new(policy.network, policy.has_namespaces)?;
    let places = opened.recv().at("a thread")?;
    limits::be_nice(&policy.limits)?;
    confine(policy, &places, &filter)?;
    spawn(policy, places)
}

fn confine(policy: &Policy, places: &Places, filter: &Filter) -> Result<(), Trouble> {
    if let (Some(identity), false) = (policy.identity, policy.has_namespaces) {
        namespaces::become_user(identity)?;
    }
    namespaces::drop_capabilities()?;
    let needed = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let directories = [
        ("project", &policy.project, &places.project),
        ("scratch directory", &policy.scratch, &places.scratch),
    ];
    for (role, path, opened) in directories {
        accessat(opened, ".", needed, AtFlags::empty())
            .map_err(|error| directory(role, path, error))?;
    }
    let writable = [places.project.as_fd(), places.scratch.as_fd()];
    accesses::enforce(accesses::rules(&writable, &policy.extra_read_only, policy.has_namespaces)?)?;
    filter.enforce()?;
    check_signals()
}

/// Makes sure that [`signal_all`] will not reach the server, nor anybody else outside.
fn check_signals() -> Result<(), Trouble> {
    // Process 1 of a namespace has no parent in it.
    let Some(server) = getppid() else { return Ok(()) };
    match test_kill_process(server) {
        Err(Errno::PERM) => Ok(()),
        Ok(()) => Err(io::Error::other("the server can be signalled")).at("landlock for signals"),
        Err(error) => Err(error).at("landlock for signals"),
    }
}

fn spawn(policy: &Policy, places: Places) -> Result<u32, Trouble> {
    let (program, arguments) = policy
        .arguments
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .at("the arguments")?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(policy.env.iter().map(|(name, value)| (name, value)))
        .stdin(places.stdin.map_or_else(Stdio::null, Stdio::from))
        .process_group(0)
        .spawn()
        .map_err(|error| Report::Program { program: program.clone(), reason: error.to_string() })?;
    Ok(child.id())
}

/// Carries out what is wanted of all processes behind the walls. Killed ones get some time to be gone, and
/// are killed again: that finds none, unless the kernel works differently than it says.
fn carry_out(wanted: &Receiver<Wish>) {
    let Ok(mut wish) = wanted.recv() else { return };
    loop {
        let next = match wish {
            Wish::Terminate => {
                signal_all(Signal::SIGTERM);
                wanted.recv().map_err(|_| RecvTimeoutError::Disconnected)
            }
            Wish::Kill => {
                signal_all(Signal::SIGKILL);
                wanted.recv_timeout(KILL_AGAIN)
            }
        };
        wish = match next {
            Ok(next) => next,
            Err(RecvTimeoutError::Timeout) => Wish::Kill,
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

/// Signals all processes that this thread may signal, which Landlock narrows to those of the command: the
/// kernel goes through them while no process can be made, and leaves out the caller's own (kill(2), `pid`
/// -1). That nobody is left is no error, and no other is documented.
fn signal_all(signal: Signal) {
    kill(Pid::from_raw(-1), signal).unwrap_or_default();
}
