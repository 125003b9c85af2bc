//! The table of served resources: by URL, and their caches by key.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;
use coracle_api::{
    Kind, Object,
    kinds::{Conversion, Storage},
};

use super::ROOT;
use crate::{
    cache::{Cache, Entry},
    error::ApiError,
};

/// A served resource.
pub struct Resource {
    /// As clients see it.
    pub kind: Arc<Kind>,
    /// As it is stored: mostly the same.
    pub stored: Arc<Kind>,
    /// `None`: nothing of it is stored.
    pub cache: Option<Arc<Cache>>,
    /// Between `kind` and `stored`, when they differ.
    pub conversion: Option<&'static dyn Conversion>,
}

impl Resource {
    /// The object as it is stored.
    pub fn to_stored(&self, served: Box<dyn Object>) -> Box<dyn Object> {
        match self.conversion {
            Some(conversion) => conversion.to_stored(&*served),
            None => served,
        }
    }

    /// The object as clients see it, as JSON: mostly the very bytes of the entry.
    pub fn json(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        if self.conversion.is_none() {
            return Ok(entry.json());
        }
        let mut json = Vec::with_capacity(entry.stored().len() + 64);
        self.decode(entry)?.write_json(&mut json);
        Ok(json.into())
    }

    /// The object as clients see it, for a caller that may change it.
    pub fn decode(&self, entry: &Entry) -> Result<Box<dyn Object>, ApiError> {
        let stored = entry
            .decode(&*self.stored.strategy)
            .map_err(|error| ApiError::internal(format!("{}: {error}", entry.key())))?;
        Ok(self.to_served(stored))
    }

    /// The object as clients see it.
    pub fn to_served(&self, stored: Box<dyn Object>) -> Box<dyn Object> {
        match self.conversion {
            Some(conversion) => conversion.to_served(&*stored),
            None => stored,
        }
    }
}

type Resources = HashMap<String, Arc<Resource>>;

/// Every served resource.
#[derive(Clone, Default)]
pub struct Table {
    /// In the order in which they were added.
    kinds: Vec<Arc<Kind>>,
    /// By group and version.
    resources: HashMap<String, HashMap<String, Resources>>,
    /// By the prefix of their keys.
    caches: BTreeMap<String, Arc<Cache>>,
}

impl Table {
    pub fn new(kinds: &[Arc<Kind>]) -> Self {
        Table::default().with(kinds).0
    }

    /// The kinds served, in the order in which they were added.
    pub fn kinds(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Resource>> {
        self.resources.get(group)?.get(version)?.get(resource)
    }

    /// Whether anything is served under this group and version.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.resources
            .get(group)
            .is_some_and(|versions| versions.contains_key(version))
    }

    pub fn caches(&self) -> impl Iterator<Item = &Arc<Cache>> {
        self.caches.values()
    }

    /// The cache that holds a key.
    pub fn cache_of(&self, key: &str) -> Option<&Arc<Cache>> {
        let (prefix, cache) = self
            .caches
            .range::<str, _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()?;
        key.starts_with(prefix.as_str()).then_some(cache)
    }

    /// This table and `kinds`, and the caches that are new.
    pub(super) fn with(&self, kinds: &[Arc<Kind>]) -> (Self, Vec<Arc<Cache>>) {
        let mut table = self.clone();
        let mut added = Vec::new();
        table
            .kinds
            .retain(|old| !kinds.iter().any(|new| same_place(old, new)));
        table.kinds.extend(kinds.iter().cloned());
        for kind in kinds {
            if let Storage::Own { prefix } = &kind.storage {
                let prefix = format!("{ROOT}{prefix}/");
                table.caches.entry(prefix).or_insert_with_key(|prefix| {
                    let cache = Arc::new(Cache::new(prefix, kind));
                    added.push(cache.clone());
                    cache
                });
            }
        }
        for kind in kinds {
            let resource = table.resource(kind);
            table
                .resources
                .entry(kind.group.clone())
                .or_default()
                .entry(kind.version.clone())
                .or_default()
                .insert(kind.resource.clone(), Arc::new(resource));
        }
        (table, added)
    }

    /// This table without the resources of which `keep` is false.
    pub(super) fn without(&self, keep: &impl Fn(&Kind) -> bool) -> Self {
        let mut table = self.clone();
        table.kinds.retain(|kind| keep(kind));
        for versions in table.resources.values_mut() {
            for resources in versions.values_mut() {
                resources.retain(|_, resource| keep(&resource.kind));
            }
            versions.retain(|_, resources| !resources.is_empty());
        }
        table.resources.retain(|_, versions| !versions.is_empty());
        let used: Vec<&str> = table
            .resources
            .values()
            .flat_map(HashMap::values)
            .flat_map(HashMap::values)
            .filter_map(|resource| Some(resource.cache.as_ref()?.prefix()))
            .collect();
        table
            .caches
            .retain(|prefix, _| used.contains(&prefix.as_str()));
        table
    }

    fn resource(&self, kind: &Arc<Kind>) -> Resource {
        let (stored, conversion) = match &kind.storage {
            Storage::Converted { conversion, .. } => {
                let (group, version, name) = kind.stored_as();
                let stored = self
                    .kinds
                    .iter()
                    .find(|k| k.group == group && k.version == version && k.kind == name);
                (stored.unwrap_or(kind), Some(*conversion))
            }
            Storage::Own { .. } | Storage::Virtual => (kind, None),
        };
        let cache = match &stored.storage {
            Storage::Own { prefix } => self.caches.get(&format!("{ROOT}{prefix}/")).cloned(),
            Storage::Converted { .. } | Storage::Virtual => None,
        };
        Resource {
            kind: kind.clone(),
            stored: stored.clone(),
            cache,
            conversion,
        }
    }
}

fn same_place(a: &Kind, b: &Kind) -> bool {
    a.group == b.group && a.version == b.version && a.resource == b.resource
}
