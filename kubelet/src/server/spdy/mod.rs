//! SPDY/3.1 framing, as far as Kubernetes streaming uses it: the protocol that container
//! runtimes speak for exec and attach.
//!
//! Enter at [`Codec`]. There is no flow control: the runtimes' implementation (spdystream)
//! announces windows but never enforces them.

mod dictionary;
mod headers;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use headers::{Deflater, Inflater};

pub type StreamId = u32;
pub type Headers = Vec<(String, String)>;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const HEADER_BYTES: usize = 8;
/// Control frames carry a few headers; a bigger one is an attack or an error.
const MAX_CONTROL_BYTES: usize = 1 << 20;
/// A longer data frame is given out in pieces of this size.
const DATA_PIECE_BYTES: usize = 64 << 10;
const MAX_LENGTH: usize = (1 << 24) - 1;

mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const PING: u16 = 6;
    pub const GO_AWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
}

/// A frame. Those without meaning here (SETTINGS, WINDOW_UPDATE) are passed over in silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream; a client's ids are odd.
    SynStream {
        id: StreamId,
        headers: Headers,
        fin: bool,
    },
    SynReply {
        id: StreamId,
        headers: Headers,
        fin: bool,
    },
    /// More headers for an open stream.
    Headers {
        id: StreamId,
        headers: Headers,
        fin: bool,
    },
    /// `fin`: the sender sends no more on this stream.
    Data {
        id: StreamId,
        payload: Bytes,
        fin: bool,
    },
    Reset {
        id: StreamId,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: StreamId,
        status: u32,
    },
}

/// Why bytes are not SPDY/3.1.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    #[error("spdy: {0}")]
    Io(#[from] std::io::Error),
    #[error("spdy: version {0} is not supported")]
    Version(u16),
    #[error("spdy: a frame of {0} bytes is too large")]
    TooLarge(usize),
    #[error("spdy: frame is malformed")]
    Malformed,
    #[error("spdy: cannot (de)compress headers")]
    Compression,
}

/// Frames to bytes and back. One per connection: headers are compressed in one context for
/// each direction.
#[derive(Default)]
pub struct Codec {
    deflater: Deflater,
    inflater: Inflater,
    /// Of the data frame that is being given out in pieces.
    remaining: Option<Remaining>,
}

#[derive(Clone, Copy)]
struct Remaining {
    id: StreamId,
    bytes: usize,
    fin: bool,
}

impl Codec {
    /// The next piece of the data frame whose head was read.
    fn piece(&mut self, remaining: Remaining, source: &mut BytesMut) -> Option<Frame> {
        let take = remaining.bytes.min(source.len()).min(DATA_PIECE_BYTES);
        if take == 0 && remaining.bytes > 0 {
            source.reserve(remaining.bytes.min(DATA_PIECE_BYTES));
            return None;
        }
        let left = remaining.bytes - take;
        self.remaining = (left > 0).then_some(Remaining {
            bytes: left,
            ..remaining
        });
        Some(Frame::Data {
            id: remaining.id,
            payload: source.split_to(take).freeze(),
            fin: remaining.fin && left == 0,
        })
    }

    fn control(
        &mut self,
        kind: u16,
        flags: u8,
        mut body: Bytes,
    ) -> Result<Option<Frame>, SpdyError> {
        let fin = flags & FLAG_FIN != 0;
        let needed = match kind {
            kind::SYN_STREAM => 10,
            kind::SYN_REPLY | kind::HEADERS | kind::PING => 4,
            kind::RST_STREAM | kind::GO_AWAY => 8,
            _ => return Ok(None),
        };
        if body.len() < needed {
            return Err(SpdyError::Malformed);
        }
        let id = body.get_u32() & 0x7fff_ffff;
        Ok(Some(match kind {
            kind::SYN_STREAM => {
                // The associated stream, priority and slot mean nothing here.
                body.advance(6);
                let headers = self.inflater.headers(&body)?;
                Frame::SynStream { id, headers, fin }
            }
            kind::SYN_REPLY => {
                let headers = self.inflater.headers(&body)?;
                Frame::SynReply { id, headers, fin }
            }
            kind::HEADERS => {
                let headers = self.inflater.headers(&body)?;
                Frame::Headers { id, headers, fin }
            }
            kind::RST_STREAM => {
                let status = body.get_u32();
                Frame::Reset { id, status }
            }
            kind::GO_AWAY => {
                let status = body.get_u32();
                Frame::GoAway { last: id, status }
            }
            _ => Frame::Ping { id },
        }))
    }
}

