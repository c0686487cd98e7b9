//! The pipe for the standard input of a command that is talked to: the server makes it, and its reading end
//! goes to the launcher over the socket between them, ahead of the policy.

use std::io::{self, IoSlice, IoSliceMut, PipeReader};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// A descriptor travels with a byte (unix(7), `SCM_RIGHTS`).
const CARRIER: [u8; 1] = *b"I";
/// Room for one descriptor.
const SPACE: usize = rustix::cmsg_space!(ScmRights(1));

/// Sends the reading end of a pipe. Nothing was sent before, so this does not wait.
///
/// # Errors
///
/// What the socket said.
pub(crate) fn send(to: &UnixStream, pipe: &PipeReader) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [pipe.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("there is no room for a descriptor"));
    }
    sendmsg(to, &[IoSlice::new(&CARRIER)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the reading end of the pipe.
///
/// # Errors
///
/// What the socket said; `InvalidData` if what came was not one descriptor.
pub(super) fn receive(from: &UnixStream) -> io::Result<PipeReader> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut byte)];
    recvmsg(from, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut pipe = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            pipe = descriptors.next();
        }
    }
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "no pipe came");
    pipe.map(PipeReader::from).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_pipe_arrives_and_what_follows_is_left() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        send(&ours, &reader).unwrap();
        ours.write_all(b"policy").unwrap();
        let mut pipe = receive(&theirs).unwrap();
        writer.write_all(b"hello").unwrap();
        drop((reader, writer));
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        let mut rest = [0; 6];
        theirs.read_exact(&mut rest).unwrap();
        assert_eq!((text.as_str(), &rest), ("hello", b"policy"));
    }

    #[test]
    fn a_byte_without_a_pipe_is_an_error() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"I").unwrap();
        assert_eq!(receive(&theirs).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
