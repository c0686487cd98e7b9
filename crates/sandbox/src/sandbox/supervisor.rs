//! Watches one launcher until it is gone, and everything it has started with it.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::capture::Capture;
use super::cgroup::Group;
use crate::output::Output;
use crate::policy::{KILL, Report, TERMINATE};
use crate::request::{Shortage, Status};

/// How long things may take that the kernel does in milliseconds.
const WAITS: Waits = Waits { end: Duration::from_secs(2), drain: Duration::from_secs(1) };
/// Bytes that are read from the pipe at once: what a pipe of Linux holds.
const READ_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy)]
struct Waits {
    /// For a launcher to kill everything and end.
    end: Duration,
    /// For the pipe to be closed when all that could have it open is gone.
    drain: Duration,
}

pub(super) struct Supervisor {
    launcher: Child,
    waits: Waits,
    /// Lives as long as the command does; removed with everything that is still in it.
    group: Option<Group>,
    deadline: Instant,
    grace: Duration,
    cancel: Option<oneshot::Receiver<()>>,
    /// Resolves when the command has to end for want of space.
    used_up: Pin<Box<dyn Future<Output = Shortage> + Send>>,
    /// Resolves when nobody waits for the call any more.
    stopped: oneshot::Receiver<()>,
}

/// How it went.
pub(super) struct Ended {
    pub(super) report: Report,
    /// Means something for a command that ran.
    pub(super) status: Status,
    pub(super) output: Output,
}

/// Why the server has ended a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Timeout,
    Cancel,
    Space(Shortage),
}

impl Supervisor {
    pub(super) fn new(
        launcher: Child,
        group: Option<Group>,
        timeout: Duration,
        grace: Duration,
        cancel: Option<oneshot::Receiver<()>>,
        stopped: oneshot::Receiver<()>,
    ) -> Self {
        let deadline = after(Instant::now(), timeout);
        let used_up = Box::pin(std::future::pending());
        Self { launcher, waits: WAITS, group, deadline, grace, cancel, used_up, stopped }
    }

    /// The command ends as well when this resolves.
    pub(super) fn within(self, used_up: impl Future<Output = Shortage> + Send + 'static) -> Self {
        Self { used_up: Box::pin(used_up), ..self }
    }

    /// # Errors
    ///
    /// What the socket said, `UnexpectedEof` for a launcher that ended without a report.
    pub(super) async fn supervise(
        self,
        lifeline: UnixStream,
        frames: Vec<u8>,
        output: pipe::Receiver,
        output_bytes_max: usize,
        progress: Option<mpsc::Sender<Vec<u8>>>,
    ) -> io::Result<Ended> {
        let waits = self.waits;
        let mut capture = Capture::new(output_bytes_max);
        let mut draining = Box::pin(drain(output, &mut capture, progress));
        let mut is_drained = false;
        let watched = {
            let mut watching = Box::pin(self.watch(lifeline, &frames));
            loop {
                tokio::select! {
                    watched = &mut watching => break watched,
                    () = &mut draining, if !is_drained => is_drained = true,
                }
            }
        };
        if !is_drained {
            // The last process has ended, and with it the last that could write.
            drop(timeout(waits.drain, &mut draining).await);
        }
        drop(draining);
        let (report, reason) = watched?;
        let status = match (reason, &report) {
            (Some(Reason::Timeout), _) => Status::TimedOut,
            (Some(Reason::Cancel), _) => Status::Cancelled,
            (Some(Reason::Space(shortage)), _) => Status::OutOfSpace(shortage),
            (None, Report::Exited(code)) => Status::Exited(*code),
            (None, Report::Signalled(signal)) => Status::Signalled(*signal),
            (None, Report::Directory { .. } | Report::Program { .. } | Report::Setup { .. }) => {
                Status::Exited(0)
            }
        };
        Ok(Ended { report, status, output: capture.finish() })
    }

    /// Until nothing of the command is left; for one whose output somebody else reads.
    ///
    /// # Errors
    ///
    /// As [`supervise`](Self::supervise).
    pub(super) async fn attend(self, lifeline: UnixStream, frames: Vec<u8>) -> io::Result<Report> {
        let (report, _) = self.watch(lifeline, &frames).await?;
        Ok(report)
    }

