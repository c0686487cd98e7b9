//! Names of archives, and names in archives.

use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;

/// Longest path in an archive, in bytes.
pub(crate) const PATH_BYTES_MAX: usize = 4096;
/// Longest name between two `/`, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Most names of one path.
pub(crate) const DEPTH_MAX: usize = 256;

const MS_PER_SECOND: i64 = 1_000;

/// A path in an archive, relative, with `/`, as the bytes that it is.
///
/// Serialises as a string, or, where the bytes are not UTF-8, as `{"hex": ".."}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchivedPath(Vec<u8>);

impl ArchivedPath {
    /// Takes a path that stays below where it is put: relative, without empty names, `.` and `..`,
    /// with names, depth and length that a file system takes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut depth = 0;
        for name in bytes.split(|byte| *byte == b'/') {
            let is_name = !matches!(name, b"" | b"." | b"..");
            let is_sound = !name.contains(&0) && name.len() <= NAME_BYTES_MAX;
            depth += 1;
            if !is_name || !is_sound || depth > DEPTH_MAX {
                return None;
            }
        }
        (bytes.len() <= PATH_BYTES_MAX).then(|| Self(bytes.to_owned()))
    }

    /// The path of a name in the directory `self`; `None` where it would be too long or too deep.
    pub(crate) fn join(&self, name: &OsStr) -> Option<Self> {
        let mut bytes = self.0.clone();
        bytes.push(b'/');
        bytes.extend(os_bytes(name)?);
        Self::new(&bytes)
    }

    /// The bytes, never empty.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for the file system; `None` where that cannot name it.
    pub(crate) fn to_path(&self) -> Option<PathBuf> {
        os_path(&self.0)
    }

    /// What is below `prefix` (with its `/`).
    pub(crate) fn below(&self, prefix: &[u8]) -> Option<Self> {
        Self::new(self.0.strip_prefix(prefix)?)
    }
}

impl fmt::Display for ArchivedPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "other systems have names that are no bytes")]
fn os_bytes(name: &OsStr) -> Option<&[u8]> {
    Some(std::os::unix::ffi::OsStrExt::as_bytes(name))
}

#[cfg(not(unix))]
fn os_bytes(name: &OsStr) -> Option<&[u8]> {
    name.to_str().map(str::as_bytes)
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "other systems have names that are no bytes")]
fn os_path(bytes: &[u8]) -> Option<PathBuf> {
    let name: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(bytes);
    Some(Path::new(name).to_owned())
}

#[cfg(not(unix))]
fn os_path(bytes: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(bytes).ok().map(PathBuf::from)
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { hex: String },
}

impl Serialize for ArchivedPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match std::str::from_utf8(&self.0) {
            Ok(text) => Written::Text(text.to_owned()),
            Err(_) => Written::Bytes { hex: to_hex(&self.0) },
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ArchivedPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into_bytes(),
            Written::Bytes { hex } => {
                from_hex(&hex).ok_or_else(|| D::Error::custom("a path that is not hexadecimal"))?
            }
        };
        Self::new(&bytes).ok_or_else(|| {
            D::Error::custom(format!("the path `{}`", String::from_utf8_lossy(&bytes)))
        })
    }
}

/// Lower case.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = is_hex.then_some(text)?;
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

/// The name of a backup that was begun at `at`, in milliseconds since 1970 UTC, without its ending:
/// `20260102T030405Z-1a2b3c4d`. Names sort by time; the random end keeps two of one second apart.
pub fn backup_name(at: i64, random: u32) -> String {
    format!("{}-{random:08x}", stamp(at))
}

/// Times that no calendar has, some ten thousand years from now, are those of 1970.
fn stamp(at: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at.div_euclid(MS_PER_SECOND));
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = at.to_calendar_date();
    let (month, (hour, minute, second)) = (u8::from(month), at.to_hms());
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_leave_is_no_path() {
        let long = [b'a'; NAME_BYTES_MAX + 1];
        let deep = "a/".repeat(DEPTH_MAX) + "a";
        for bytes in [
            &b""[..],
            b"/",
            b"/etc/passwd",
            b"..",
            b"a/../b",
            b"./a",
            b"a//b",
            b"a/",
            b"a\0b",
            &long,
        ] {
            assert_eq!(ArchivedPath::new(bytes), None, "{bytes:?}");
        }
        assert_eq!(ArchivedPath::new(deep.as_bytes()), None);
        for bytes in [&b"a"[..], b"...", b"a/..b", b"\xff/x", "ü/ß".as_bytes()] {
            assert!(ArchivedPath::new(bytes).is_some(), "{bytes:?}");
        }
    }

    #[test]
    fn a_path_of_any_bytes_comes_back_from_json() {
        for bytes in [&b"a b/c"[..], b"%41", b"\xff\xfe", "ü".as_bytes()] {
            let path = ArchivedPath::new(bytes).unwrap();
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<ArchivedPath>(&json).unwrap(), path);
        }
        for json in ["\"../x\"", "{\"hex\":\"2e2e\"}", "{\"hex\":\"f\"}", "{\"hex\":\"zz\"}", "7"] {
            assert!(serde_json::from_str::<ArchivedPath>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn names_of_backups_sort_by_time() {
        assert_eq!(backup_name(0, 0x1a), "19700101T000000Z-0000001a");
        assert_eq!(backup_name(951_827_696_789, u32::MAX), "20000229T123456Z-ffffffff");
        assert_eq!(backup_name(-1, 0), "19691231T235959Z-00000000");
        assert_eq!(backup_name(i64::MAX, 0), "19700101T000000Z-00000000");
    }
}
