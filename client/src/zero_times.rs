//! Spells out times that are zero.
//!
//! The API shows a zero time as `null`, also where a time is required, as in a condition that a
//! client wrote without one. The types of `k8s-openapi` refuse that: one such object would stop
//! every watch and list of its kind. So answers to the clients of this process say the zero time
//! instead; written back, it is `null` again.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};

/// The required times of the API, being zero.
const NULLS: [&[u8]; 2] = [
    br#""lastTransitionTime":null"#,
    br#""lastObservedTime":null"#,
];
const NULL: &[u8] = b"null";
const ZERO: &[u8] = br#""0001-01-01T00:00:00Z""#;

/// The body with its zero times spelled out.
pub fn spelled_out(body: Body) -> Body {
    Body::new(Spelled {
        body,
        held: Vec::new(),
    })
}

struct Spelled {
    body: Body,
    /// The end of the last frame, which may be the beginning of what is looked for.
    held: Vec<u8>,
}

impl http_body::Body for Spelled {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(data) => http_body::Frame::data(self.next(data)),
                Err(other) => other,
            })),
            Some(Err(error)) => Some(Err(error)),
            None if self.held.is_empty() => None,
            None => {
                let rest = std::mem::take(&mut self.held);
                Some(Ok(http_body::Frame::data(rest.into())))
            }
        })
    }
}

impl Spelled {
    fn next(&mut self, data: Bytes) -> Bytes {
        let data = if self.held.is_empty() {
            data
        } else {
            let mut joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(&data);
            joined.into()
        };
        let whole = data.len() - unfinished(&data);
        self.held.extend_from_slice(&data[whole..]);
        match first(&data[..whole]) {
            None => data.slice(..whole),
            Some(_) => replaced(&data[..whole]).into(),
        }
    }
}

/// Where the first is, and how long it is without its `null`.
fn first(data: &[u8]) -> Option<(usize, usize)> {
    let found = NULLS.iter().filter_map(|null| {
        let at = memchr::memmem::find(data, null)?;
        Some((at, null.len() - NULL.len()))
    });
    found.min()
}

fn replaced(mut data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 2 * ZERO.len());
    while let Some((at, key)) = first(data) {
        out.extend_from_slice(&data[..at + key]);
        out.extend_from_slice(ZERO);
        data = &data[at + key + NULL.len()..];
    }
    out.extend_from_slice(data);
    out
}

/// How many bytes at the end may be the beginning of one.
fn unfinished(data: &[u8]) -> usize {
    let beginnings = NULLS.iter().map(|null| {
        (1..null.len())
            .rev()
            .find(|length| data.ends_with(&null[..*length]))
            .unwrap_or(0)
    });
    beginnings.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    const SENT: &str = r#"{"a":"\"lastTransitionTime\":null","c":[{"lastTransitionTime":null,"x":null},{"lastTransitionTime":null}],"s":{"lastObservedTime":null}}"#;
    const SHOWN: &str = r#"{"a":"\"lastTransitionTime\":null","c":[{"lastTransitionTime":"0001-01-01T00:00:00Z","x":null},{"lastTransitionTime":"0001-01-01T00:00:00Z"}],"s":{"lastObservedTime":"0001-01-01T00:00:00Z"}}"#;

    #[tokio::test]
    async fn required_times_are_spelled_out_however_they_are_cut() {
        for size in 1..=SENT.len() {
            let frames: Vec<Result<Bytes, axum::Error>> = SENT
                .as_bytes()
                .chunks(size)
                .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
                .collect();
            let body = spelled_out(Body::from_stream(stream::iter(frames)));
            let shown = body.collect().await.unwrap().to_bytes();
            assert_eq!(shown, SHOWN, "frames of {size}");
        }
    }

    #[tokio::test]
    async fn nothing_is_held_back_at_the_end() {
        let body = spelled_out(Body::from(r#"cut off: "lastTrans"#));
        let shown = body.collect().await.unwrap().to_bytes();
        assert_eq!(shown, r#"cut off: "lastTrans"#);
    }
}
