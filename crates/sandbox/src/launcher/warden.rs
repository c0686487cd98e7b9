//! Keeps watch over one command: until it ends, the server wants it ended, or the server is gone.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::process::{
    DumpableBehavior, Pid, WaitOptions, WaitStatus, fchdir, getpid, set_child_subreaper,
    set_dumpable_behavior, umask, wait,
};

use super::jail::{Jail, Places};
use super::limits::{self, FirstToGo};
use super::{At, Trouble, directory, loopback, root};
use crate::config::Network;
use crate::policy::{KILL, Policy, Report, TERMINATE, write_json};

/// How long killed processes get before they are killed again: a second time finds none, unless the
/// kernel works differently than it says.
const KILL_AGAIN: Duration = Duration::from_millis(20);
/// New files of a command that runs as another user than the server are for its group too.
const UMASK_SHARED: Mode = Mode::from_raw_mode(0o002);

/// Runs the command, and tells the server how it ended when nothing of it is left.
pub(super) fn run(
    policy: Policy,
    stdin: Option<File>,
    lifeline: &mut UnixStream,
) -> Result<(), Trouble> {
    // The namespace has been given a loopback interface that is down.
    if policy.network == Network::Loopback {
        loopback::bring_up().at("the loopback interface")?;
    }
    let mut first_to_go = FirstToGo::begin()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at("the hiding of memory")?;
    // Those whose parents end become children of this process, so that it sees the last one end.
    set_child_subreaper(Some(getpid())).at("the adoption of orphans")?;
    if policy.has_namespaces {
        root::build(&policy)?;
    }
    let places = open_places(&policy, stdin)?;
    limits::apply(&policy.limits, policy.has_namespaces)?;
    if policy.identity.is_some() {
        umask(UMASK_SHARED);
    }
    first_to_go.raise()?;
    let jail = Jail::start(policy, places)?;
    first_to_go.restore()?;

    let report = watch(&jail, lifeline)?;
    write_json(lifeline, &report).at("the report")
}

/// Opens the directories that were asked for, and goes to the one where the command starts. What is put
/// in their place later is not what the command works in.
fn open_places(policy: &Policy, stdin: Option<File>) -> Result<Places, Trouble> {
    let project = open_directory("project", &policy.project)?;
    let scratch = open_directory("scratch directory", &policy.scratch)?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let below = if policy.workdir.as_os_str().is_empty() { Path::new(".") } else { &policy.workdir };
    openat2(&project, below, flags, Mode::empty(), inside)
        .and_then(fchdir)
        .map_err(|error| directory("working directory", &policy.workdir, error))?;
    Ok(Places { project, scratch, stdin })
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

/// Something that the warden waits for.
enum Event {
    /// A process that was a child has ended.
    Ended(Pid, WaitStatus),
    /// There is no child any more.
    AllEnded,
    /// The server wants all to end.
    Terminate,
    /// The server wants all killed, or is gone.
    Kill,
}

/// Watches until nothing of the command is left.
fn watch(jail: &Jail, lifeline: &UnixStream) -> Result<Report, Trouble> {
    let (events, coming) = channel();
    let socket = lifeline.try_clone().at("the socket")?;
    let wishes = events.clone();
    thread::Builder::new()
        .name("lifeline".to_owned())
        .spawn(move || listen(socket, &wishes))
        .at("a thread")?;
    thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(move || reap(&events))
        .at("a thread")?;
    Ok(until_all_ended(jail, &coming))
}

fn until_all_ended(jail: &Jail, coming: &Receiver<Event>) -> Report {
    // Without a status only for a command whose end the kernel did not tell.
    let mut report = Report::Signalled(Signal::SIGKILL as i32);
    let mut is_over = false;
    loop {
        let event = if is_over {
            coming.recv_timeout(KILL_AGAIN)
        } else {
            coming.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match event {
            Ok(Event::Ended(pid, status)) if pid.as_raw_nonzero().get().unsigned_abs() == jail.command => {
                report = report_of(status);
                is_over = true;
                // What it has left behind goes with it.
                jail.signal(Signal::SIGKILL);
            }
            Ok(Event::Ended(..)) => {}
            Ok(Event::Terminate) => jail.signal(Signal::SIGTERM),
            Ok(Event::Kill) => {
                is_over = true;
                jail.signal(Signal::SIGKILL);
            }
            Err(RecvTimeoutError::Timeout) => jail.signal(Signal::SIGKILL),
            Ok(Event::AllEnded) | Err(RecvTimeoutError::Disconnected) => return report,
        }
    }
}

fn report_of(status: WaitStatus) -> Report {
    match status.terminating_signal() {
        Some(signal) => Report::Signalled(signal),
        None => Report::Exited(status.exit_status().unwrap_or_default()),
    }
}

/// Passes on what the server wants, until its end of the socket is closed.
fn listen(mut socket: UnixStream, events: &Sender<Event>) {
    let mut wish = [0];
    loop {
        let event = match socket.read(&mut wish) {
            Ok(1) if wish == [TERMINATE] => Event::Terminate,
            Ok(1) if wish == [KILL] => Event::Kill,
            // An unknown wish comes from no server of this version; an error is as final as the end.
            Ok(_) | Err(_) => {
                drop(events.send(Event::Kill));
                return;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Waits for children until there are none, those that were adopted included.
fn reap(events: &Sender<Event>) {
    loop {
        let event = match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => Event::Ended(pid, status),
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            // No child is left.
            Err(_) => Event::AllEnded,
        };
        let is_last = matches!(event, Event::AllEnded);
        if events.send(event).is_err() || is_last {
            return;
        }
    }
}
