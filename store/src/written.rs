//! How many bytes went to the device, for each kind of key: what wears out flash.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The durable writes to the keys below one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The first two segments of the keys, for example `/registry/pods`.
    pub prefix: String,
    /// Bytes of keys and values handed to the device.
    pub bytes: u64,
    /// Keys put or deleted.
    pub writes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<Box<str>, Counter>>);

#[derive(Debug, Default)]
struct Counter {
    bytes: u64,
    writes: u64,
}

impl Counters {
    pub fn add(&self, key: &str, bytes: usize) {
        let prefix = prefix(key);
        let mut counters = self.0.lock();
        if !counters.contains_key(prefix) {
            counters.insert(prefix.into(), Counter::default());
        }
        if let Some(counter) = counters.get_mut(prefix) {
            counter.bytes += bytes as u64;
            counter.writes += 1;
        }
    }

    pub fn read(&self) -> Vec<Written> {
        self.0
            .lock()
            .iter()
            .map(|(prefix, counter)| Written {
                prefix: prefix.to_string(),
                bytes: counter.bytes,
                writes: counter.writes,
            })
            .collect()
    }
}

fn prefix(key: &str) -> &str {
    let end = key.match_indices('/').nth(2).map(|(at, _)| at);
    &key[..end.unwrap_or(key.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_by_their_first_two_segments() {
        assert_eq!(prefix("/registry/pods/default/web"), "/registry/pods");
        assert_eq!(prefix("/registry/pods"), "/registry/pods");
        assert_eq!(prefix("x"), "x");
    }
}
