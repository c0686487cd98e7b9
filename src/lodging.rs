//! On what kind of file system the data directory is. SQLite's write-ahead log needs memory that all readers share,
//! which file systems over a network do not have, and locks that hold, which few of them keep.

use std::path::Path;

/// File systems of other machines, by the number that Linux has for them (statfs(2)).
const OF_OTHER_MACHINES: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x564c, "NCP"),
    (0x7375_7245, "Coda"),
];
/// Those of which nobody can tell what is behind them.
const UNKNOWN: &[(u64, &str)] = &[(0x6573_5546, "FUSE"), (0x0102_1997, "9P")];

/// Where a file system keeps its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lodging {
    /// On this machine, as far as anybody knows.
    Here,
    /// Perhaps on another one: the name of the kind.
    Perhaps(&'static str),
    /// On another one: the name of the kind.
    Elsewhere(&'static str),
}

impl Lodging {
    /// That of the nearest directory that is there.
    #[cfg(target_os = "linux")]
    pub(crate) fn of(path: &Path) -> Self {
        let there = path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
        let found = rustix::fs::statfs(there);
        // The number is one of 32 bits; on some machines it comes in a signed or in a wider type.
        #[expect(clippy::cast_sign_loss, reason = "the bits count")]
        let number = found.map(|found| (found.f_type as u64) & 0xffff_ffff);
        number.map_or(Self::Here, Self::of_number)
    }

    /// That of the nearest directory that is there.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_: &Path) -> Self {
        Self::Here
    }

    fn of_number(number: u64) -> Self {
        let in_list = |list: &[(u64, &'static str)]| {
            list.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
        };
        match (in_list(OF_OTHER_MACHINES), in_list(UNKNOWN)) {
            (Some(name), _) => Self::Elsewhere(name),
            (None, Some(name)) => Self::Perhaps(name),
            (None, None) => Self::Here,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_told_from_those_of_this_one() {
        // As in linux/magic.h.
        let (nfs, smb2, fuse, ext4) = (0x6969, 0xfe53_4d42, 0x6573_5546, 0xef53);
        assert_eq!(Lodging::of_number(nfs), Lodging::Elsewhere("NFS"));
        assert_eq!(Lodging::of_number(smb2), Lodging::Elsewhere("SMB"));
        assert_eq!(Lodging::of_number(fuse), Lodging::Perhaps("FUSE"));
        assert_eq!(Lodging::of_number(ext4), Lodging::Here);
    }

    #[test]
    fn the_directory_that_is_there_counts() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("not/there");
        assert_eq!(Lodging::of(&deep), Lodging::of(dir.path()));
    }
}
