//! A file system that holds only what the command may see.
//!
//! It is an empty tmpfs into which the project, the scratch directory, the system's programs and a few
//! devices are mounted, all but the first two read-only. Whatever else the machine has is not there:
//! not to be opened, not to be connected to, not to have its mode changed, which Landlock would let pass.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, StatVfsMountFlags, statvfs};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::accesses::DEVICES;
use super::{At, Trouble, directory, warden};
use crate::PROTECTED_PATHS;
use crate::policy::Policy;

/// Where the new root is mounted until it takes the place of the old one: a directory that every Linux
/// has. What it hides has been taken hold of before.
const STAGE: &str = "/usr";
/// Directories of the system that are mounted, or links to be made anew. Landlock leaves of /etc what all
/// programs need; one mount for each of these files would take longer.
const MOUNTED: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc"];
/// The new root holds directories and names only.
const ROOT_SIZE: &str = "1m";
/// Directories that programs expect to be able to write to.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// What shells and programs expect beside devices.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Something that goes into the new root.
enum Entry {
    /// A part of the old file system, taken hold of.
    Mount { tree: OwnedFd, at: PathBuf, is_directory: bool, is_writable: bool },
    /// A link.
    Link { target: PathBuf, at: PathBuf },
}

impl Entry {
    fn at(&self) -> &Path {
        match self {
            Self::Mount { at, .. } | Self::Link { at, .. } => at,
        }
    }
}

/// Makes the new root and moves this process into it.
pub(super) fn build(policy: &Policy) -> Result<(), Trouble> {
    const STEP: &str = "the new root";
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .at("private mounts")?;
    let entries = collect(policy)?;
    // Of this process namespace, because its process 1 mounts it; refused while the old /proc is not
    // whole, which is how containers hide parts of it.
    let proc =
        new_mount("proc", &[], MountAttrFlags::MOUNT_ATTR_NOEXEC).at("a /proc of its own")?;
    let root = new_mount("tmpfs", &[("size", ROOT_SIZE), ("mode", "755")], MountAttrFlags::empty())
        .at(STEP)?;
    attach(&root, STAGE).at("the stage")?;
    chdir(STAGE).at(STEP)?;
    for entry in &entries {
        place(entry).at(&format!("mounting of `{}`", entry.at().display()))?;
    }
    for (target, at) in DEVICE_LINKS {
        symlink(target, relative(Path::new(at))).at(STEP)?;
    }
    for at in TEMPORARY {
        let at = relative(Path::new(at));
        // Not where the project itself lies in it.
        if !at.exists() {
            fs::create_dir_all(at.parent().unwrap_or(at)).at(STEP)?;
            symlink(&policy.scratch, at).at(STEP)?;
        }
    }
    fs::create_dir("proc").at(STEP)?;
    attach(&proc, "proc").at(STEP)?;
    protect(&policy.project)?;
    // The old root comes to lie over the new one, and is taken away (pivot_root(2), notes).
    pivot_root(".", ".").at("the change of root")?;
    unmount(".", UnmountFlags::DETACH).at(STEP)?;
    chdir("/").at(STEP)?;
    read_only("/").at(STEP)
}

/// Takes hold of all that will be mounted. Must happen while the old file system is whole.
fn collect(policy: &Policy) -> Result<Vec<Entry>, Trouble> {
    let mut entries = Vec::new();
    for path in MOUNTED.iter().map(Path::new) {
        // Systems with one directory for programs have links to it.
        if let Ok(target) = fs::read_link(path) {
            entries.push(Entry::Link { target, at: path.to_owned() });
        } else {
            entries.extend(mount_of(path, false));
        }
    }
    entries.extend(DEVICES.iter().filter_map(|path| mount_of(Path::new(path), true)));
    // Some systems keep it elsewhere, where nothing else is for commands.
    let resolver = Path::new("/etc/resolv.conf").canonicalize().ok();
    let resolver = resolver.filter(|path| !MOUNTED.iter().any(|mounted| path.starts_with(mounted)));
    entries.extend(resolver.and_then(|path| mount_of(&path, false)));
    // What contains another comes before it, and brings it along.
    let mut extra: Vec<&PathBuf> = policy.extra_read_only.iter().collect();
    extra.sort();
    let mut brought: Vec<&Path> = MOUNTED.iter().map(Path::new).collect();
    for path in extra {
        if brought.iter().any(|other| path.starts_with(other)) {
            continue;
        }
        entries.extend(mount_of(path, false));
        brought.push(path);
    }
    for (role, path) in [("project", &policy.project), ("scratch directory", &policy.scratch)] {
        let held = warden::open_directory(role, path)?;
        let tree = clone_tree(&held, "").map_err(|error| directory(role, path, error))?;
        entries.push(Entry::Mount {
            tree,
            at: path.clone(),
            is_directory: true,
            is_writable: true,
        });
    }
    Ok(entries)
}

/// Nothing for what is not there or what this user cannot reach.
fn mount_of(path: &Path, is_writable: bool) -> Option<Entry> {
    let is_directory = path.metadata().ok()?.is_dir();
    let tree = clone_tree(CWD, path).ok()?;
    Some(Entry::Mount { tree, at: path.to_owned(), is_directory, is_writable })
}

fn clone_tree(base: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(base, path, flags)
}

/// A new file system, mounted nowhere yet.
fn new_mount(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        fsconfig_set_string(context.as_fd(), *name, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    let always = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, always | attributes)
}

fn attach(tree: &OwnedFd, at: impl rustix::path::Arg) -> rustix::io::Result<()> {
    move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Puts an entry into the new root, which is the working directory.
fn place(entry: &Entry) -> io::Result<()> {
    match entry {
        Entry::Link { target, at } => symlink(target, relative(at)),
        Entry::Mount { tree, at, is_directory, is_writable } => {
            let at = relative(at);
            if *is_directory {
                fs::create_dir_all(at)?;
            } else {
                fs::create_dir_all(at.parent().unwrap_or(at))?;
                File::options().create(true).append(true).open(at)?;
            }
            attach(tree, at)?;
            if !*is_writable {
                read_only(at)?;
            }
            Ok(())
        }
    }
}

/// Makes a mount read-only, keeping what else it is: this user may not take anything from it.
fn read_only(at: impl rustix::path::Arg + Copy) -> io::Result<()> {
    let is = statvfs(at)?.f_flag;
    let kept = [
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let mut flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
    for (found, flag) in kept {
        if is.contains(found) {
            flags |= flag;
        }
    }
    Ok(mount_remount(at, flags, "")?)
}

/// Keeps the command from changing what is protected in the project, and from moving it away: a mount
/// point cannot be renamed. `.git` itself can be written in, or no commit could be made.
fn protect(project: &Path) -> Result<(), Trouble> {
    for name in PROTECTED_PATHS {
        let path = relative(project).join(name);
        let shown = || project.join(name);
        let refused = |error: io::Error| directory("protected path", &shown(), error);
        if name == ".iris" && path.symlink_metadata().is_err() {
            // Else the command would make it. Another command of the project may be as far.
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(refused(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        let Ok(found) = path.symlink_metadata() else { continue };
        if found.is_symlink() {
            return Err(directory("protected path", &shown(), "it is a symbolic link"));
        }
        let tree = clone_tree(CWD, &path).map_err(|error| refused(error.into()))?;
        attach(&tree, &path).map_err(|error| refused(error.into()))?;
        if name != ".git" || !found.is_dir() {
            read_only(&path).map_err(refused)?;
        }
    }
    Ok(())
}

/// A path of the new root, from the working directory.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