    /// Until nothing of the command is left.
    async fn watch(
        mut self,
        mut lifeline: UnixStream,
        frames: &[u8],
    ) -> io::Result<(Report, Option<Reason>)> {
        let result = self.talk(&mut lifeline, frames).await;
        // For a launcher that still lives this means to kill everything.
        drop(lifeline);
        let ending = end(self.launcher, self.group.take(), self.waits);
        if result.is_ok() {
            // It has outlived the command; the kernel takes a while to undo its namespaces.
            tokio::spawn(ending);
        } else {
            ending.await?;
        }
        result
    }

    /// Until the launcher has reported, or is to be ended by the end of the socket.
    async fn talk(
        &mut self,
        lifeline: &mut UnixStream,
        frames: &[u8],
    ) -> io::Result<(Report, Option<Reason>)> {
        if let Some(group) = &self.group {
            // It waits for its policy and has started nothing yet.
            group.add(self.launcher.id())?;
        }
        let (reader, mut writer) = lifeline.split();
        let mut reporting = Box::pin(read_report(reader));
        tokio::select! {
            // A launcher that fails early reports, and reads no more.
            report = &mut reporting => return Ok((report?, None)),
            told = writer.write_all(frames) => told?,
            _ = &mut self.stopped => return Err(io::ErrorKind::Interrupted.into()),
            () = sleep_until(self.deadline) => return Err(too_slow()),
        }
        let mut phase = Phase::Running;
        let mut phase_ends = self.deadline;
        let mut reason = None;
        loop {
            let wish = tokio::select! {
                report = &mut reporting => return Ok((report?, reason)),
                () = sleep_until(phase_ends) => match phase {
                    Phase::Running => {
                        reason = Some(Reason::Timeout);
                        (phase, phase_ends) = (Phase::Ending, after(Instant::now(), self.grace));
                        TERMINATE
                    }
                    Phase::Ending => {
                        (phase, phase_ends) = (Phase::Killed, after(Instant::now(), self.waits.end));
                        KILL
                    }
                    Phase::Killed => return Err(too_slow()),
                },
                () = cancelled(&mut self.cancel), if phase == Phase::Running => {
                    reason = Some(Reason::Cancel);
                    (phase, phase_ends) = (Phase::Killed, after(Instant::now(), self.waits.end));
                    KILL
                }
                shortage = &mut self.used_up, if phase == Phase::Running => {
                    reason = Some(Reason::Space(shortage));
                    (phase, phase_ends) = (Phase::Killed, after(Instant::now(), self.waits.end));
                    KILL
                }
                _ = &mut self.stopped => return Err(io::ErrorKind::Interrupted.into()),
            };
            // A launcher that is gone has reported already, or its end is seen as that of the socket.
            drop(writer.write_all(&[wish]).await);
        }
    }
}

/// Waits for the end of a launcher, and removes its group.
///
/// # Errors
///
/// What the kernel said of its own child.
async fn end(mut launcher: Child, group: Option<Group>, waits: Waits) -> io::Result<()> {
    if timeout(waits.end, launcher.wait()).await.is_err() {
        launcher.start_kill()?;
        launcher.wait().await?;
    }
    if let Some(group) = group {
        group.remove().await;
    }
    Ok(())
}

/// How far a command has been told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Ending,
    Killed,
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the launcher does not answer")
}

/// A moment from now on; one that no clock can show is a year away, which is as good.
fn after(now: Instant, wait: Duration) -> Instant {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    now.checked_add(wait.min(YEAR)).unwrap_or(now)
}

/// Resolves when the receiver says so; never without one.
async fn cancelled(cancel: &mut Option<oneshot::Receiver<()>>) {
    match cancel {
        // A closed channel means the same as a message.
        Some(receiver) => drop(receiver.await),
        None => std::future::pending().await,
    }
}

