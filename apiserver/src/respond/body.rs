//! Bodies that are made while they are sent: lists around shared item bytes, and gzip.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::Write as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http_body::{Frame, SizeHint};

use crate::cache::Entry;

/// Small items are copied together into frames of about this size, which costs less than
/// sending each on its own.
const FRAME: usize = 64 << 10;
/// Pieces from this size on make a frame of their own.
const LARGE: usize = 16 << 10;

/// A part of a body.
pub enum Piece {
    Bytes(Bytes),
    /// An object as an item of a list, written where it is sent: without so many bytes after its
    /// brace, which say its version and kind.
    Item(Arc<Entry>, usize),
}

impl Piece {
    fn length(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Item(entry, skipped) => entry.json_length() - skipped,
        }
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Piece::Bytes(bytes) => out.put_slice(bytes),
            Piece::Item(entry, skipped) => entry.write_item(*skipped, out),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Piece::Bytes(bytes) => bytes,
            Piece::Item(entry, 0) => entry.json(),
            Piece::Item(..) => {
                let mut bytes = BytesMut::with_capacity(self.length());
                self.write(&mut bytes);
                bytes.freeze()
            }
        }
    }
}

/// The pieces of a body, sent in order.
pub struct Pieces {
    pieces: VecDeque<Piece>,
    length: u64,
}

impl Pieces {
    /// A body that is there already.
    pub fn one(bytes: Bytes) -> Self {
        Pieces::new(VecDeque::from([Piece::Bytes(bytes)]))
    }

    fn new(pieces: VecDeque<Piece>) -> Self {
        Pieces {
            length: pieces.iter().map(|piece| piece.length() as u64).sum(),
            pieces,
        }
    }

    /// A JSON list: `head`, the items with commas in between, `tail`.
    pub fn list(head: Bytes, items: impl ExactSizeIterator<Item = Piece>, tail: Bytes) -> Self {
        const COMMA: Piece = Piece::Bytes(Bytes::from_static(b","));
        let mut pieces = VecDeque::with_capacity(2 * items.len() + 2);
        pieces.push_back(Piece::Bytes(head));
        for (index, item) in items.enumerate() {
            if index > 0 {
                pieces.push_back(COMMA);
            }
            pieces.push_back(item);
        }
        pieces.push_back(Piece::Bytes(tail));
        Pieces::new(pieces)
    }

    /// Bytes in all pieces together.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Everything in one piece.
    pub fn concat(mut self) -> Bytes {
        if self.pieces.len() == 1 {
            return self
                .pieces
                .pop_front()
                .map_or_else(Bytes::new, Piece::into_bytes);
        }
        let mut all = BytesMut::with_capacity(usize::try_from(self.length).unwrap_or(0));
        for piece in self.pieces {
            piece.write(&mut all);
        }
        all.freeze()
    }

    /// The next frame; empty at the end.
    fn next_frame(&mut self) -> Bytes {
        let Some(first) = self.pieces.pop_front() else {
            return Bytes::new();
        };
        let alone = first.length() >= LARGE || self.pieces.is_empty();
        if alone {
            return first.into_bytes();
        }
        let mut frame =
            BytesMut::with_capacity(FRAME.min(usize::try_from(self.length).unwrap_or(FRAME)));
        first.write(&mut frame);
        while let Some(piece) = self.pieces.front() {
            if piece.length() >= LARGE || frame.len() + piece.length() > FRAME {
                break;
            }
            piece.write(&mut frame);
            self.pieces.pop_front();
        }
        frame.freeze()
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.next_frame();
        if frame.is_empty() {
            return Poll::Ready(None);
        }
        self.length -= frame.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

/// The same, compressed as it is sent.
pub struct Gzip {
    pieces: Pieces,
    /// `None` when all has been compressed.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    pub fn new(pieces: Pieces) -> Self {
        Gzip {
            pieces,
            encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())),
        }
    }
}

impl http_body::Body for Gzip {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            let frame = self.pieces.next_frame();
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(None);
            };
            if frame.is_empty() {
                let rest = self
                    .encoder
                    .take()
                    .map_or(Ok(Vec::new()), GzEncoder::finish);
                return Poll::Ready(Some(rest.map(|rest| Frame::data(rest.into()))));
            }
            if let Err(error) = encoder.write_all(&frame) {
                return Poll::Ready(Some(Err(error)));
            }
            if !encoder.get_ref().is_empty() {
                let compressed = std::mem::take(encoder.get_mut());
                return Poll::Ready(Some(Ok(Frame::data(compressed.into()))));
            }
        }
    }
}

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Body {
        Body::new(pieces)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt as _;

    use super::*;

    fn list(sizes: &[usize]) -> (Pieces, String) {
        let items: Vec<Piece> = sizes
            .iter()
            .map(|size| Piece::Bytes("x".repeat(*size).into()))
            .collect();
        let texts: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
        let pieces = Pieces::list("[".into(), items.into_iter(), "]".into());
        (pieces, format!("[{}]", texts.join(",")))
    }

    #[tokio::test]
    async fn frames_join_to_the_whole() {
        for sizes in [
            &[][..],
            &[1],
            &[1, 2, 3],
            &[LARGE, 1, LARGE + 1],
            &[FRAME / 7; 40],
        ] {
            let (pieces, expected) = list(sizes);
            assert_eq!(pieces.length(), expected.len() as u64);
            let sent = Body::new(pieces).collect().await.unwrap().to_bytes();
            assert_eq!(sent, expected);
        }
    }

    #[tokio::test]
    async fn gzip_holds_the_same() {
        let (pieces, expected) = list(&[1000; 300]);
        let sent = Body::new(Gzip::new(pieces))
            .collect()
            .await
            .unwrap()
            .to_bytes();
        let mut read = String::new();
        flate2::read::GzDecoder::new(&sent[..])
            .read_to_string(&mut read)
            .unwrap();
        assert!(read == expected);
    }
}
