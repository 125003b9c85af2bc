//! The items of a list and the entries of an object, as serde asks for them: unknown and repeated
//! keys are reported, and fields that upstream always encodes are added.

use std::{borrow::Cow, collections::HashSet};

use serde::de::IntoDeserializer as _;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, value::CowStrDeserializer};

use super::{
    Context,
    node::Node,
    path::Path,
    typed::{Failure, Known, Typed, always_there},
};

/// The items of a list.
pub(super) struct Elements<'p, 'de> {
    pub values: std::vec::IntoIter<Node<'de>>,
    pub index: usize,
    pub path: &'p Path<'p>,
    pub context: &'p Context,
    pub known: Known,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        let Some(node) = self.values.next() else {
            return Ok(None);
        };
        let path = Path::Index {
            parent: self.path,
            index: self.index,
        };
        self.index += 1;
        let value = Typed {
            node,
            path: &path,
            context: self.context,
            known: self.known,
        };
        seed.deserialize(value).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len())
    }
}

/// The keys that an object was found to have so far.
enum Duplicates<'de> {
    Few(Vec<Cow<'de, str>>),
    Many(HashSet<Cow<'de, str>>),
}

impl<'de> Duplicates<'de> {
    fn has(&self, key: &str) -> bool {
        match self {
            Duplicates::Few(keys) => keys.iter().any(|known| known == key),
            Duplicates::Many(keys) => keys.contains(key),
        }
    }

    fn new(keys: usize) -> Self {
        if keys <= 16 {
            Duplicates::Few(Vec::with_capacity(keys))
        } else {
            Duplicates::Many(HashSet::with_capacity(keys))
        }
    }

    /// Whether the key is there already.
    fn note(&mut self, key: Cow<'de, str>) -> bool {
        match self {
            Duplicates::Few(keys) => {
                let again = keys.contains(&key);
                if !again {
                    keys.push(key);
                }
                again
            }
            Duplicates::Many(keys) => !keys.insert(key),
        }
    }
}

/// The entries of an object.
pub(super) struct Entries<'p, 'de> {
    entries: std::vec::IntoIter<(Cow<'de, str>, Node<'de>)>,
    duplicates: Duplicates<'de>,
    value: Option<(Cow<'de, str>, Node<'de>)>,
    /// The type that it is; empty for a map.
    of: &'static str,
    path: &'p Path<'p>,
    context: &'p Context,
    known: Known,
    /// What is added behind the entries, once that is known.
    missing: Option<std::vec::IntoIter<(Cow<'de, str>, Node<'de>)>>,
}

impl<'p, 'de> Entries<'p, 'de> {
    pub fn new(
        entries: Vec<(Cow<'de, str>, Node<'de>)>,
        of: &'static str,
        path: &'p Path<'p>,
        context: &'p Context,
        known: Known,
    ) -> Self {
        Entries {
            duplicates: Duplicates::new(entries.len()),
            entries: entries.into_iter(),
            value: None,
            of,
            path,
            context,
            known,
            missing: None,
        }
    }

    fn is_struct(&self) -> bool {
        !self.of.is_empty()
    }
}

impl<'de> Entries<'_, 'de> {
    /// The next entry that was written.
    fn next_written(&mut self) -> Option<(Cow<'de, str>, Node<'de>)> {
        let (key, node) = self.entries.next()?;
        if self.is_implied_type(&key, &node) {
            return self.next_written();
        }
        // Of an unknown field only that is told, and once.
        let is_known = !self.is_struct() || self.knows(&key);
        if self.duplicates.note(key.clone()) && is_known {
            let path = Path::Field {
                parent: self.path,
                name: &key,
                of: self.of,
                known: self.known.of,
            };
            self.context
                .report(|| format!("duplicate field {:?}", path.to_string()));
        }
        Some((key, node))
    }

    /// Whether it is a version or kind that does not count: an empty one, and whatever the claims
    /// of a StatefulSet say that they are.
    fn is_implied_type(&self, key: &str, node: &Node<'_>) -> bool {
        let is_empty = match node {
            Node::Null => true,
            Node::String(text) => text.is_empty(),
            _ => false,
        };
        matches!(key, "apiVersion" | "kind")
            && match self.path {
                Path::Root => is_empty,
                _ => self.of == "PersistentVolumeClaim" && matches!(node, Node::String(_)),
            }
    }

    fn knows(&self, key: &str) -> bool {
        let is_type = matches!(key, "apiVersion" | "kind") && matches!(self.path, Path::Root);
        is_type || self.known.of.is_none_or(|of| of.field(key).is_some())
    }

    /// The next field that was not written and that upstream encodes all the same.
    fn next_missing(&mut self) -> Option<(Cow<'de, str>, Node<'de>)> {
        let of = self.known.of.filter(|_| self.is_struct())?;
        let duplicates = &self.duplicates;
        let missing = self.missing.get_or_insert_with(|| {
            let mut missing = Vec::new();
            of.for_each_field(&mut |field| {
                if let Some(node) = always_there(field).filter(|_| !duplicates.has(field.name)) {
                    missing.push((Cow::Borrowed(field.name), node));
                }
            });
            missing.into_iter()
        });
        missing.next()
    }
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Failure> {
        let next = self.next_written().or_else(|| self.next_missing());
        let Some((key, node)) = next else {
            return Ok(None);
        };
        let name: CowStrDeserializer<'de, Failure> = key.clone().into_deserializer();
        self.value = Some((key, node));
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        let (key, node) = self
            .value
            .take()
            .ok_or_else(|| Failure::Other("a value was read before its key".to_owned()))?;
        let path = Path::Field {
            parent: self.path,
            name: &key,
            of: self.of,
            known: self.known.of,
        };
        let known = if self.is_struct() {
            self.known.field(&key)
        } else {
            self.known.item()
        };
        let stands_for_null = known.field.filter(|_| matches!(node, Node::Null));
        let node = stands_for_null.and_then(always_there).unwrap_or(node);
        seed.deserialize(Typed {
            node,
            path: &path,
            context: self.context,
            known,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}
