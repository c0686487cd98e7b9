//! Which files a command can use: a Landlock domain.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::{At, Trouble};

/// The oldest Landlock that keeps signals and abstract sockets inside (Linux 6.12).
const ABI_MIN: ABI = ABI::V6;

/// Directories and files of the system that commands may read and execute; those that exist.
pub(super) const SYSTEM: [&str; 34] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/debian_version",
    "/etc/default/locale",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/terminfo",
    "/etc/timezone",
];

/// Devices that commands may read and write.
pub(super) const DEVICES: [&str; 5] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// What commands may read of a /proc that shows all of the machine: nothing about processes. Where the
/// sandbox has a root and so a /proc of its own they may read all of it.
const MACHINE: [&str; 12] = [
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/proc/sys/fs/file-max",
    "/proc/sys/fs/pipe-max-size",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/vm/overcommit_memory",
];

/// Makes the rules of a domain. The thread is not bound by them before [`enforce`].
///
/// `writable` are directories that the command may do everything in but make devices.
pub(super) fn rules(
    writable: &[BorrowedFd<'_>],
    extra_read_only: &[PathBuf],
    has_own_root: bool,
) -> Result<RulesetCreated, Trouble> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI_MIN))
        .at("landlock")?
        .scope(Scope::from_all(ABI_MIN))
        .at("landlock")?
        .create()
        .at("landlock")?;
    let read = AccessFs::from_read(ABI_MIN);
    let use_device: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile;
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let proc: &[&str] = if has_own_root { &["/proc"] } else { &MACHINE };
    let shared = SYSTEM.iter().map(|path| (Path::new(path), read));
    let devices = DEVICES.iter().map(|path| (Path::new(path), use_device));
    let proc = proc.iter().map(|path| (Path::new(path), look));
    let extra = extra_read_only.iter().map(|path| (path.as_path(), read));
    // A root of its own holds nothing whose name should not be seen.
    let root = has_own_root.then_some((Path::new("/"), AccessFs::ReadDir.into()));
    for (path, access) in shared.chain(devices).chain(proc).chain(extra).chain(root) {
        // What is not there cannot be used; what this user cannot reach neither.
        let Ok(file) = open_path(path) else { continue };
        ruleset = allow(ruleset, file.as_fd(), access)?;
    }
    let devices: BitFlags<AccessFs> = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    for directory in writable {
        ruleset = allow(ruleset, *directory, AccessFs::from_all(ABI_MIN) & !devices)?;
    }
    Ok(ruleset)
}

fn allow(
    ruleset: RulesetCreated,
    file: BorrowedFd<'_>,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Trouble> {
    let status = fstat(file).at("landlock")?;
    let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    let access = if is_directory { access } else { access & AccessFs::from_file(ABI_MIN) };
    ruleset.add_rule(PathBeneath::new(file, access)).at("landlock")
}

/// Binds the calling thread, and what it starts, to the rules.
pub(super) fn enforce(ruleset: RulesetCreated) -> Result<(), Trouble> {
    let status = ruleset.restrict_self().at("landlock")?;
    if status.ruleset == RulesetStatus::FullyEnforced && status.no_new_privs {
        return Ok(());
    }
    Err(std::io::Error::other(format!("{status:?}"))).at("landlock")
}

fn open_path(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
