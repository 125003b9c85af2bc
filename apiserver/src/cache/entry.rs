//! One object in a watch cache: its final bytes and the little that read paths ask about it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use coracle_api::{
    Object, Strategy,
    codec::protobuf::{self, ProtobufError},
    strategy::DecodeError,
};
use coracle_store::{KeyValue, Revision};

use super::scan;

/// What comes right after `"metadata":{`.
const VERSION_KEY: &str = r#""resourceVersion":""#;

/// An object as it stood after one write.
pub struct Entry {
    pub key: Arc<str>,
    /// The object as clients get it.
    pub bytes: Bytes,
    pub revision: Revision,
    /// Where the digits of the resourceVersion begin.
    version_start: u32,
    metadata: (u32, u32),
    labels: (u32, u32),
    fields: Fields,
    /// Other forms, made when they are first asked for.
    derived: OnceLock<Box<Derived>>,
}

#[derive(Default)]
struct Derived {
    /// The object as its type, for those who ask for it in this process.
    object: OnceLock<Arc<dyn Object>>,
    /// The object in protobuf, for watchers.
    protobuf: OnceLock<Bytes>,
}

/// The values of the kind's selectable fields, each with a NUL after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Box<str>);

impl Fields {
    /// Those of an object in its stored version.
    pub fn of(object: &dyn Object, strategy: &dyn Strategy) -> Self {
        let fields = strategy.selectable_fields(object);
        let mut joined = String::with_capacity(fields.iter().map(|field| field.len() + 1).sum());
        for field in fields {
            joined.push_str(&field);
            joined.push('\0');
        }
        Fields(joined.into_boxed_str())
    }
}

/// The stored bytes are not an object of the kind.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("{0}: the stored value has no metadata")]
    NoMetadata(Arc<str>),
    #[error("{key}: {source}")]
    Decode { key: Arc<str>, source: DecodeError },
}

impl Entry {
    /// Makes the entry for a stored value, which is without resourceVersion. `fields` are the
    /// values of its selectable fields, where they are known.
    pub fn new(
        stored: &KeyValue,
        fields: Option<Fields>,
        strategy: &dyn Strategy,
    ) -> Result<Self, EntryError> {
        let mut entry = Entry::unindexed(stored)?;
        entry.fields = match fields {
            Some(fields) => fields,
            None => {
                let object = decode(&entry.bytes, strategy);
                Fields::of(
                    &*object.map_err(|source| EntryError::Decode {
                        key: stored.key.clone(),
                        source,
                    })?,
                    strategy,
                )
            }
        };
        Ok(entry)
    }

    /// The same without the values of selectable fields: for answers.
    pub fn unindexed(stored: &KeyValue) -> Result<Self, EntryError> {
        Entry::unindexed_at(stored.key.clone(), &stored.value, stored.mod_revision)
    }

    /// The same for a value that need not be stored.
    pub fn unindexed_at(
        key: Arc<str>,
        value: &[u8],
        revision: Revision,
    ) -> Result<Self, EntryError> {
        match splice(value, revision) {
            Some((bytes, start)) => Ok(Entry::of_bytes(key, bytes, revision, start)),
            None => Err(EntryError::NoMetadata(key)),
        }
    }

    fn of_bytes(key: Arc<str>, bytes: Bytes, revision: Revision, version_start: usize) -> Self {
        let found = scan::metadata(&bytes, version_start - VERSION_KEY.len());
        Entry {
            key,
            revision,
            version_start: narrow(version_start),
            metadata: (narrow(found.whole.start), narrow(found.whole.end)),
            labels: (narrow(found.labels.start), narrow(found.labels.end)),
            fields: Fields::default(),
            derived: OnceLock::new(),
            bytes,
        }
    }

    /// Whether the stored value, which is without resourceVersion, is this one.
    pub fn is_stored_as(&self, value: &[u8]) -> bool {
        let (before, after) = self.around_version();
        let head = &before[..before.len() - VERSION_KEY.len()];
        // After the digits come the closing quote and, unless it is the only member, a comma.
        let tail = after[1..].strip_prefix(b",").unwrap_or(&after[1..]);
        value.len() == head.len() + tail.len() && value.starts_with(head) && value.ends_with(tail)
    }

    /// The `metadata` object as JSON.
    pub fn metadata(&self) -> Bytes {
        self.bytes
            .slice(self.metadata.0 as usize..self.metadata.1 as usize)
    }

    /// The label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }

