//! One object in a watch cache: its final bytes and the little that read paths ask about it.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::{BufMut, Bytes};
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
    /// As the store has it: the very bytes, which are without resourceVersion.
    stored: Arc<KeyValue>,
    /// That of the latest write, or of the deletion that shows this.
    pub revision: Revision,
    /// Where the members of `metadata` begin: there clients see the resourceVersion.
    members: u32,
    metadata_end: u32,
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
        stored: &Arc<KeyValue>,
        fields: Option<Fields>,
        strategy: &dyn Strategy,
    ) -> Result<Self, EntryError> {
        let mut entry = Entry::unindexed(stored.clone())?;
        entry.fields = match fields {
            Some(fields) => fields,
            None => {
                let object = entry.decode(strategy);
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

    /// An entry for a value that need not be stored, without the values of selectable fields: for
    /// answers.
    pub fn unindexed_at(
        key: Arc<str>,
        value: Bytes,
        revision: Revision,
    ) -> Result<Self, EntryError> {
        Entry::unindexed(Arc::new(KeyValue {
            key,
            value,
            create_revision: revision,
            mod_revision: revision,
        }))
    }

    fn unindexed(stored: Arc<KeyValue>) -> Result<Self, EntryError> {
        let Some(members) = scan::metadata_start(&stored.value) else {
            return Err(EntryError::NoMetadata(stored.key.clone()));
        };
        let found = scan::metadata(&stored.value, members);
        Ok(Entry {
            revision: stored.mod_revision,
            stored,
            members: narrow(members),
            metadata_end: narrow(found.whole.end),
            labels: (narrow(found.labels.start), narrow(found.labels.end)),
            fields: Fields::default(),
            derived: OnceLock::new(),
        })
    }

    pub fn key(&self) -> &Arc<str> {
        &self.stored.key
    }

    /// The object as the store has it, which is without resourceVersion.
    pub fn stored(&self) -> &[u8] {
        &self.stored.value
    }

    /// Whether that is the stored value.
    pub fn is_stored_as(&self, value: &[u8]) -> bool {
        self.stored() == value
    }

    /// The object as clients get it.
    pub fn json(&self) -> Bytes {
        self.assembled(0..self.stored().len())
    }

    /// Bytes of [`Entry::json`].
    pub fn json_length(&self) -> usize {
        self.version().length() + self.stored().len()
    }

    /// Appends the object as clients get it at a revision: a deletion shows it at its own.
    pub fn write_json(&self, revision: Revision, out: &mut impl BufMut) {
        let members = self.members as usize;
        out.put_slice(&self.stored()[..members]);
        self.version_at(revision).write(out);
        out.put_slice(&self.stored()[members..]);
    }

    /// Appends the object as clients get it, without so many bytes after its opening brace; they
    /// must be whole members before `metadata`.
    pub fn write_item(&self, skipped: usize, out: &mut impl BufMut) {
        let members = self.members as usize;
        out.put_u8(b'{');
        out.put_slice(&self.stored()[skipped + 1..members]);
        self.version().write(out);
        out.put_slice(&self.stored()[members..]);
    }

    /// The `metadata` object as JSON, as clients get it.
    pub fn metadata(&self) -> Bytes {
        self.assembled(self.members as usize - 1..self.metadata_end as usize)
    }

    /// A part of the stored value around the place of the resourceVersion, with it.
    fn assembled(&self, part: Range<usize>) -> Bytes {
        let (members, version) = (self.members as usize, self.version());
        // Exact size: `Bytes` then takes the allocation over as it is.
        let mut bytes = Vec::with_capacity(part.len() + version.length());
        bytes.extend_from_slice(&self.stored()[part.start..members]);
        version.write(&mut bytes);
        bytes.extend_from_slice(&self.stored()[members..part.end]);
        bytes.into()
    }

    fn version(&self) -> Version {
        self.version_at(self.revision)
    }

    fn version_at(&self, revision: Revision) -> Version {
        Version {
            revision,
            alone: self.stored()[self.members as usize] == b'}',
        }
    }

    /// The label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }

    /// Every label.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = &self.stored()[self.labels.0 as usize..self.labels.1 as usize];
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

    /// The same object with another resourceVersion: how a deletion shows it.
    pub fn at_revision(&self, revision: Revision) -> Entry {
        Entry {
            stored: self.stored.clone(),
            revision,
            fields: self.fields.clone(),
            derived: OnceLock::new(),
            ..*self
        }
    }

    /// The object as its type. Decoded at the first call and kept.
    pub fn object(&self, strategy: &dyn Strategy) -> Result<Arc<dyn Object>, DecodeError> {
        let kept = &self.derived.get_or_init(Box::default).object;
        if let Some(object) = kept.get() {
            return Ok(object.clone());
        }
        let object: Arc<dyn Object> = self.decode_stored(strategy)?.into();
        Ok(kept.get_or_init(|| object).clone())
    }

    /// The object as its type, for a caller that changes it.
    pub fn decode(&self, strategy: &dyn Strategy) -> Result<Box<dyn Object>, DecodeError> {
        let kept = self.derived.get().and_then(|derived| derived.object.get());
        match kept {
            Some(object) => Ok(object.clone_object()),
            None => self.decode_stored(strategy),
        }
    }

    fn decode_stored(&self, strategy: &dyn Strategy) -> Result<Box<dyn Object>, DecodeError> {
        #[cfg(test)]
        parsed::count();
        let mut object = strategy.decode_stored(self.stored())?;
        object.meta_mut().resource_version = Some(self.revision.to_string());
        Ok(object)
    }

    /// The object in protobuf. Encoded at the first call and kept.
    pub fn protobuf(&self) -> Result<Bytes, ProtobufError> {
        let bytes = self.protobuf_once()?;
        let kept = &self.derived.get_or_init(Box::default).protobuf;
        Ok(kept.get_or_init(|| bytes).clone())
    }

    /// The same, not kept when it was not kept before: for lists, or there would soon be one
    /// beside every object.
    pub fn protobuf_once(&self) -> Result<Bytes, ProtobufError> {
        let kept = self
            .derived
            .get()
            .and_then(|derived| derived.protobuf.get());
        if let Some(bytes) = kept {
            return Ok(bytes.clone());
        }
        #[cfg(test)]
        parsed::count();
        Ok(protobuf::from_json(&self.json())?.into())
    }
}

/// The resourceVersion as a member of `metadata`.
#[derive(Clone, Copy)]
struct Version {
    revision: Revision,
    /// No other member follows.
    alone: bool,
}

impl Version {
    fn length(self) -> usize {
        let digits = self
            .revision
            .checked_ilog10()
            .map_or(1, |log| log as usize + 1);
        VERSION_KEY.len() + digits + 1 + usize::from(!self.alone)
    }

    fn write(self, out: &mut impl BufMut) {
        out.put_slice(VERSION_KEY.as_bytes());
        out.put_slice(itoa::Buffer::new().format(self.revision).as_bytes());
        out.put_slice(if self.alone { b"\"" } else { b"\"," });
    }
}

/// How often this thread has parsed a stored object: what reads must not do.
#[cfg(test)]
pub mod parsed {
    use std::cell::Cell;

    thread_local!(static COUNT: Cell<usize> = const { Cell::new(0) });

    pub fn count() {
        COUNT.set(COUNT.get() + 1);
    }

    pub fn so_far() -> usize {
        COUNT.get()
    }
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
            &Arc::new(KeyValue {
                key: "/registry/configmaps/default/a".into(),
                value: Bytes::from_static(value.as_bytes()),
                create_revision: 1,
                mod_revision: revision,
            }),
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
            entry.json(),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"120","labels":{"a":"b"},"name":"a"}}"#
        );
        assert_eq!(
            entry.metadata(),
            r#"{"resourceVersion":"120","labels":{"a":"b"},"name":"a"}"#
        );
        assert_eq!(entry.label("a"), Some("b"));
        assert_eq!(entry.label("b"), None);
        let value =
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"labels":{"a":"b"},"name":"a"}}"#;
        assert!(entry.is_stored_as(value));
        assert!(!entry.is_stored_as(&value[1..]));
        assert_eq!(entry.json().len(), entry.json_length());
        let deleted = entry.at_revision(7);
        assert_eq!(
            deleted.json(),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"7","labels":{"a":"b"},"name":"a"}}"#
        );
        let mut written = Vec::new();
        entry.write_json(7, &mut written);
        assert_eq!(written, deleted.json());
        let mut item = Vec::new();
        entry.write_item(r#""apiVersion":"v1","kind":"ConfigMap","#.len(), &mut item);
        let expected = r#"{"metadata":{"resourceVersion":"120","labels":{"a":"b"},"name":"a"}}"#;
        assert_eq!(item, expected.as_bytes());
    }
}
