//! Forgetting tracked connections. A UDP flow keeps the destination that its first packet was
//! given; when that endpoint is gone, or when one has come where there was none, the entry has to
//! go for the next packet to be looked at afresh.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::netlink::{DUMP, Message, Socket, attribute};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// One address and port of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
}

/// A tracked connection: where its first packet came from and went to, and where answers come
/// from, which differs when the destination was translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The IP protocol's number.
    pub protocol: u8,
    pub source: Endpoint,
    pub destination: Endpoint,
    pub answered_by: Endpoint,
}

/// Forgets every tracked connection of which `gone` says so. Returns how many there were; entries
/// that end by themselves meanwhile do not count.
pub fn forget(mut gone: impl FnMut(&Connection) -> bool) -> io::Result<usize> {
    let socket = Socket::open()?;
    let mut requests = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = family as u8;
        socket.request(Message::new(GET, DUMP, family), |entry| {
            if connection(entry).is_some_and(|connection| gone(&connection)) {
                requests.extend(deletion(family, entry));
            }
        })?;
    }
    let mut forgotten = 0;
    for request in requests {
        match socket.request(request, |_| {}) {
            Ok(()) => forgotten += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

/// The entry is named by its own tuple and identifier, so that no later flow of the same
/// addresses is meant.
fn deletion(family: u8, entry: &[u8]) -> Option<Message> {
    let message = Message::new(DELETE, 0, family)
        .acknowledged()
        .nested(TUPLE_ORIGINAL, attribute(entry, TUPLE_ORIGINAL)?)
        .attribute(ID, attribute(entry, ID)?);
    Some(match attribute(entry, ZONE) {
        Some(zone) => message.attribute(ZONE, zone),
        None => message,
    })
}

fn connection(entry: &[u8]) -> Option<Connection> {
    let (protocol, source, destination) = tuple(attribute(entry, TUPLE_ORIGINAL)?)?;
    let (_, answered_by, _) = tuple(attribute(entry, TUPLE_REPLY)?)?;
    Some(Connection {
        protocol,
        source,
        destination,
        answered_by,
    })
}

/// Protocol, source and destination. ICMP and other protocols without ports have none of these.
fn tuple(bytes: &[u8]) -> Option<(u8, Endpoint, Endpoint)> {
    let (ip, protocol) = (
        attribute(bytes, TUPLE_IP)?,
        attribute(bytes, TUPLE_PROTOCOL)?,
    );
    let endpoint = |v4, v6, port| {
        Some(Endpoint {
            address: address(ip, v4, v6)?,
            port: u16::from_be_bytes(*attribute(protocol, port)?.first_chunk()?),
        })
    };
    Some((
        *attribute(protocol, PROTOCOL_NUMBER)?.first()?,
        endpoint(IP_V4_SOURCE, IP_V6_SOURCE, SOURCE_PORT)?,
        endpoint(IP_V4_DESTINATION, IP_V6_DESTINATION, DESTINATION_PORT)?,
    ))
}

fn address(ip: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    if let Some(bytes) = attribute(ip, v4) {
        return Some(Ipv4Addr::from(*bytes.first_chunk()?).into());
    }
    Some(Ipv6Addr::from(*attribute(ip, v6)?.first_chunk()?).into())
}
