//! Keeps watch over one command: until it ends, the server wants it ended, or the server is gone.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use nix::sys::signal::Signal;
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, WaitOptions, WaitStatus, fchdir, getpid, set_child_subreaper,
    set_dumpable_behavior, umask, wait,
};
use rustix::stdio::{dup2_stderr, dup2_stdout};

use super::jail::{Jail, Places, Wish};
use super::limits::{self, FirstToGo};
use super::{At, Stdin, Trouble, directory, root};
use crate::policy::{KILL, Policy, Report, TERMINATE, write_json};

/// New files of a command that runs as another user than the server are for its group too.
const UMASK_SHARED: Mode = Mode::from_raw_mode(0o002);

/// Runs the command, and tells the server how it ended when nothing of it is left.
pub(super) fn run(policy: &Policy, stdin: Stdin, lifeline: &mut UnixStream) -> Result<(), Trouble> {
    // Before the command starts: it may leave no room for another thread.
    let (wishes, wanted) = channel();
    let jail = Jail::start(policy.clone(), wanted)?;
    let (socket, theirs) = (lifeline.try_clone().at("the socket")?, wishes.clone());
    let listening = thread::Builder::new().name("lifeline".to_owned());
    listening.spawn(move || listen(socket, &theirs)).at("a thread")?;
    let mut first_to_go = FirstToGo::begin()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at("the hiding of memory")?;
    // Those whose parents end become children of this process, so that it sees the last one end.
    set_child_subreaper(Some(getpid())).at("the adoption of orphans")?;
    if policy.has_namespaces {
        root::build(policy)?;
    }
    let places = open_places(policy)?;
    limits::apply(&policy.limits, policy.has_namespaces)?;
    if policy.identity.is_some() {
        umask(UMASK_SHARED);
    }
    let fed = stdin.bytes.map(feed).transpose()?;
    let places = Places { stdin: stdin.pipe.or(fed), ..places };
    first_to_go.raise()?;
    let command = jail.enter(places)?;
    first_to_go.restore()?;
    close_output()?;

    let report = reap(command, &wishes);
    write_json(lifeline, &report).at("the report")
}

/// Closes this process's ends of the pipe to the server, so that it ends when the command has ended.
pub(super) fn close_output() -> Result<(), Trouble> {
    let nowhere =
        open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at("the output")?;
    dup2_stdout(&nowhere).at("the output")?;
    dup2_stderr(&nowhere).at("the output")
}

/// A pipe to read this from, which a thread fills until nobody reads it any more.
fn feed(bytes: Vec<u8>) -> Result<PipeReader, Trouble> {
    let (reader, mut writer) = io::pipe().at("the input")?;
    let feeding = thread::Builder::new().name("input".to_owned());
    // Whoever does not read to the end does not want to.
    feeding.spawn(move || writer.write_all(&bytes).unwrap_or_default()).at("a thread")?;
    Ok(reader)
}

/// Opens the directories that were asked for, and goes to the one where the command starts. What is put
/// in their place later is not what the command works in.
fn open_places(policy: &Policy) -> Result<Places, Trouble> {
    let project = open_directory("project", &policy.project)?;
    let scratch = open_directory("scratch directory", &policy.scratch)?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let below =
        if policy.workdir.as_os_str().is_empty() { Path::new(".") } else { &policy.workdir };
    openat2(&project, below, flags, Mode::empty(), inside)
        .and_then(fchdir)
        .map_err(|error| directory("working directory", &policy.workdir, error))?;
    Ok(Places { project, scratch, stdin: None })
}

pub(super) fn open_directory(role: &str, path: &Path) -> Result<OwnedFd, Trouble> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|error| {
        // The kernel calls a link no directory here.
        let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
        if is_link {
            directory(role, path, "it is a symbolic link")
        } else {
            directory(role, path, error)
        }
    })
}

/// Passes on what the server wants, until its end of the socket is closed.
fn listen(mut socket: UnixStream, wishes: &Sender<Wish>) {
    let mut wish = [0];
    loop {
        let next = match socket.read(&mut wish) {
            Ok(1) if wish == [TERMINATE] => Wish::Terminate,
            Ok(1) if wish == [KILL] => Wish::Kill,
            // An unknown wish comes from no server of this version; an error is as final as the end.
            Ok(_) | Err(_) => {
                wishes.send(Wish::Kill).unwrap_or_default();
                return;
            }
        };
        if wishes.send(next).is_err() {
            return;
        }
    }
}

/// Waits for children until there are none, those that were adopted included. What the command leaves
/// behind is killed.
fn reap(command: u32, wishes: &Sender<Wish>) -> Report {
    // Stays for a command whose end the kernel does not tell, which it always does.
    let mut report = Report::Signalled(Signal::SIGKILL as i32);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                if pid.as_raw_nonzero().get().unsigned_abs() == command {
                    report = report_of(status);
                    // The thread that gets it ends with this process only.
                    wishes.send(Wish::Kill).unwrap_or_default();
                }
            }
            Ok(None) | Err(Errno::INTR) => {}
            // No child is left.
            Err(_) => return report,
        }
    }
}

fn report_of(status: WaitStatus) -> Report {
    match status.terminating_signal() {
        Some(signal) => Report::Signalled(signal),
        None => Report::Exited(status.exit_status().unwrap_or_default()),
    }
}