impl Decoder for Codec {
    type Item = Frame;
    type Error = SpdyError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        if let Some(remaining) = self.remaining {
            return Ok(self.piece(remaining, source));
        }
        while source.len() >= HEADER_BYTES {
            let mut head = &source[..HEADER_BYTES];
            let word = head.get_u32();
            let flags_and_length = head.get_u32();
            let flags = (flags_and_length >> 24) as u8;
            let length = (flags_and_length & 0x00ff_ffff) as usize;
            if word & 0x8000_0000 == 0 {
                source.advance(HEADER_BYTES);
                let remaining = Remaining {
                    id: word,
                    bytes: length,
                    fin: flags & FLAG_FIN != 0,
                };
                self.remaining = Some(remaining);
                return Ok(self.piece(remaining, source));
            }
            let version = (word >> 16) as u16 & 0x7fff;
            if version != VERSION {
                return Err(SpdyError::Version(version));
            }
            if length > MAX_CONTROL_BYTES {
                return Err(SpdyError::TooLarge(length));
            }
            if source.len() < HEADER_BYTES + length {
                source.reserve(HEADER_BYTES + length - source.len());
                return Ok(None);
            }
            source.advance(HEADER_BYTES);
            let body = source.split_to(length).freeze();
            if let Some(frame) = self.control(word as u16, flags, body)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}

impl Encoder<Frame> for Codec {
    type Error = SpdyError;

