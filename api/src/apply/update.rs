//! Who owns what after a write that is no apply: whoever changed a field owns it, and nobody
//! else does any more.
//!
//! Enter at [`Writer::update`]. It runs with every write, so it reads no more of the managed
//! fields than the change touches.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::Value;

use super::{
    element::PathElement,
    fields::{Comparison, compare},
    filter::{Filter, strip_meta},
    model::{ItemError, Model},
    owners::{self, Manager, Operation, Owned},
    reconcile::reconcile,
    set::{Set, SetError, mentions},
};

/// The versions that an object has.
pub trait Versions {
    /// The object, which is of version `from`, as version `to` has it. `None` when there is no
    /// such version.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
    /// What the schema says of the object in a version.
    fn model(&self, version: &str) -> Option<Model>;
}

/// Who writes, and in which form.
pub struct Writer<'w> {
    /// The `apiVersion` of the request.
    pub version: &'w str,
    pub model: Model,
    pub subresource: &'w str,
    /// The name of the manager.
    pub manager: &'w str,
    /// The fields that the write can change.
    pub filter: &'w Filter,
    pub versions: &'w dyn Versions,
    pub now: Time,
}

/// Why it cannot be said who owns what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    #[error(transparent)]
    Item(#[from] ItemError),
    #[error(transparent)]
    Fields(#[from] SetError),
    #[error(transparent)]
    Owners(#[from] owners::OwnersError),
}

impl Writer<'_> {
    /// The managed fields of `new`, which was made from `old`, of which `entries` are the
    /// managed fields. They must be understood; see [`owners::decode`].
    ///
    /// # Errors
    /// An item of a list cannot be told from the others.
    pub fn update(
        &self,
        old: &Value,
        new: &Value,
        mut entries: Vec<ManagedFieldsEntry>,
    ) -> Result<Vec<ManagedFieldsEntry>, UpdateError> {
        let compared = compare(self.model, old, new)?;
        if compared.is_same() {
            return Ok(entries);
        }
        let compared = compared.filter(|set| self.filter.apply(set));
        let mut others: Vec<(String, Option<Comparison>)> = Vec::new();
        let mut kept = Vec::with_capacity(entries.len() + 1);
        for entry in entries.drain(..) {
            let version = entry.api_version.as_deref().unwrap_or_default();
            let compared = if version == self.version {
                Some(&compared)
            } else {
                self.compared_in(version, old, new, &mut others)?
            };
            let Some(compared) = compared else {
                continue;
            };
            kept.extend(self.without_changed(entry, compared)?);
        }
        let changed = compared.modified.union(&compared.added);
        let changed = self.filter.apply(&changed).difference(strip_meta());
        if !changed.is_empty() {
            self.own(&mut kept, changed)?;
        }
        self.cap(kept)
    }

    /// What differs in another version.
    fn compared_in<'o>(
        &self,
        version: &str,
        old: &Value,
        new: &Value,
        others: &'o mut Vec<(String, Option<Comparison>)>,
    ) -> Result<Option<&'o Comparison>, UpdateError> {
        let at = match others.iter().position(|(known, _)| known == version) {
            Some(at) => at,
            None => {
                let convert = |object| self.versions.convert(object, self.version, version);
                let compared = match (self.versions.model(version), convert(old), convert(new)) {
                    (Some(model), Some(old), Some(new)) => {
                        let compared = compare(model, &old, &new)?;
                        Some(compared.filter(|set| self.filter.apply(set)))
                    }
                    // Whoever owned fields of a version that is gone owns nothing.
                    _ => None,
                };
                others.push((version.to_owned(), compared));
                others.len() - 1
            }
        };
        Ok(others[at].1.as_ref())
    }

    /// The entry without the fields that changed; `None` when nothing is left.
    fn without_changed(
        &self,
        mut entry: ManagedFieldsEntry,
        compared: &Comparison,
    ) -> Result<Option<ManagedFieldsEntry>, UpdateError> {
        let Some(FieldsV1(fields)) = &entry.fields_v1 else {
            return Ok(None);
        };
        let sets = [&compared.added, &compared.modified, &compared.removed];
        let touches = |set: &Set| {
            let mut elements = set.nodes().iter().map(|(element, _)| element);
            elements.any(|element: &PathElement| mentions(fields, element))
        };
        if !sets.into_iter().any(touches) {
            let is_empty = fields.as_object().is_some_and(serde_json::Map::is_empty);
            return Ok((!is_empty).then_some(entry));
        }
        let version = entry.api_version.as_deref().unwrap_or_default();
        let read = Set::from_fields(fields)?;
        let model = if version == self.version {
            Some(self.model)
        } else {
            self.versions.model(version)
        };
        let before = model
            .and_then(|model| reconcile(model, &read))
            .unwrap_or(read);
        let left = sets
            .into_iter()
            .fold(before, |left, changed| left.difference(changed));
        if left.is_empty() {
            return Ok(None);
        }
        entry.fields_v1 = Some(FieldsV1(left.to_fields()));
        Ok(Some(entry))
    }

    /// Gives the fields to who writes.
    fn own(&self, entries: &mut Vec<ManagedFieldsEntry>, changed: Set) -> Result<(), SetError> {
        let manager = Manager::updating(self.manager, self.version, self.subresource);
        let at = entries
            .iter()
            .position(|entry| Manager::of_entry(entry).as_ref() == Ok(&manager));
        let fields = match at.map(|at| entries.remove(at).fields_v1) {
            Some(Some(FieldsV1(fields))) => changed.union(&Set::from_fields(&fields)?),
            _ => changed,
        };
        let owned = Owned {
            api_version: self.version.to_owned(),
            fields,
            time: Some(self.now.clone()),
        };
        entries.push(owners::entry(manager, owned));
        Ok(())
    }

    fn cap(
        &self,
        mut entries: Vec<ManagedFieldsEntry>,
    ) -> Result<Vec<ManagedFieldsEntry>, UpdateError> {
        let updaters = entries.iter().map(Manager::of_entry).filter(
            |manager| matches!(manager, Ok(manager) if manager.operation == Operation::Update),
        );
        if updaters.count() > owners::MAX_UPDATE_MANAGERS {
            let mut all = owners::decode(&entries)?;
            owners::cap(&mut all);
            return Ok(owners::encode(all));
        }
        owners::sort(&mut entries);
        Ok(entries)
    }
}
