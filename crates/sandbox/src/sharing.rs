//! Directories that the server and commands both work in, when they are different users.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, openat, statat,
};
use rustix::io::Errno;

/// Owner and group do everything; what is made inside gets the group too.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o2770);
/// The attribute with the access control list for what will be made in a directory (acl(5)).
const DEFAULT_LIST: &str = "system.posix_acl_default";

/// Gives a directory, and what is in it, to the user and group that commands run as, and has what is
/// made inside later be writable for both that user and its group. For root, which may write
/// everywhere: call it when a project is made or restored, before its first command.
///
/// The file system should know access control lists; where it does not, what the server makes later is
/// writable for commands only if its umask leaves the group's right to write. Links are given away
/// themselves, never followed; files with several names are given away under all of them, so `path`
/// must be the server's until then.
///
/// # Errors
///
/// What the file system said; `NotADirectory` for a link.
pub fn share_directory(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let directory = open_directory(CWD, path)?;
    share(directory, Uid::from_raw(uid), Gid::from_raw(gid))
}

/// Works through the tree without recursion: it may be deep.
fn share(top: OwnedFd, uid: Uid, gid: Gid) -> io::Result<()> {
    let mut pending = vec![top];
    while let Some(directory) = pending.pop() {
        fchown(&directory, Some(uid), Some(gid))?;
        fchmod(&directory, DIRECTORY_MODE)?;
        set_default_list(&directory, uid)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let status = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                pending.push(open_directory(&directory, name)?);
            } else {
                chownat(&directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
    }
    Ok(())
}

fn open_directory(base: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(base, path, flags, Mode::empty())
}

fn set_default_list(directory: &OwnedFd, uid: Uid) -> io::Result<()> {
    match fsetxattr(directory, DEFAULT_LIST, &default_list(uid), XattrFlags::empty()) {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// `struct posix_acl_xattr_header` and its entries (`linux/posix_acl_xattr.h`): version 2, then tag,
/// permissions and id of owner, one user, group, mask and others, little-endian.
fn default_list(uid: Uid) -> Vec<u8> {
    const ALL: u16 = 0b111;
    const NO_ID: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, ALL, NO_ID),
        (0x02, ALL, uid.as_raw()),
        (0x04, ALL, NO_ID),
        (0x10, ALL, NO_ID),
        (0x20, 0, NO_ID),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
