//! What server and launcher tell each other: frames of a length and JSON over a pair of sockets.
//!
//! The server sends a [`Policy`] and the bytes of the standard input if there are any, later single
//! bytes ([`TERMINATE`], [`KILL`]); the end of its side means [`KILL`] too. The launcher sends one [`Report`].

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{Limits, Network};

/// Tells all processes of the command to end.
pub(crate) const TERMINATE: u8 = b'T';
/// Kills all processes of the command.
pub(crate) const KILL: u8 = b'K';
/// Most bytes of a frame: the arguments and variables that validation lets through, escaped in JSON.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What the launcher needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Policy {
    /// Who to become; absent for a server that is not root.
    pub(crate) identity: Option<Identity>,
    /// Whether the command gets namespaces of its own.
    pub(crate) has_namespaces: bool,
    pub(crate) network: Network,
    pub(crate) project: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) workdir: PathBuf,
    /// Never empty.
    pub(crate) arguments: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) limits: Limits,
    pub(crate) extra_read_only: Vec<PathBuf>,
    /// Whether the frame after this one is the input of the command, which otherwise has none.
    pub(crate) has_stdin: bool,
}

/// How it went, told by the launcher when nothing of the command runs any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    Exited(i32),
    Signalled(i32),
    /// See [`SandboxError::Directory`](crate::SandboxError::Directory).
    Directory {
        role: String,
        path: PathBuf,
        reason: String,
    },
    Program {
        program: String,
        reason: String,
    },
    Setup {
        step: String,
        reason: String,
    },
}

/// # Errors
///
/// `InvalidData` for a frame that is too long, else what the socket said.
pub(crate) fn write_frame(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, "the frame is too long");
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(too_long());
    }
    let length = u32::try_from(bytes.len()).map_err(|_| too_long())?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)
}

/// Reads exactly one frame and no byte beyond.
///
/// # Errors
///
/// `InvalidData` for a frame that is too long, else what the socket said.
pub(crate) fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// # Errors
///
/// As [`read_frame`]; `InvalidData` for what is not JSON of this type.
pub(crate) fn read_json<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_frame(from)?)?)
}

/// # Errors
///
/// As [`write_frame`].
pub(crate) fn write_json(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    write_frame(to, &serde_json::to_vec(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_one_at_a_time() {
        let mut wire = Vec::new();
        write_json(&mut wire, &Report::Exited(3)).unwrap();
        write_frame(&mut wire, b"input").unwrap();
        wire.push(KILL);
        let mut rest = wire.as_slice();
        assert_eq!(read_json::<Report>(&mut rest).unwrap(), Report::Exited(3));
        assert_eq!(read_frame(&mut rest).unwrap(), b"input");
        assert_eq!(rest, [KILL]);
    }

    #[test]
    fn frames_that_are_too_long_cut_off_or_garbage_are_errors() {
        let kind = |bytes: &[u8]| read_json::<Report>(&mut &bytes[..]).unwrap_err().kind();
        assert_eq!(kind(&u32::MAX.to_le_bytes()), io::ErrorKind::InvalidData);
        assert_eq!(kind(&[9, 0, 0, 0, b'{']), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&[2, 0, 0, 0, b'{', b'}']), io::ErrorKind::InvalidData);
        let long = vec![0; FRAME_BYTES_MAX + 1];
        assert!(write_frame(&mut Vec::new(), &long).is_err());
    }
}
