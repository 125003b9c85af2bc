//! Which node ports are taken, as it is stored: one object for the whole range, in upstream's place
//! and form, so that every server of the store sees it. It has no cache.
//!
//! Upstream: `RangeAllocation` and `pkg/registry/core/service/allocator`.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use coracle_store::{Compare, KeyValue, Write};
use serde::{Deserialize, Serialize};

use crate::registry::ROOT;

/// Below the root.
const KEY: &str = "ranges/servicenodeports";

/// The ports that were taken when it was read.
pub struct PortRange {
    range: RangeInclusive<u16>,
    pub taken: BTreeSet<u16>,
    /// As it is stored.
    found: Option<Arc<KeyValue>>,
}

/// The object. Bit `n` of its data, a big-endian number, stands for the range's port `n`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeAllocation {
    kind: String,
    api_version: String,
    metadata: serde_json::Map<String, serde_json::Value>,
    range: String,
    data: Option<String>,
}

impl PortRange {
    pub fn key() -> Arc<str> {
        format!("{ROOT}{KEY}").into()
    }

    /// `found` is what stands at [`PortRange::key`]. What was stored for another range, or in a
    /// form that is not ours, counts for nothing: [`Services::repair`](super::Services::repair)
    /// makes it anew.
    pub fn read(range: RangeInclusive<u16>, found: Option<Arc<KeyValue>>) -> Self {
        let taken = found
            .as_ref()
            .and_then(|found| decode(&range, &found.value))
            .unwrap_or_default();
        PortRange {
            range,
            taken,
            found,
        }
    }

    /// The write that makes these ports the taken ones, on the condition that nobody wrote
    /// meanwhile; none when they are.
    pub fn replace(&self, taken: &BTreeSet<u16>) -> Option<(Compare, Write)> {
        let value = encode(&self.range, taken);
        let key = Self::key();
        let compare = match &self.found {
            Some(found) if found.value == value => return None,
            Some(found) => Compare::ModRevision(key.clone(), found.mod_revision),
            None => Compare::Absent(key.clone()),
        };
        Some((compare, Write::Put { key, value }))
    }
}

fn named(range: &RangeInclusive<u16>) -> String {
    format!("{}-{}", range.start(), range.end())
}

fn encode(range: &RangeInclusive<u16>, taken: &BTreeSet<u16>) -> Bytes {
    let bits: Vec<usize> = taken
        .iter()
        .filter(|port| range.contains(port))
        .map(|port| usize::from(port - range.start()))
        .collect();
    let length = bits.last().map_or(0, |last| last / 8 + 1);
    let mut data = vec![0_u8; length];
    for bit in bits {
        data[length - 1 - bit / 8] |= 1 << (bit % 8);
    }
    let object = RangeAllocation {
        kind: "RangeAllocation".to_owned(),
        api_version: "v1".to_owned(),
        metadata: serde_json::Map::new(),
        range: named(range),
        data: Some(STANDARD.encode(data)),
    };
    serde_json::to_vec(&object).unwrap_or_default().into()
}

fn decode(range: &RangeInclusive<u16>, value: &[u8]) -> Option<BTreeSet<u16>> {
    let object: RangeAllocation = serde_json::from_slice(value).ok()?;
    if object.range != named(range) {
        return None;
    }
    let data = STANDARD.decode(object.data.unwrap_or_default()).ok()?;
    let bytes = data.iter().rev().enumerate();
    let bits = bytes.flat_map(|(index, byte)| {
        (0..8)
            .filter(move |bit| byte & (1 << bit) != 0)
            .map(move |bit| index * 8 + bit)
    });
    let port = |bit: usize| u16::try_from(usize::from(*range.start()) + bit).ok();
    Some(
        bits.filter_map(port)
            .filter(|port| range.contains(port))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(value: &Bytes) -> Option<Arc<KeyValue>> {
        Some(Arc::new(KeyValue {
            key: PortRange::key(),
            value: value.clone(),
            create_revision: 1,
            mod_revision: 7,
        }))
    }

    #[test]
    fn it_is_stored_as_upstream_stores_it() {
        let range = 30000..=32767;
        let value = encode(&range, &BTreeSet::from([30000, 30009, 30016]));
        assert_eq!(
            std::str::from_utf8(&value).unwrap(),
            r#"{"kind":"RangeAllocation","apiVersion":"v1","metadata":{},"range":"30000-32767","data":"AQIB"}"#
        );
        let read = PortRange::read(range.clone(), stored(&value));
        assert_eq!(read.taken, BTreeSet::from([30000, 30009, 30016]));
        assert!(read.replace(&read.taken).is_none());
        let (compare, _) = read.replace(&BTreeSet::new()).unwrap();
        assert_eq!(compare, Compare::ModRevision(PortRange::key(), 7));
        let all: BTreeSet<u16> = range.clone().collect();
        let read = PortRange::read(range.clone(), stored(&encode(&range, &all)));
        assert_eq!(read.taken, all);
    }

    #[test]
    fn another_range_counts_for_nothing() {
        let value = encode(&(30000..=30010), &BTreeSet::from([30005]));
        let read = PortRange::read(30000..=30020, stored(&value));
        assert!(read.taken.is_empty());
        assert!(read.replace(&BTreeSet::new()).is_some());
    }
}
