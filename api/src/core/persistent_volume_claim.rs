//! PersistentVolumeClaim, and the claim's spec in an ephemeral volume.

mod update;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
        PersistentVolumeClaimTemplate, TypedLocalObjectReference, TypedObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use crate::{
    check,
    core::pod::{resources::round_list, validation::resources::quantity_value},
    field::{ErrorList, Path},
    quantity::Amount,
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{self, AGE, NAME, age, column, name, storage_class, storage_of, wide},
    zero::{default_text, list, text},
};

/// Where the storage class once was.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
pub(crate) const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
pub(crate) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

impl Behaviour for PersistentVolumeClaim {
    const SHAPE: Shape<Self> = shape!(status);

    fn default_fields(&mut self) {
        default_claim(self);
    }

    fn prepare_for_create(&mut self) {
        self.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeClaimStatus::default()
        });
        let spec = self.spec.get_or_insert_default();
        drop_disabled(spec, None);
        sync_data_sources(spec);
    }

    fn prepare_for_update(&mut self, old: &Self) {
        let spec = self.spec.get_or_insert_default();
        drop_disabled(spec, old.spec.as_ref());
        sync_data_sources(spec);
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(spec) = &self.spec {
            self::spec(spec, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(spec) = &self.spec {
            let groups = Groups::of_update(old);
            spec_with(spec, groups, &Path::new("spec"), &mut errors);
        }
        update::claim(self, old, &mut errors);
        errors
    }

    fn validate_subresource(&self, _old: &Self, subresource: Subresource) -> ErrorList {
        match subresource {
            Subresource::Status => update::status(self),
            _ => ErrorList::new(),
        }
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let mut warnings = Vec::new();
        let annotations = self.metadata.annotations.as_ref();
        if annotations.is_some_and(|annotations| annotations.contains_key(CLASS_ANNOTATION)) {
            warnings.push(format!(
                "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \
                 \"storageClassName\" attribute instead"
            ));
        }
        if let Some(spec) = &self.spec {
            spec_warnings(spec, &Path::new("spec"), &mut warnings);
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Status",
                "string",
                "phase represents the current phase of PersistentVolumeClaim.",
            ),
            column(
                "Volume",
                "string",
                "volumeName is the binding reference to the PersistentVolume backing this claim.",
            ),
            column(
                "Capacity",
                "string",
                "capacity represents the actual resources of the underlying volume.",
            ),
            column(
                "Access Modes",
                "string",
                "accessModes contains the actual access modes the volume backing the PVC has. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
            ),
            column("StorageClass", "string", "StorageClass of the pvc"),
            column(
                "VolumeAttributesClass",
                "string",
                "VolumeAttributesClass of the pvc",
            ),
            AGE,
            wide(
                "VolumeMode",
                "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not included in claim spec.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.as_ref();
        let phase = match self.metadata.deletion_timestamp {
            Some(_) => "Terminating",
            None => status.map_or("", |status| text(&status.phase)),
        };
        let volume = spec.volume_name.unwrap_or_default();
        let bound = status.filter(|_| !volume.is_empty());
        let unset = || "<unset>".to_owned();
        vec![
            name(&self.metadata),
            Value::from(phase),
            Value::from(bound.map_or_else(String::new, |_| volume.clone())),
            Value::from(
                bound.map_or_else(String::new, |status| storage_of(status.capacity.as_ref())),
            ),
            Value::from(bound.map_or_else(String::new, |status| {
                table::access_modes(list(&status.access_modes))
            })),
            Value::from(storage_class(
                &self.metadata,
                spec.storage_class_name.as_deref(),
            )),
            Value::from(spec.volume_attributes_class_name.unwrap_or_else(unset)),
            age(&self.metadata, now),
            Value::from(spec.volume_mode.unwrap_or_else(unset)),
        ]
    }
}

/// The defaults of a claim that is an object of its own, or a template in a StatefulSet.
pub(crate) fn default_claim(claim: &mut PersistentVolumeClaim) {
    default_spec(claim.spec.get_or_insert_default());
    let status = claim.status.get_or_insert_default();
    default_text(&mut status.phase, "Pending");
    round_list(&mut status.capacity);
    round_list(&mut status.allocated_resources);
}

/// The defaults of a claim's spec, also in an ephemeral volume.
pub(crate) fn default_spec(spec: &mut PersistentVolumeClaimSpec) {
    spec.volume_mode
        .get_or_insert_with(|| "Filesystem".to_owned());
    if let Some(requirements) = &mut spec.resources {
        round_list(&mut requirements.limits);
        round_list(&mut requirements.requests);
    }
}

/// The template of an ephemeral volume's claim.
pub(crate) fn template(
    template: &PersistentVolumeClaimTemplate,
    path: &Path,
    errors: &mut ErrorList,
) {
    if let Some(metadata) = &template.metadata {
        template_metadata(metadata, &path.child("metadata"), errors);
    }
    spec(&template.spec, &path.child("spec"), errors);
}

/// Of a template's metadata, only labels and annotations mean something.
pub(crate) fn template_metadata(metadata: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    check::annotations(
        metadata.annotations.as_ref(),
        &path.child("annotations"),
        errors,
    );
    check::labels(metadata.labels.as_ref(), &path.child("labels"), errors);
    for (field, is_set) in [
        ("name", metadata.name.is_some()),
        ("generateName", metadata.generate_name.is_some()),
        ("namespace", metadata.namespace.is_some()),
        ("selfLink", metadata.self_link.is_some()),
        ("uID", metadata.uid.is_some()),
        ("resourceVersion", metadata.resource_version.is_some()),
        ("generation", metadata.generation.is_some()),
        ("creationTimestamp", metadata.creation_timestamp.is_some()),
        ("deletionTimestamp", metadata.deletion_timestamp.is_some()),
        (
            "deletionGracePeriodSeconds",
            metadata.deletion_grace_period_seconds.is_some(),
        ),
        ("ownerReferences", metadata.owner_references.is_some()),
        ("finalizers", metadata.finalizers.is_some()),
        ("managedFields", metadata.managed_fields.is_some()),
    ] {
        if is_set {
            errors.push(path.child(field).forbidden("cannot be set"));
        }
    }
}

/// Whether the API groups of data sources are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Groups {
    Checked,
    /// A claim whose source has one stays as it is, whatever that is.
    Taken,
}

impl Groups {
    fn of_update(old: &PersistentVolumeClaim) -> Self {
        let spec = old.spec.as_ref();
        let source = spec.and_then(|spec| spec.data_source.as_ref());
        let reference = spec.and_then(|spec| spec.data_source_ref.as_ref());
        let has_group = source.is_some_and(|source| source.api_group.is_some())
            || reference.is_some_and(|reference| reference.api_group.is_some());
        if has_group {
            Groups::Taken
        } else {
            Groups::Checked
        }
    }
}

/// What is wrong with a claim's spec.
pub(crate) fn spec(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut ErrorList) {
    spec_with(spec, Groups::Checked, path, errors);
}

fn spec_with(
    spec: &PersistentVolumeClaimSpec,
    groups: Groups,
    path: &Path,
    errors: &mut ErrorList,
) {
    let modes = list(&spec.access_modes);
    if modes.is_empty() {
        errors.push(
            path.child("accessModes")
                .required("at least 1 access mode is required"),
        );
    }
    check::label_selector(spec.selector.as_ref(), &path.child("selector"), errors);
    access_modes(modes, &path.child("accessModes"), errors);
    storage_request(spec, &path.child("resources").key("storage"), errors);
    if !text(&spec.storage_class_name).is_empty() {
        let name = text(&spec.storage_class_name);
        check::subdomain(name, &path.child("storageClassName"), errors);
    }
    if let Some(mode) = &spec.volume_mode {
        check::one_of(mode, VOLUME_MODES, &path.child("volumeMode"), errors);
    }
    data_sources(spec, groups, path, errors);
    if !text(&spec.volume_attributes_class_name).is_empty() {
        let name = text(&spec.volume_attributes_class_name);
        check::subdomain(name, &path.child("volumeAttributesClassName"), errors);
    }
}

/// Known modes, and ReadWriteOncePod only by itself.
pub(crate) fn access_modes(modes: &[String], path: &Path, errors: &mut ErrorList) {
    for mode in modes {
        check::one_of(mode, ACCESS_MODES, path, errors);
    }
    let is_single = |mode: &&String| *mode == "ReadWriteOncePod";
    let is_other = |mode: &&String| !is_single(mode) && ACCESS_MODES.contains(&mode.as_str());
    if modes.iter().any(|mode| is_single(&mode)) && modes.iter().any(|mode| is_other(&mode)) {
        errors.push(path.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

fn storage_request(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut ErrorList) {
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    match requests.and_then(|requests| requests.get("storage")) {
        None => errors.push(path.required("")),
        Some(quantity) => {
            let before = errors.len();
            check::positive_quantity(quantity, path, errors);
            if errors.len() == before {
                quantity_value("storage", quantity, path, errors);
            }
        }
    }
}

/// A reference to what a volume is filled with.
struct DataSource<'a> {
    group: &'a str,
    kind: &'a str,
    name: &'a str,
    namespace: &'a str,
}

impl DataSource<'_> {
    fn check(&self, groups: Groups, path: &Path, errors: &mut ErrorList) {
        check::required(self.name, &path.child("name"), errors);
        check::required(self.kind, &path.child("kind"), errors);
        if self.group.is_empty() && self.kind != "PersistentVolumeClaim" {
            errors.push(path.invalid(
                self.kind,
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ));
        }
        if !self.group.is_empty() && groups == Groups::Checked {
            check::subdomain(self.group, &path.child("apiGroup"), errors);
        }
        if !self.namespace.is_empty() {
            check::dns_label(self.namespace, &path.child("namespace"), errors);
        }
    }
}

fn data_sources(
    spec: &PersistentVolumeClaimSpec,
    groups: Groups,
    path: &Path,
    errors: &mut ErrorList,
) {
    let source = spec.data_source.as_ref().map(|source| DataSource {
        group: text(&source.api_group),
        kind: &source.kind,
        name: &source.name,
        namespace: "",
    });
    let reference = spec.data_source_ref.as_ref().map(|reference| DataSource {
        group: text(&reference.api_group),
        kind: &reference.kind,
        name: &reference.name,
        namespace: text(&reference.namespace),
    });
    if let Some(source) = &source {
        source.check(groups, &path.child("dataSource"), errors);
    }
    if let Some(reference) = &reference {
        reference.check(groups, &path.child("dataSourceRef"), errors);
    }
    let (Some(source), Some(reference)) = (source, reference) else {
        return;
    };
    // Upstream gives the path of the other field as the value, an empty structure in JSON.
    let value = || serde_json::json!({});
    if !reference.namespace.is_empty() {
        let message = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(path.invalid(value(), message));
    } else if source.kind != reference.kind
        || source.name != reference.name
        || spec.data_source.as_ref().map(|s| &s.api_group)
            != spec.data_source_ref.as_ref().map(|r| &r.api_group)
    {
        errors.push(path.invalid(value(), "must match dataSourceRef"));
    }
}

/// Warnings about a claim's spec.
pub(crate) fn spec_warnings(
    spec: &PersistentVolumeClaimSpec,
    path: &Path,
    warnings: &mut Vec<String>,
) {
    let Some(resources) = &spec.resources else {
        return;
    };
    for (field, list) in [
        ("requests", &resources.requests),
        ("limits", &resources.limits),
    ] {
        let quantity = list.as_ref().and_then(|list| list.get("storage"));
        let amount = quantity.map(Amount::from).unwrap_or_default();
        if !amount.is_integer() {
            warnings.push(format!(
                "{}: fractional byte value \"{amount}\" is invalid, must be an integer",
                path.child("resources").child(field).key("storage")
            ));
        }
    }
}

/// Sources in other namespaces are a feature that is off in v1.36; any other old-style source
/// than a claim or a snapshot has always been dropped.
fn drop_disabled(spec: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    let had_reference = old.is_some_and(|old| old.data_source_ref.is_some());
    let reference = spec.data_source_ref.as_ref();
    let is_elsewhere = reference.is_some_and(|r| !text(&r.namespace).is_empty());
    if is_elsewhere && !had_reference {
        spec.data_source_ref = None;
    }
    let had_source = old.is_some_and(|old| old.data_source.is_some());
    if had_source || had_reference || spec.data_source_ref.is_some() {
        return;
    }
    let is_known = spec.data_source.as_ref().is_some_and(|source| {
        matches!(
            (text(&source.api_group), source.kind.as_str()),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        )
    });
    if !is_known {
        spec.data_source = None;
    }
}

/// `dataSource` and `dataSourceRef` say the same, the latter with a namespace.
fn sync_data_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(reference)) if text(&reference.namespace).is_empty() => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: reference.api_group.clone(),
                kind: reference.kind.clone(),
                name: reference.name.clone(),
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persistent_volume_claims() {
        crate::testing::run::<PersistentVolumeClaim>(include_str!(
            "../../testdata/persistent_volume_claim.yaml"
        ));
    }

    #[test]
    fn a_group_that_was_let_in_once_stays() {
        let claim = |group: Option<&str>| PersistentVolumeClaim {
            spec: Some(PersistentVolumeClaimSpec {
                data_source: Some(TypedLocalObjectReference {
                    api_group: group.map(str::to_owned),
                    kind: "PersistentVolumeClaim".to_owned(),
                    name: "a".to_owned(),
                }),
                ..PersistentVolumeClaimSpec::default()
            }),
            ..PersistentVolumeClaim::default()
        };
        let is_refused = |old: Option<&str>| {
            let errors = claim(Some("A_B")).validate_update(&claim(old));
            let field = "spec.dataSource.apiGroup";
            errors.iter().any(|error| error.field == field)
        };
        assert!(is_refused(None));
        assert!(!is_refused(Some("A_B")));
    }
}