/// # Errors
///
/// What the socket said; `InvalidData` for what is no report.
async fn read_report(mut from: impl AsyncRead + Unpin) -> io::Result<Report> {
    /// A report is a few names and a sentence.
    const REPORT_BYTES_MAX: u32 = 64 * 1024;
    let length = from.read_u32_le().await?;
    if length > REPORT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the report is too long"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Reads to the end, however much it is.
async fn drain(
    mut output: pipe::Receiver,
    capture: &mut Capture,
    progress: Option<mpsc::Sender<Vec<u8>>>,
) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // The pipe of a process that is gone can only have ended.
        let read = output.read(&mut buffer).await.unwrap_or_default();
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { return };
        capture.push(piece);
        if let Some(progress) = &progress {
            // Whoever is too slow, or gone, misses it.
            drop(progress.try_send(piece.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::Stdio;

    use tokio::process::Command;

    use super::*;
    use crate::policy::write_json;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_mins(1);

    /// A launcher that this test plays, with its end of the socket and of the pipe.
    struct Played {
        supervisor: Supervisor,
        ours: UnixStream,
        theirs: UnixStream,
        output: pipe::Receiver,
        writer: std::io::PipeWriter,
        // Dropped, it tells the supervisor that nobody waits.
        stop: oneshot::Sender<()>,
    }

    fn play(timeout: Duration, program: &str) -> Played {
        let launcher = Command::new(program).arg("99999").stdin(Stdio::null()).spawn().unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut supervisor = Supervisor::new(launcher, None, timeout, SHORT, None, stopped);
        supervisor.waits = Waits { end: SHORT, drain: SHORT };
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).unwrap();
        Played { supervisor, ours, theirs, output, writer, stop }
    }

    fn kind(ended: io::Result<Ended>) -> io::ErrorKind {
        match ended {
            Ok(ended) => panic!("{:?}", ended.status),
            Err(error) => error.kind(),
        }
    }

    #[tokio::test]
    async fn a_launcher_that_never_answers_is_killed() {
        let played = play(SHORT, "/bin/sleep");
        let pid = played.supervisor.launcher.id().unwrap();
        let ended = played.supervisor.supervise(played.ours, vec![1], played.output, 9, None).await;
        assert_eq!(kind(ended), io::ErrorKind::TimedOut);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        drop((played.theirs, played.stop));
    }

    #[tokio::test]
    async fn a_launcher_that_does_not_read_is_given_up() {
        let played = play(SHORT, "/bin/sleep");
        let much = vec![0; 16 * 1024 * 1024];
        let ended = played.supervisor.supervise(played.ours, much, played.output, 9, None).await;
        assert_eq!(kind(ended), io::ErrorKind::TimedOut);
        drop((played.theirs, played.stop));
    }

    #[tokio::test]
    async fn a_report_that_is_none_is_an_error() {
        for (bytes, expected) in [
            (&[][..], io::ErrorKind::UnexpectedEof),
            (&[255, 255, 255, 255][..], io::ErrorKind::InvalidData),
            (&[2, 0, 0, 0, b'{', b'}'][..], io::ErrorKind::InvalidData),
        ] {
            let mut played = play(LONG, "/bin/true");
            played.theirs.write_all(bytes).await.unwrap();
            drop(played.theirs);
            let ended =
                played.supervisor.supervise(played.ours, vec![], played.output, 9, None).await;
            assert_eq!(kind(ended), expected);
            drop(played.stop);
        }
    }

    #[tokio::test]
    async fn a_pipe_that_somebody_holds_open_does_not_hold_up_the_end() {
        let mut played = play(LONG, "/bin/true");
        let mut report = Vec::new();
        write_json(&mut report, &Report::Exited(0)).unwrap();
        played.theirs.write_all(&report).await.unwrap();
        std::io::Write::write_all(&mut played.writer, b"all").unwrap();
        let ended = played.supervisor.supervise(played.ours, vec![], played.output, 9, None).await;
        let ended = ended.unwrap();
        assert_eq!((ended.status, &ended.output.head[..]), (Status::Exited(0), &b"all"[..]));
        drop((played.writer, played.stop));
    }

    #[tokio::test]
    async fn a_timeout_beyond_all_clocks_is_none() {
        assert!(after(Instant::now(), Duration::MAX) > Instant::now());
    }
}
