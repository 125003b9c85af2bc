//! The few values of ASN.1 that a certificate is made of, in DER.

use std::net::IpAddr;

use jiff::{Timestamp, tz::TimeZone};

pub const SEQUENCE: u8 = 0x30;
pub const BOOLEAN: u8 = 0x01;
pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// A tag, the length and the parts one after the other.
pub fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        der.push(short);
    } else {
        let bytes = length.to_be_bytes();
        let start = bytes.iter().take_while(|&&byte| byte == 0).count();
        let count = u8::try_from(bytes.len() - start).unwrap_or_default();
        der.push(0x80 | count);
        der.extend_from_slice(&bytes[start..]);
    }
    parts.iter().for_each(|part| der.extend_from_slice(part));
    der
}

/// What `[number]` stands before.
pub fn explicit(number: u8, contents: &[u8]) -> Vec<u8> {
    value(0xa0 | number, &[contents])
}

/// `[number] IMPLICIT` of bytes.
pub fn implicit(number: u8, contents: &[u8]) -> Vec<u8> {
    value(0x80 | number, &[contents])
}

/// A positive number.
pub fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().take_while(|&&byte| byte == 0).count();
    let digits = &bytes[start.min(bytes.len().saturating_sub(1))..];
    // A first bit that is set would make it negative.
    let sign: &[u8] = if digits.first().is_none_or(|&byte| byte >= 0x80) {
        &[0]
    } else {
        &[]
    };
    value(INTEGER, &[sign, digits])
}

/// Bytes as a bit string.
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    value(BIT_STRING, &[&[0], bytes])
}

/// A set of named bits, of which bit 0 is the first.
pub fn named_bits(bits: u16) -> Vec<u8> {
    let mut bytes = bits.reverse_bits().to_be_bytes().to_vec();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    let unused = bytes.last().map_or(0, |last| last.trailing_zeros());
    let unused = u8::try_from(unused).unwrap_or_default();
    value(BIT_STRING, &[&[unused], &bytes])
}

/// A moment, to the second.
pub fn time(at: Timestamp) -> Vec<u8> {
    let at = at.to_zoned(TimeZone::UTC);
    if (1950..2050).contains(&at.year()) {
        let text = at.strftime("%y%m%d%H%M%SZ").to_string();
        value(UTC_TIME, &[text.as_bytes()])
    } else {
        let text = at.strftime("%Y%m%d%H%M%SZ").to_string();
        value(GENERALIZED_TIME, &[text.as_bytes()])
    }
}

/// The octets of an address, as alternative names have them.
pub fn address(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
