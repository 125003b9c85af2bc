//! Server-side apply: a configuration is put into an object, fields that its manager gave up go,
//! and fields of other managers are not changed unless it is forced.
//!
//! Enter at [`Writer::apply`].

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    element::PathElement,
    fields::{Comparison, compare, fields_of, same},
    filter::strip_meta,
    merge::merge,
    model::{ItemError, Model},
    owners::{Manager, Owned, Owners},
    reconcile::{reconcile, with_named_fields},
    remove::remove_items,
    set::Set,
    update::{UpdateError, Writer},
};

/// The manager that owns what an object had before anybody was known to own anything.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// A field that an apply would change and that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: Manager,
    pub path: Vec<PathElement>,
}

/// Why a configuration was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// By manager.
    #[error("{} fields belong to others", .0.len())]
    Conflicts(Vec<Conflict>),
    #[error(transparent)]
    Update(#[from] UpdateError),
}

impl From<ItemError> for ApplyError {
    fn from(error: ItemError) -> Self {
        ApplyError::Update(error.into())
    }
}

/// What an apply makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// `None`: the object stays as it is.
    pub object: Option<Value>,
    pub owners: Owners,
}

/// The versions of an object that were asked for.
type Compared = BTreeMap<String, Option<Comparison>>;

impl Writer<'_> {
    /// Applies `config` to `live`. `exists`: it is stored already.
    ///
    /// # Errors
    /// Conflicts, unless `force`.
    pub fn apply(
        &self,
        live: &Value,
        config: &Value,
        mut owners: Owners,
        exists: bool,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        if owners.is_empty() && exists {
            owners = self.before_first_apply(live)?;
        }
        self.reconcile_all(live, &mut owners);
        let manager = Manager::applying(self.manager, self.subresource);
        let merged = merge(self.model, live, config)?;
        let fields = self.filter.apply(&fields_of(self.model, config)?);
        let applied = Owned {
            api_version: self.version.to_owned(),
            fields,
            time: owners.get(&manager).and_then(|owned| owned.time.clone()),
        };
        let last = owners.insert(manager.clone(), applied);
        let new = match &last {
            Some(last) if !last.fields.is_empty() => self.prune(&merged, &owners, last)?,
            _ => merged,
        };
        self.take_over(live, &new, &mut owners, &manager, force)?;
        let object = (!same(live, &new)).then_some(new);
        self.strip_and_stamp(&mut owners, &manager, object.is_some());
        Ok(Applied { object, owners })
    }

    /// The owners of an object of which none is known.
    fn before_first_apply(&self, live: &Value) -> Result<Owners, ApplyError> {
        let fields = match self.model.empty() {
            Some(empty) => {
                let compared = compare(self.model, &empty, live)?;
                compared.modified.union(&compared.added)
            }
            None => fields_of(self.model, live)?,
        };
        let fields = self.filter.apply(&fields).difference(strip_meta());
        let mut owners = Owners::new();
        if !fields.is_empty() {
            let manager = Manager::updating(BEFORE_FIRST_APPLY, self.version, self.subresource);
            let owned = Owned {
                api_version: self.version.to_owned(),
                fields,
                time: Some(self.now.clone()),
            };
            owners.insert(manager, owned);
        }
        Ok(owners)
    }

    /// Drops owners of versions that are gone, and fits the others to the schema as it is now.
    fn reconcile_all(&self, live: &Value, owners: &mut Owners) {
        owners.retain(|_, owned| {
            let version = &owned.api_version;
            if self.converted(live, version).is_none() {
                return false;
            }
            let model = self.model_of(version);
            if let Some(set) = model.and_then(|model| reconcile(model, &owned.fields)) {
                owned.fields = set;
            }
            true
        });
    }

    fn model_of(&self, version: &str) -> Option<Model> {
        if version == self.version {
            Some(self.model)
        } else {
            self.versions.model(version)
        }
    }

    /// An object of the request's version in another.
    fn converted(&self, object: &Value, version: &str) -> Option<Value> {
        self.convert(object, self.version, version)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        if from == to {
            Some(object.clone())
        } else {
            self.versions.convert(object, from, to)
        }
    }

    /// Takes out what the manager applied before and does not any more, unless someone else
    /// owns it too.
    fn prune(&self, merged: &Value, owners: &Owners, last: &Owned) -> Result<Value, ApplyError> {
        let version = last.api_version.as_str();
        let (Some(converted), Some(model)) =
            (self.converted(merged, version), self.model_of(version))
        else {
            return Ok(merged.clone());
        };
        let gone = with_named_fields(model, &last.fields);
        let pruned = remove_items(model, &converted, &gone);
        let pruned = self.add_back_owned(&converted, pruned, version, owners)?;
        let pruned = add_back_dangling(model, &converted, &pruned, &gone)?;
        // A version from which there is no way back would not have been converted to.
        Ok(self
            .convert(&pruned, version, self.version)
            .unwrap_or_else(|| merged.clone()))
    }

    /// Puts back what someone owns, in each version that has owners; the result is of
    /// `version`.
    fn add_back_owned(
        &self,
        merged: &Value,
        mut pruned: Value,
        version: &str,
        owners: &Owners,
    ) -> Result<Value, ApplyError> {
        let mut owned_in: BTreeMap<&str, Set> = BTreeMap::new();
        for owned in owners.values() {
            let all = owned_in.entry(&owned.api_version).or_default();
            *all = all.union(&owned.fields);
        }
        // First in the version at hand, so that what a conversion needs is there again.
        let first = owned_in.remove_entry(version);
        for (other, owned) in first.into_iter().chain(owned_in) {
            let (Some(model), Some(all), Some(some)) = (
                self.model_of(other),
                self.convert(merged, version, other),
                self.convert(&pruned, version, other),
            ) else {
                continue;
            };
            let named = |object: &Value| -> Result<Set, ItemError> {
                Ok(with_named_fields(model, &fields_of(model, object)?))
            };
            let kept = named(&some)?.union(&with_named_fields(model, &owned));
            let put_back = remove_items(model, &all, &named(&all)?.difference(&kept));
            if let Some(put_back) = self.convert(&put_back, other, version) {
                pruned = put_back;
            }
        }
        Ok(pruned)
    }

    /// Takes from the other managers what changed.
    fn take_over(
        &self,
        live: &Value,
        new: &Value,
        owners: &mut Owners,
        manager: &Manager,
        force: bool,
    ) -> Result<(), ApplyError> {
        let mut compared = Compared::new();
        let mut conflicts = Vec::new();
        let mut gone = Vec::new();
        for (other, owned) in owners.iter_mut().filter(|(other, _)| *other != manager) {
            let version = owned.api_version.as_str();
            if !compared.contains_key(version) {
                let compared_in = self.compared_for_apply(live, new, version)?;
                compared.insert(version.to_owned(), compared_in);
            }
            let Some(Some(compared)) = compared.get(version) else {
                gone.push(other.clone());
                continue;
            };
            let changed = compared.modified.union(&compared.added);
            let conflicting = owned.fields.intersection(&changed);
            conflicts.extend(conflicting.paths().into_iter().map(|path| Conflict {
                manager: other.clone(),
                path,
            }));
            let left = owned.fields.difference(&conflicting);
            owned.fields = left.difference(&compared.removed);
        }
        if !conflicts.is_empty() && !force {
            return Err(ApplyError::Conflicts(conflicts));
        }
        owners.retain(|other, owned| !gone.contains(other) && !owned.fields.is_empty());
        Ok(())
    }

    fn compared_for_apply(
        &self,
        live: &Value,
        new: &Value,
        version: &str,
    ) -> Result<Option<Comparison>, ApplyError> {
        let in_version = |object| self.converted(object, version);
        let (Some(model), Some(live), Some(new)) =
            (self.model_of(version), in_version(live), in_version(new))
        else {
            return Ok(None);
        };
        let compared = compare(model, &live, &new)?;
        Ok(Some(compared.filter(|set| self.filter.apply(set))))
    }

    fn strip_and_stamp(&self, owners: &mut Owners, manager: &Manager, changed: bool) {
        if let Some(owned) = owners.get_mut(manager) {
            owned.fields = owned.fields.difference(strip_meta());
            if changed {
                owned.time = Some(self.now.clone());
            }
            if owned.fields.is_empty() {
                owners.remove(manager);
            }
        }
    }
}

/// Puts back what was not in the last configuration but held something of it.
fn add_back_dangling(
    model: Model,
    merged: &Value,
    pruned: &Value,
    last: &Set,
) -> Result<Value, ItemError> {
    let named = |object: &Value| -> Result<Set, ItemError> {
        Ok(with_named_fields(model, &fields_of(model, object)?))
    };
    let gone = named(merged)?.difference(&named(pruned)?);
    Ok(remove_items(model, merged, &gone.intersection(last)))
}

/// What a client-side apply recorded that still stands in the object: the manager may take
/// these fields over without a conflict.
///
/// # Errors
/// An item of a list cannot be told from the others.
pub fn still_as_applied(model: Model, recorded: &Value, live: &Value) -> Result<Set, ItemError> {
    let compared = compare(model, recorded, live)?;
    Ok(fields_of(model, recorded)?
        .difference(&compared.modified)
        .difference(&compared.added)
        .difference(&compared.removed))
}

/// The conflicts but those about these fields.
pub fn conflicts_without(conflicts: Vec<Conflict>, allowed: &Set) -> Vec<Conflict> {
    conflicts
        .into_iter()
        .filter(|conflict| !allowed.has(&conflict.path))
        .collect()
}
