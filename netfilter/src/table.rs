//! Whether a table is there, asked of the kernel directly: some twenty microseconds, where
//! starting `nft` takes milliseconds.

use std::{fmt, io};

use crate::netlink::{Message, Socket, attribute};

const GET_TABLE: u16 = 10 << 8 | 1;
const TABLE_NAME: u16 = 1;
const TABLE_USERDATA: u16 = 6;
const USERDATA_COMMENT: u8 = 0;

/// The address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    Ip,
    Ip6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
        })
    }
}

impl Family {
    fn number(self) -> u8 {
        (match self {
            Family::Inet => libc::NFPROTO_INET,
            Family::Ip => libc::NFPROTO_IPV4,
            Family::Ip6 => libc::NFPROTO_IPV6,
        }) as u8
    }
}

/// The comment of the table, empty when it has none; `None` when there is no such table.
pub fn table_comment(family: Family, name: &str) -> io::Result<Option<String>> {
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    let request = Message::new(GET_TABLE, 0, family.number()).attribute(TABLE_NAME, &value);
    // A single answer has no end of its own; the acknowledgement that follows it is the end.
    let mut found = None;
    let asked = Socket::open()?.request(request.acknowledged(), |answer| {
        let data = attribute(answer, TABLE_USERDATA).unwrap_or_default();
        found = Some(comment(data).unwrap_or_default());
    });
    match asked {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        other => other.map(|()| found),
    }
}

/// User data is a row of entries: type and length of one byte each, then the value.
fn comment(mut data: &[u8]) -> Option<String> {
    loop {
        let (&[kind, length], rest) = data.split_first_chunk()?;
        let (value, after) = rest.split_at_checked(length.into())?;
        if kind == USERDATA_COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        data = after;
    }
}
