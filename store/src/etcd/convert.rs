//! Between etcd's types and ours.

use std::sync::Arc;

use tonic::{Code, Status};

use super::rpc::{self, ResponseHeader, Target};
use crate::{Compare, Error, KeyValue, Revision};

pub(super) fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |header| header.revision.cast_unsigned())
}

pub(super) fn key_value(item: rpc::KeyValue) -> Result<Arc<KeyValue>, Error> {
    let key = String::from_utf8(item.key)
        .map_err(|error| Error::Backend(format!("a key in etcd is no text: {error}")))?;
    Ok(Arc::new(KeyValue {
        key: Arc::from(key),
        value: item.value.into(),
        create_revision: item.create_revision.cast_unsigned(),
        mod_revision: item.mod_revision.cast_unsigned(),
    }))
}

pub(super) fn compare(compare: &Compare) -> rpc::Compare {
    match compare {
        Compare::Absent(key) => rpc::Compare::equal(key, Target::CreateRevision(0)),
        Compare::ModRevision(key, revision) => {
            rpc::Compare::equal(key, Target::ModRevision(revision.cast_signed()))
        }
    }
}

/// The first key that starts with `prefix`; etcd knows no empty key.
pub(super) fn prefix_start(prefix: &str) -> Vec<u8> {
    if prefix.is_empty() {
        return vec![0];
    }
    prefix.into()
}

/// The first key after all that start with `prefix`.
pub(super) fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // Etcd's way to say "to the end".
    vec![0]
}

pub(super) fn backend(status: &Status) -> Error {
    let message = status.message();
    if status.code() == Code::ResourceExhausted && message.contains("database space exceeded") {
        return Error::Full;
    }
    Error::Backend(format!("etcd: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_text() {
        assert_eq!(prefix_end("/registry/"), b"/registry0");
        assert_eq!(prefix_end(""), [0]);
    }
}
