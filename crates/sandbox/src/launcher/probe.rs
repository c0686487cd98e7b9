//! Attempts to break out, made from inside; what a server's self-test runs.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::unistd::Pid as TracedPid;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// How long a connection may take that should be refused at once.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// What must not be reached.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Targets {
    /// A directory that everybody may write to, with a file `secret` that everybody may read.
    pub(crate) outside: PathBuf,
    /// Where the server listens.
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
    pub(crate) abstract_name: String,
    /// The process of the server.
    pub(crate) server: u32,
}

/// One thing that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Probe {
    ReadOutside,
    ListOutside,
    WriteOutside,
    ChangeModeOutside,
    WriteProtected,
    ReadEnvironment,
    Signal,
    Tcp,
    Udp,
    AbstractSocket,
    /// Lets this process be controlled by no other, but shows that it could control others.
    Trace,
    SetId,
    NewPrivileges,
    Mount,
    /// Last, because it changes what this process is.
    MakeNamespace,
}

const ALL: [Probe; 15] = [
    Probe::ReadOutside,
    Probe::ListOutside,
    Probe::WriteOutside,
    Probe::ChangeModeOutside,
    Probe::WriteProtected,
    Probe::ReadEnvironment,
    Probe::Signal,
    Probe::Tcp,
    Probe::Udp,
    Probe::AbstractSocket,
    Probe::Trace,
    Probe::SetId,
    Probe::NewPrivileges,
    Probe::Mount,
    Probe::MakeNamespace,
];

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attempts {
    /// What could be done and should not.
    pub(crate) escaped: Vec<Probe>,
    /// Why nothing could be done that should: commands have to be able to work.
    pub(crate) broken: Option<String>,
}

/// Makes all attempts and prints how they went.
pub(super) fn run(targets: Option<OsString>) -> ExitCode {
    let targets = targets.and_then(|text| serde_json::from_str::<Targets>(text.to_str()?).ok());
    let Some(targets) = targets else { return ExitCode::FAILURE };
    // In this order: an escape may change what the work would find.
    let broken = work().err().map(|error| error.to_string());
    let escaped = ALL.into_iter().filter(|probe| probe.attempt(&targets).is_ok()).collect();
    let Ok(text) = serde_json::to_string(&Attempts { escaped, broken }) else {
        return ExitCode::FAILURE;
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What every command has to be able to do: write and read in the project and the scratch directory.
fn work() -> io::Result<()> {
    let scratch = std::env::var_os("TMPDIR").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
    for directory in [Path::new("."), &scratch] {
        let file = directory.join("probe");
        fs::write(&file, "probe")?;
        fs::read(&file)?;
        fs::remove_file(&file)?;
    }
    Ok(())
}

impl Probe {
    /// # Errors
    ///
    /// Whatever kept it from succeeding: that is what is hoped for.
    fn attempt(self, targets: &Targets) -> io::Result<()> {
        let secret = targets.outside.join("secret");
        let traced = TracedPid::from_raw(i32::try_from(targets.server).unwrap_or(i32::MAX));
        match self {
            Self::ReadOutside => fs::read(secret).map(drop),
            Self::ListOutside => fs::read_dir(&targets.outside).map(drop),
            Self::WriteOutside => File::create(targets.outside.join("new")).map(drop),
            Self::ChangeModeOutside => fs::set_permissions(secret, Permissions::from_mode(0o666)),
            Self::WriteProtected => File::options().append(true).open(".git/config").map(drop),
            Self::ReadEnvironment => {
                fs::read(format!("/proc/{}/environ", targets.server)).map(drop)
            }
            Self::Signal => {
                let pid = Pid::from_raw(traced.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
                Ok(test_kill_process(pid)?)
            }
            Self::Tcp => TcpStream::connect_timeout(&targets.tcp, CONNECT_WAIT).map(drop),
            Self::Udp => {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.send_to(b"out", targets.udp).map(drop)
            }
            Self::AbstractSocket => {
                let address = UnixAddr::from_abstract_name(&targets.abstract_name)?;
                UnixStream::connect_addr(&address).map(drop)
            }
            Self::Trace => {
                // Attached processes stop; this one lets go at once.
                ptrace::seize(traced, ptrace::Options::empty())?;
                Ok(ptrace::detach(traced, None)?)
            }
            Self::SetId => {
                let file = Path::new("set-id");
                fs::write(file, "")?;
                let result = fs::set_permissions(file, Permissions::from_mode(0o4755));
                fs::remove_file(file)?;
                result
            }
            Self::NewPrivileges => {
                let is_held = rustix::thread::no_new_privs()?;
                if is_held { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
            }
            Self::Mount => Ok(mount("none", ".", "tmpfs", MountFlags::empty(), None)?),
            Self::MakeNamespace => Ok(unshare(CloneFlags::CLONE_NEWUSER)?),
        }
    }
}
