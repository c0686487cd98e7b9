//! Brings up the loopback interface of a new network namespace.

use std::io;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// Where a new network namespace has its loopback interface.
const LOOPBACK_INDEX: i32 = 1;
/// `RTM_NEWLINK`, rtnetlink(7).
const NEW_LINK: u16 = 16;
/// `NLM_F_REQUEST | NLM_F_ACK`, netlink(7).
const REQUEST_AND_ACKNOWLEDGE: u16 = 0x1 | 0x4;
/// `IFF_UP`, netdevice(7).
const UP: u32 = 0x1;
/// `NLMSG_ERROR`, netlink(7): also the acknowledgement, with 0 as error.
const ERROR: u16 = 2;

/// # Errors
///
/// What the kernel said.
pub(super) fn bring_up() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // the protocol of routes and links, NETLINK_ROUTE, is number 0
    )?;
    sendto(&socket, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 64];
    let (_, length) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    match error_of(answer) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer of rtnetlink")),
    }
}

/// `struct nlmsghdr` and `struct ifinfomsg`.
fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(32_u32.to_ne_bytes());
    bytes.extend(NEW_LINK.to_ne_bytes());
    bytes.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    bytes.extend([0; 8]); // sequence and sender
    bytes.extend([0; 4]); // family, padding, type
    bytes.extend(LOOPBACK_INDEX.to_ne_bytes());
    bytes.extend(UP.to_ne_bytes());
    bytes.extend(UP.to_ne_bytes()); // which flags change
    bytes
}

/// The error in an `NLMSG_ERROR`: after the 16 bytes of the header.
fn error_of(answer: &[u8]) -> Option<i32> {
    let kind = answer.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)?;
    let error = answer.get(16..20)?.try_into().ok().map(i32::from_ne_bytes)?;
    (kind == ERROR).then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let answer = |kind: u16, error: i32| {
            let mut bytes = vec![0; 20];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16..].copy_from_slice(&error.to_ne_bytes());
            error_of(&bytes)
        };
        assert_eq!(answer(ERROR, 0), Some(0));
        assert_eq!(answer(ERROR, -1), Some(-1));
        assert_eq!(answer(NEW_LINK, 0), None);
        assert_eq!(error_of(&[0; 10]), None);
        assert_eq!(request().len(), 32);
    }
}
