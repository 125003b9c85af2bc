//! Who owns the replicas of a workload, as the owners of its scale see it.
//!
//! Upstream: `managedfields.ScaleHandler`.

use coracle_api::{
    apply::{self, Manager, Model, Operation, Owned, Owners, PathElement, Set, Writer},
    schema,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Value, json};

use super::{ApplyRequest, Entries, Ownership, non_empty, versions};
use crate::{error::ApiError, strategy};

const SCALE_VERSION: &str = "autoscaling/v1";

/// In a scale, and in every built-in workload.
fn replicas() -> [PathElement; 2] {
    [PathElement::field("spec"), PathElement::field("replicas")]
}

fn only_replicas() -> Set {
    let mut set = Set::new();
    set.insert(replicas());
    set
}

/// What an apply makes of a scale: its replicas, and the owners of the workload.
pub struct AppliedScale {
    pub scale: Value,
    pub entries: Entries,
}

impl Ownership<'_> {
    /// The owners of a workload of which the scale was changed otherwise than by an apply.
    pub fn of_scaled(&self, live: Entries, old: Option<i32>, new: Option<i32>) -> Entries {
        let parents = owners_of(live.as_deref())?;
        let scales = Self::to_scale(&parents);
        if scales.is_empty() {
            return live;
        }
        // No replicas are not said, and so owned by nobody.
        let scale = |replicas: Option<i32>| match replicas.unwrap_or(0) {
            0 => json!({"spec": {}}),
            replicas => json!({"spec": {"replicas": replicas}}),
        };
        let served = self.served();
        let writer = self.scale_writer(&served);
        let entries = apply::encode(scales);
        let entries = writer.update(&scale(old), &scale(new), entries).ok()?;
        let scales = apply::decode(&entries).ok()?;
        non_empty(Some(apply::encode(self.to_parent(parents, scales))))
    }

    /// Applies a configuration of the scale.
    ///
    /// # Errors
    /// 409 when others own the replicas, unless it is forced.
    pub fn apply_scale(
        &self,
        live: Option<&[ManagedFieldsEntry]>,
        scale: &Value,
        request: &ApplyRequest<'_>,
    ) -> Result<AppliedScale, ApiError> {
        let model = scale_model();
        super::configuration::check_config(model, SCALE_VERSION, "Scale", request.config)?;
        let parents = owners_of(live).unwrap_or_default();
        let served = self.served();
        let writer = self.scale_writer(&served);
        let owners = Self::to_scale(&parents);
        let applied = writer
            .apply(scale, request.config, owners, true, request.force)
            .map_err(super::configuration::apply_error)?;
        let entries = apply::encode(self.to_parent(parents, applied.owners));
        Ok(AppliedScale {
            scale: applied.object.unwrap_or_else(|| scale.clone()),
            entries: non_empty(Some(entries)),
        })
    }

    fn scale_writer<'a>(&'a self, served: &'a versions::Served<'a>) -> Writer<'a> {
        Writer {
            version: SCALE_VERSION,
            model: scale_model(),
            subresource: self.subresource,
            manager: &self.manager,
            filter: &self.filter,
            versions: served,
            now: strategy::now(),
        }
    }

    /// The owners of the replicas, as owners of the scale.
    fn to_scale(parents: &Owners) -> Owners {
        let owners = parents
            .iter()
            .filter(|(_, owned)| owned.fields.has(&replicas()));
        owners
            .map(|(manager, owned)| {
                let owned = Owned {
                    api_version: SCALE_VERSION.to_owned(),
                    fields: only_replicas(),
                    time: owned.time.clone(),
                };
                (in_version(manager, SCALE_VERSION), owned)
            })
            .collect()
    }

    /// The owners of the workload after the scale has these. When they came to own the replicas
    /// is not noted, as upstream.
    fn to_parent(&self, parents: Owners, mut scales: Owners) -> Owners {
        let mut owners = Owners::new();
        for (manager, mut owned) in parents {
            if scales
                .remove(&in_version(&manager, SCALE_VERSION))
                .is_none()
            {
                owned.fields = owned.fields.difference(&only_replicas());
            }
            if !owned.fields.is_empty() {
                owners.insert(manager, owned);
            }
        }
        for (manager, owned) in scales {
            if owned.fields.has(&replicas()) {
                let owned = Owned {
                    api_version: self.version.clone(),
                    fields: only_replicas(),
                    time: None,
                };
                owners.insert(in_version(&manager, &self.version), owned);
            }
        }
        owners
    }
}

fn owners_of(entries: Option<&[ManagedFieldsEntry]>) -> Option<Owners> {
    apply::decode(entries.unwrap_or_default()).ok()
}

/// The same manager as one of another version.
fn in_version(manager: &Manager, version: &str) -> Manager {
    let mut manager = manager.clone();
    if manager.operation == Operation::Update {
        version.clone_into(&mut manager.api_version);
    }
    manager
}

fn scale_model() -> Model {
    schema::of_kind("autoscaling", "v1", "Scale").map_or_else(Model::deduced, Model::of_type)
}
