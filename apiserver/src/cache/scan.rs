//! Finding things in an object's JSON without parsing it.
//!
//! Works on what this server has serialised itself: valid JSON, no white space between tokens.
//! `metadata` is mostly the third member of the object, but a kind's own members may come first
//! and have a `metadata` in them.

use std::ops::Range;

use memchr::memchr2;

/// Where the members of `metadata` begin, in the JSON of an object.
pub fn metadata_start(json: &[u8]) -> Option<usize> {
    let mut at = 1;
    while json.get(at) == Some(&b'"') {
        let key_end = string_end(json, at);
        let value = key_end + 1;
        if &json[at..key_end] == br#""metadata""# {
            return (json.get(value) == Some(&b'{')).then_some(value + 1);
        }
        at = value_end(json, value) + 1;
    }
    None
}

/// The parts of `metadata` that read paths need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The whole object, braces included.
    pub whole: Range<usize>,
    /// The value of `labels`, braces included; empty when there are none.
    pub labels: Range<usize>,
}

/// Looks through the members of `metadata`, the first of which begins at `start`.
pub fn metadata(json: &[u8], start: usize) -> Metadata {
    let mut found = Metadata::default();
    let mut at = start;
    while json.get(at) == Some(&b'"') {
        let key_end = string_end(json, at);
        let value = key_end + 1;
        let value_end = value_end(json, value);
        if &json[at..key_end] == br#""labels""# {
            found.labels = value..value_end;
        }
        at = value_end;
        if json.get(at) == Some(&b',') {
            at += 1;
        }
    }
    found.whole = start - 1..at + 1;
    found
}

/// The position after the string whose opening quote is at `at`.
fn string_end(json: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(offset) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += offset;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

/// The position after the value that starts at `at`.
fn value_end(json: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                at = string_end(json, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The members of a flat object of strings, such as `labels`. Label keys and values hold no
/// character that JSON escapes.
pub fn string_members(object: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut strings = object.split(|byte| *byte == b'"').skip(1).step_by(2);
    std::iter::from_fn(move || Some((strings.next()?, strings.next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_metadata_and_labels() {
        let json = br#"{"apiVersion":"v1","kind":"X","metadata":{"annotations":{"a":"\"}{\\"},"generation":3,"labels":{"app":"web","tier":""},"ownerReferences":[{"uid":"1"}]},"data":{}}"#;
        let start = metadata_start(json).unwrap();
        let found = metadata(json, start);
        assert!(json[found.whole.clone()].starts_with(br#"{"annotations""#));
        assert!(json[found.whole.clone()].ends_with(br#"[{"uid":"1"}]}"#));
        let labels: Vec<_> = string_members(&json[found.labels]).collect();
        assert_eq!(labels, [(&b"app"[..], &b"web"[..]), (b"tier", b"")]);
    }

    #[test]
    fn metadata_within_other_members_is_passed_over() {
        let json = br#"{"apiVersion":"v1","data":{"metadata":{"x":["}",{}]}},"kind":"X","n":1,"metadata":{"name":"a"}}"#;
        let found = metadata(json, metadata_start(json).unwrap());
        assert_eq!(&json[found.whole], br#"{"name":"a"}"#);
        assert_eq!(
            metadata_start(br#"{"kind":"X","spec":{"metadata":{}}}"#),
            None
        );
    }

    #[test]
    fn metadata_without_labels_or_members() {
        let json = br#"{"metadata":{}}"#;
        let found = metadata(json, metadata_start(json).unwrap());
        assert_eq!(&json[found.whole], b"{}");
        assert_eq!(string_members(&json[found.labels]).count(), 0);
    }
}
