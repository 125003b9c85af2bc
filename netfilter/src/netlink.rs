//! As much of nfnetlink as is needed here: requests with nested attributes, and reading answers.
//! The formats are those of `linux/netlink.h` and `linux/netfilter/nfnetlink.h`.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
pub const DUMP: u16 = 0x300;

/// A request under construction.
pub struct Message(Vec<u8>);

impl Message {
    /// `kind` is the subsystem in the upper byte and its message type in the lower.
    pub fn new(kind: u16, flags: u16, family: u8) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
        bytes.extend([family, 0, 0, 0]);
        Message(bytes)
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("attributes here are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Asks for an acknowledgement after the answer, if there is one.
    pub fn acknowledged(mut self) -> Self {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | ACK;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// An attribute whose value is itself a row of attributes.
    pub fn nested(self, kind: u16, value: &[u8]) -> Self {
        self.attribute(kind | NESTED, value)
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("requests here are short");
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// The attributes of a message or of a nested attribute. A cut-off one ends the row.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of that kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(of, value)| (of == kind).then_some(value))
}

/// A netfilter netlink socket in the network namespace of the thread that opened it.
pub struct Socket(OwnedFd);

impl Socket {
    pub fn open() -> io::Result<Self> {
        Ok(Socket(socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?))
    }

    /// Sends the request and hands the attributes of each answer to `each`, until the kernel has
    /// said all. The kernel's error, if it has one, comes back as that error number.
    pub fn request(&self, message: Message, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        let fd = self.0.as_raw_fd();
        sendto(fd, &message.finish(), &kernel, MsgFlags::empty())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = match recv(fd, &mut buffer, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            let mut rest = &buffer[..length];
            while let Some((kind, body, after)) = split(rest) {
                rest = after;
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = body
                            .first_chunk()
                            .map_or(0, |code| i32::from_ne_bytes(*code));
                        return match code {
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    _ => each(body.get(FAMILY_HEADER..).unwrap_or_default()),
                }
            }
        }
    }
}

/// The first message of what was received: its type, its body, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let bytes = Message::new(0, 0, 2)
            .attribute(1, b"abcde")
            .nested(2, &[5, 0, 7, 0, 9])
            .finish();
        assert_eq!(bytes.len() % 4, 0);
        let (_, body, after) = split(&bytes).expect("one message");
        assert!(after.is_empty());
        let body = &body[FAMILY_HEADER..];
        assert_eq!(attribute(body, 1), Some(&b"abcde"[..]));
        let inner = attribute(body, 2).expect("nested");
        assert_eq!(attributes(inner).collect::<Vec<_>>(), [(7, &[9][..])]);
        assert_eq!(attributes(&body[..6]).count(), 0);
    }
}