    /// Every label.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = &self.bytes[self.labels.0 as usize..self.labels.1 as usize];
        scan::string_members(labels).filter_map(|(key, value)| {
            Some((
                std::str::from_utf8(key).ok()?,
                std::str::from_utf8(value).ok()?,
            ))
        })
    }

    /// The value of the kind's selectable field of that index.
    pub fn field(&self, index: usize) -> &str {
        self.fields.0.split('\0').nth(index).unwrap_or_default()
    }

    /// The bytes before and after the digits of the resourceVersion: with other digits in
    /// between, they are the object at another resourceVersion.
    pub fn around_version(&self) -> (&[u8], &[u8]) {
        let start = self.version_start as usize;
        let digits = decimal_length(self.revision);
        (&self.bytes[..start], &self.bytes[start + digits..])
    }

    /// The same object with another resourceVersion: how a deletion shows it.
    pub fn at_revision(&self, revision: Revision) -> Entry {
        let (before, after) = self.around_version();
        let bytes = [before, revision.to_string().as_bytes(), after].concat();
        let mut entry = Entry::of_bytes(
            self.key.clone(),
            bytes.into(),
            revision,
            self.version_start as usize,
        );
        entry.fields.clone_from(&self.fields);
        entry
    }

    /// The object as its type. Decoded at the first call and kept.
    pub fn object(&self, strategy: &dyn Strategy) -> Result<Arc<dyn Object>, DecodeError> {
        let kept = &self.derived.get_or_init(Box::default).object;
        if let Some(object) = kept.get() {
            return Ok(object.clone());
        }
        let object: Arc<dyn Object> = decode(&self.bytes, strategy)?.into();
        Ok(kept.get_or_init(|| object).clone())
    }

    /// The object as its type, for a caller that changes it.
    pub fn decode(&self, strategy: &dyn Strategy) -> Result<Box<dyn Object>, DecodeError> {
        let kept = self.derived.get().and_then(|derived| derived.object.get());
        match kept {
            Some(object) => Ok(object.clone_object()),
            None => decode(&self.bytes, strategy),
        }
    }

    /// The object in protobuf. Encoded at the first call and kept.
    pub fn protobuf(&self) -> Result<Bytes, ProtobufError> {
        let kept = &self.derived.get_or_init(Box::default).protobuf;
        if let Some(bytes) = kept.get() {
            return Ok(bytes.clone());
        }
        let bytes = Bytes::from(protobuf::from_json(&self.bytes)?);
        Ok(kept.get_or_init(|| bytes).clone())
    }
}

fn decode(json: &[u8], strategy: &dyn Strategy) -> Result<Box<dyn Object>, DecodeError> {
    strategy.decode_stored(json)
}

/// Puts the resourceVersion into a stored value. Also gives where its digits begin.
fn splice(stored: &[u8], revision: Revision) -> Option<(Bytes, usize)> {
    let at = scan::metadata_start(stored)?;
    let version = revision.to_string();
    let mut bytes = Vec::with_capacity(stored.len() + VERSION_KEY.len() + version.len() + 2);
    bytes.extend_from_slice(&stored[..at]);
    bytes.extend_from_slice(VERSION_KEY.as_bytes());
    let version_start = bytes.len();
    bytes.extend_from_slice(version.as_bytes());
    bytes.push(b'"');
    if stored.get(at) != Some(&b'}') {
        bytes.push(b',');
    }
    bytes.extend_from_slice(&stored[at..]);
    // Exact size: `Bytes` then takes the allocation over as it is.
    Some((Bytes::from(bytes.into_boxed_slice()), version_start))
}

fn decimal_length(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Objects are at most a few megabytes.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).expect("an object is smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use coracle_api::kinds;

    use super::*;

    fn entry(value: &'static str, revision: Revision) -> Entry {
        let kind = kinds::find("", "v1", "ConfigMap").unwrap();
        Entry::new(
            &KeyValue {
                key: "/registry/configmaps/default/a".into(),
                value: Bytes::from_static(value.as_bytes()),
                create_revision: 1,
                mod_revision: revision,
            },
            None,
            &*kind.strategy,
        )
        .unwrap()
    }

    #[test]
    fn version_is_spliced_in() {
        let entry = entry(
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"labels":{"a":"b"},"name":"a"}}"#,
            120,
        );
        assert_eq!(
            entry.bytes,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"120","labels":{"a":"b"},"name":"a"}}"#
        );
        assert_eq!(
            entry.metadata(),
            r#"{"resourceVersion":"120","labels":{"a":"b"},"name":"a"}"#
        );
        assert_eq!(entry.label("a"), Some("b"));
        assert_eq!(entry.label("b"), None);
        let (before, after) = entry.around_version();
        assert!(before.ends_with(br#""resourceVersion":""#));
        assert!(after.starts_with(br#"","labels""#));
        let value =
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"labels":{"a":"b"},"name":"a"}}"#;
        assert!(entry.is_stored_as(value));
        assert!(!entry.is_stored_as(&value[1..]));
        assert_eq!(entry.at_revision(7).around_version(), (before, after));
    }
}