    fn encode(&mut self, frame: Frame, target: &mut BytesMut) -> Result<(), SpdyError> {
        let mut body = BytesMut::new();
        let (kind, fin) = match frame {
            Frame::Data { id, payload, fin } => return encode_data(id, &payload, fin, target),
            Frame::SynStream { id, headers, fin } => {
                body.put_u32(id);
                body.put_bytes(0, 6);
                body.put_slice(&self.deflater.headers(&headers)?);
                (kind::SYN_STREAM, fin)
            }
            Frame::SynReply { id, headers, fin } => {
                body.put_u32(id);
                body.put_slice(&self.deflater.headers(&headers)?);
                (kind::SYN_REPLY, fin)
            }
            Frame::Headers { id, headers, fin } => {
                body.put_u32(id);
                body.put_slice(&self.deflater.headers(&headers)?);
                (kind::HEADERS, fin)
            }
            Frame::Reset { id, status } => {
                body.put_u32(id);
                body.put_u32(status);
                (kind::RST_STREAM, false)
            }
            Frame::Ping { id } => {
                body.put_u32(id);
                (kind::PING, false)
            }
            Frame::GoAway { last, status } => {
                body.put_u32(last);
                body.put_u32(status);
                (kind::GO_AWAY, false)
            }
        };
        target.reserve(HEADER_BYTES + body.len());
        target.put_u16(0x8000 | VERSION);
        target.put_u16(kind);
        target.put_u32(flags_and_length(fin, body.len())?);
        target.put_slice(&body);
        Ok(())
    }
}

fn encode_data(
    id: StreamId,
    payload: &[u8],
    fin: bool,
    target: &mut BytesMut,
) -> Result<(), SpdyError> {
    target.reserve(HEADER_BYTES + payload.len());
    target.put_u32(id);
    target.put_u32(flags_and_length(fin, payload.len())?);
    target.put_slice(payload);
    Ok(())
}

fn flags_and_length(fin: bool, length: usize) -> Result<u32, SpdyError> {
    if length > MAX_LENGTH {
        return Err(SpdyError::TooLarge(length));
    }
    let flags = if fin { u32::from(FLAG_FIN) << 24 } else { 0 };
    Ok(flags | length as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str) -> Headers {
        vec![
            ("streamtype".to_owned(), kind.to_owned()),
            ("port".to_owned(), "80".to_owned()),
        ]
    }

    #[test]
    fn frames_survive_the_wire_byte_by_byte() {
        let frames = [
            Frame::SynStream {
                id: 1,
                headers: headers("error"),
                fin: false,
            },
            Frame::SynStream {
                id: 3,
                headers: headers("stdin"),
                fin: true,
            },
            Frame::SynReply {
                id: 1,
                headers: Headers::new(),
                fin: false,
            },
            Frame::Headers {
                id: 1,
                headers: headers("more"),
                fin: false,
            },
            Frame::Ping { id: 7 },
            Frame::Reset { id: 3, status: 5 },
            Frame::Data {
                id: 1,
                payload: Bytes::from_static(b"x"),
                fin: false,
            },
            Frame::Data {
                id: 1,
                payload: Bytes::new(),
                fin: true,
            },
            Frame::GoAway { last: 3, status: 0 },
        ];
        let mut wire = BytesMut::new();
        let mut sender = Codec::default();
        for frame in &frames {
            sender.encode(frame.clone(), &mut wire).unwrap();
        }
        let mut receiver = Codec::default();
        let mut buffer = BytesMut::new();
        let mut received = Vec::new();
        for byte in wire {
            buffer.put_u8(byte);
            while let Some(frame) = receiver.decode(&mut buffer).unwrap() {
                received.push(frame);
            }
        }
        assert_eq!(received, frames);
    }

    #[test]
    fn a_long_data_frame_comes_in_pieces_and_ends_once() {
        let mut wire = BytesMut::new();
        let frame = Frame::Data {
            id: 5,
            payload: Bytes::from(vec![1; DATA_PIECE_BYTES * 2 + 1]),
            fin: true,
        };
        Codec::default().encode(frame, &mut wire).unwrap();
        let mut receiver = Codec::default();
        let mut sizes = Vec::new();
        while let Some(Frame::Data { payload, fin, .. }) = receiver.decode(&mut wire).unwrap() {
            sizes.push((payload.len(), fin));
        }
        assert_eq!(
            sizes,
            [
                (DATA_PIECE_BYTES, false),
                (DATA_PIECE_BYTES, false),
                (1, true)
            ]
        );
    }

    #[test]
    fn frames_without_meaning_are_passed_over() {
        let mut wire = BytesMut::new();
        // WINDOW_UPDATE and SETTINGS, then a ping.
        wire.put_slice(&[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0xff, 0xff]);
        wire.put_slice(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0]);
        Codec::default()
            .encode(Frame::Ping { id: 9 }, &mut wire)
            .unwrap();
        let mut receiver = Codec::default();
        assert_eq!(
            receiver.decode(&mut wire).unwrap(),
            Some(Frame::Ping { id: 9 })
        );
    }

    #[test]
    fn what_is_not_spdy_is_refused() {
        let decode = |bytes: &[u8]| Codec::default().decode(&mut BytesMut::from(bytes));
        assert!(matches!(
            decode(&[0x80, 2, 0, 6, 0, 0, 0, 0]),
            Err(SpdyError::Version(2))
        ));
        assert!(matches!(
            decode(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]),
            Err(SpdyError::TooLarge(_))
        ));
        assert!(matches!(
            decode(&[0x80, 3, 0, 6, 0, 0, 0, 1, 0]),
            Err(SpdyError::Malformed)
        ));
        let mut syn = vec![0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1];
        syn.extend(b"junk");
        assert!(matches!(decode(&syn), Err(SpdyError::Compression)));
    }
}
