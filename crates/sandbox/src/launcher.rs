//! The launcher: puts the walls up, starts the command inside, and takes everything down again.
//!
//! The server starts it with one end of a pair of sockets as standard input. Without namespaces one
//! process does everything; with them the first makes the namespaces and forks a second, which is
//! process 1 of its own. [`warden`] is what both come to: it keeps watch over the command, while a thread
//! beside it ([`jail`]) goes behind all walls before it starts the command there.

mod accesses;
mod input;
mod jail;
mod kernel;
mod limits;
mod loopback;
mod namespaces;
mod probe;
mod root;
mod syscalls;
mod warden;

use std::fmt::Display;
use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{
    DumpableBehavior, Signal, WaitOptions, set_dumpable_behavior, set_parent_process_death_signal,
    setsid, wait,
};

use self::kernel::Side;
use crate::policy::{Policy, Report, read_frame, read_json, write_json};

pub(crate) use input::send as send_input;
pub(crate) use probe::{Attempts, Probe, Targets};

/// The second argument of the process that tries to break out.
pub(crate) const PROBE: &str = "probe";
/// The second argument of a launcher that gets a pipe for the standard input before its policy.
pub(crate) const PIPED: &str = "piped";

/// What the executable does when its first argument is [`LAUNCHER_ARGUMENT`](crate::LAUNCHER_ARGUMENT):
/// call it first thing in `main`, while the process has one thread and has read no configuration.
pub fn launcher_main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    let stage = arguments.next();
    match stage.as_ref().and_then(|stage| stage.to_str()) {
        None => attend(Input::OfPolicy),
        Some(PIPED) => attend(Input::Piped),
        Some(PROBE) => probe::run(arguments.next()),
        Some(_) => ExitCode::FAILURE,
    }
}

/// Keeps other processes of the same user from reading the memory, the environment and the descriptors
/// of this one (`PR_SET_DUMPABLE`), and the kernel from writing core files of it. For the server, which
/// holds secrets.
///
/// # Errors
///
/// What the kernel said; it refuses nobody.
pub fn hide_memory() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// What went wrong before the command ran, and no report could carry it.
type Trouble = Report;

/// A directory that cannot be used.
fn directory(role: &str, path: &Path, reason: impl Display) -> Trouble {
    Report::Directory { role: role.to_owned(), path: path.to_owned(), reason: reason.to_string() }
}

/// For results whose error becomes a [`Report::Setup`].
trait At<T> {
    /// Names the part.
    fn at(self, step: &str) -> Result<T, Trouble>;
}

impl<T, E: std::error::Error + 'static> At<T> for Result<T, E> {
    fn at(self, step: &str) -> Result<T, Trouble> {
        self.map_err(|error| Report::Setup { step: step.to_owned(), reason: chain(&error) })
    }
}

/// An error and its causes. Wrappers that repeat what their source says are told once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The standard input of a command; nothing to read if it has neither.
struct Stdin {
    /// What the server writes into.
    pipe: Option<PipeReader>,
    /// What there is to read otherwise.
    bytes: Option<Vec<u8>>,
}

/// Where the standard input of the command comes from.
#[derive(Clone, Copy)]
enum Input {
    /// The policy says whether there are bytes for it.
    OfPolicy,
    /// The server has a pipe for it.
    Piped,
}

/// Serves the server at the other end of the socket, and tells it if that comes to nothing.
fn attend(input: Input) -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut lifeline = UnixStream::from(socket);
    match serve(&mut lifeline, input) {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            // The server that does not read any more sees the end of the process.
            drop(write_json(&mut lifeline, &report));
            ExitCode::FAILURE
        }
    }
}

fn serve(lifeline: &mut UnixStream, input: Input) -> Result<(), Trouble> {
    kernel::close_all_on_exec().at("closing of descriptors")?;
    let pipe = match input {
        Input::OfPolicy => None,
        Input::Piped => Some(input::receive(lifeline).at("the input")?),
    };
    let policy: Policy = read_json(lifeline).at("reading of the policy")?;
    let stdin = policy.has_stdin.then(|| read_frame(lifeline)).transpose();
    let stdin = Stdin { pipe, bytes: stdin.at("reading of the input")? };
    // Fails for the leader of a process group only, which the server does not make of a launcher.
    setsid().at("the session")?;
    if !policy.has_namespaces {
        return warden::run(&policy, stdin, lifeline);
    }
    match namespaces::enter(&policy)? {
        Side::Inside => {
            // Whoever kills the process outside kills this one, and so all others.
            set_parent_process_death_signal(Some(Signal::KILL)).at("the signal of the parent")?;
            warden::run(&policy, stdin, lifeline)
        }
        // The process inside tells the server itself how it went; if it cannot, its end does.
        Side::Outside => {
            drop(stdin);
            warden::close_output()?;
            wait(WaitOptions::empty()).at("the wait").map(drop)
        }
    }
}
