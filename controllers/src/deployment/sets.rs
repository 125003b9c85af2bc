//! The replica sets of a deployment: which is the new one, what it is called, its annotations and
//! revision.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;

use crate::{hash, labels::Labels, owner, template};

pub(super) const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
pub(super) const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// What stays with the deployment or the replica set and is never copied between them.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    ROLLBACK_TO,
];

/// The longest that the annotation with former revisions may become, in bytes.
const HISTORY_LENGTH: usize = 2000;

/// A replica set as it stands and as it shall be.
#[derive(Clone, Debug)]
pub(super) struct Set {
    /// As the cache has it; for one that is to be created, the whole object.
    pub known: Arc<ReplicaSet>,
    pub to_create: bool,
    pub replicas: i32,
    pub annotations: Labels,
    pub min_ready_seconds: Option<i32>,
}

impl Set {
    pub fn of(known: Arc<ReplicaSet>) -> Self {
        Set {
            to_create: false,
            replicas: spec_replicas(&known),
            annotations: known.annotations().clone(),
            min_ready_seconds: known.spec.as_ref().and_then(|spec| spec.min_ready_seconds),
            known,
        }
    }

    pub fn name(&self) -> &str {
        self.known.metadata.name.as_deref().unwrap_or_default()
    }

    /// The replicas it asked for before this decision.
    pub fn known_replicas(&self) -> i32 {
        spec_replicas(&self.known)
    }

    pub fn status(&self) -> Counts {
        let status = self.known.status.as_ref();
        Counts {
            replicas: status.map_or(0, |status| status.replicas),
            ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
            available: status
                .and_then(|status| status.available_replicas)
                .unwrap_or(0),
        }
    }

    pub fn is_changed(&self) -> bool {
        self.replicas != self.known_replicas()
            || self.annotations != *self.known.annotations()
            || self.min_ready_seconds.unwrap_or(0)
                != self
                    .known
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.min_ready_seconds)
                    .unwrap_or(0)
    }

    /// The object to write.
    pub fn to_object(&self) -> ReplicaSet {
        let mut object = (*self.known).clone();
        object.metadata.annotations = Some(self.annotations.clone());
        if let Some(spec) = &mut object.spec {
            spec.replicas = Some(self.replicas);
            spec.min_ready_seconds = self.min_ready_seconds;
        }
        object
    }

    /// Its revision; zero when it has none, `None` when that is no number.
    pub fn revision(&self) -> Option<i64> {
        match self.annotations.get(REVISION) {
            Some(text) => text.parse().ok(),
            None => Some(0),
        }
    }

    /// How many replicas the deployment wanted when this set was last scaled.
    pub fn desired_annotation(&self) -> Option<i32> {
        number(&self.annotations, DESIRED_REPLICAS)
    }

    /// The most replicas that the deployment allowed when this set was last scaled.
    pub fn max_annotation(&self) -> Option<i32> {
        number(&self.annotations, MAX_REPLICAS)
    }

    pub fn annotate_replicas(&mut self, desired: i32, max: i32) {
        self.annotations
            .insert(DESIRED_REPLICAS.to_owned(), desired.to_string());
        self.annotations
            .insert(MAX_REPLICAS.to_owned(), max.to_string());
    }

    /// Takes over the deployment's annotations, and the revision if that is later than its own.
    pub fn annotate_from(&mut self, deployment: &Deployment, revision: i64) {
        for (key, value) in deployment.annotations() {
            if !NOT_COPIED.contains(&key.as_str()) && self.annotations.get(key) != Some(value) {
                self.annotations.insert(key.clone(), value.clone());
            }
        }
        let former = self.annotations.get(REVISION).cloned();
        let Some(known) = self.revision() else {
            return;
        };
        if known >= revision {
            return;
        }
        self.annotations
            .insert(REVISION.to_owned(), revision.to_string());
        if let Some(former) = former {
            let history = self.annotations.get(REVISION_HISTORY);
            if let Some(history) = longer_history(history.map_or("", String::as_str), &former) {
                self.annotations
                    .insert(REVISION_HISTORY.to_owned(), history);
            }
        }
    }
}

/// What a set says of its pods.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub replicas: i32,
    pub ready: i32,
    pub available: i32,
}

fn spec_replicas(set: &ReplicaSet) -> i32 {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
    replicas.unwrap_or(1)
}

fn number(annotations: &Labels, key: &str) -> Option<i32> {
    let value: i32 = annotations.get(key)?.parse().ok()?;
    (value >= 0).then_some(value)
}

/// Appends a revision, dropping the oldest ones when the text becomes too long. `None` when even
/// that does not make room.
fn longer_history(history: &str, revision: &str) -> Option<String> {
    if history.is_empty() {
        return Some(revision.to_owned());
    }
    let mut kept = history;
    while kept.len() + revision.len() + 1 > HISTORY_LENGTH {
        kept = kept.split_once(',').map_or("", |(_, later)| later);
        if kept.is_empty() {
            return (revision.len() <= HISTORY_LENGTH).then(|| revision.to_owned());
        }
    }
    Some(format!("{kept},{revision}"))
}

/// Whether a set was made from the deployment's template: the two differ at most in the label with
/// the template's hash, and in defaults.
pub(super) fn same_template(set: Option<&PodTemplateSpec>, wanted: &PodTemplateSpec) -> bool {
    let empty = PodTemplateSpec::default();
    let set = set.unwrap_or(&empty);
    same_meta(set.metadata.as_ref(), wanted.metadata.as_ref())
        && template::same_spec(set.spec.as_ref(), wanted.spec.as_ref())
}

fn same_meta(left: Option<&ObjectMeta>, right: Option<&ObjectMeta>) -> bool {
    let absent = ObjectMeta::default();
    let (left, right) = (left.unwrap_or(&absent), right.unwrap_or(&absent));
    let labels = |meta: &ObjectMeta| -> Vec<(String, String)> {
        let labels = meta.labels.iter().flatten();
        labels
            .filter(|(key, _)| *key != HASH_LABEL)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let annotations = |meta: &ObjectMeta| meta.annotations.clone().unwrap_or_default();
    labels(left) == labels(right)
        && annotations(left) == annotations(right)
        && left.name == right.name
        && left.namespace == right.namespace
        && left.finalizers == right.finalizers
}

/// The set to create for the deployment's template, without replicas and annotations as yet.
pub(super) fn for_template(deployment: &Deployment, collisions: Option<i32>) -> Option<Set> {
    let spec = deployment.spec.as_ref()?;
    let hash = hash::template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let meta = template.metadata.get_or_insert_default();
    let labels = meta.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    let matched = selector.match_labels.get_or_insert_default();
    matched.insert(HASH_LABEL.to_owned(), hash.clone());
    let object = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(set_name(&deployment.name_any(), &hash)),
            namespace: deployment.namespace(),
            owner_references: Some(vec![owner::controller_reference(deployment)]),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    Some(Set {
        to_create: true,
        ..Set::of(Arc::new(object))
    })
}

/// `web-6d4cf56db6`, with the deployment's part cut so that the whole is a valid name.
fn set_name(deployment: &str, hash: &str) -> String {
    let room = 253_usize.saturating_sub(hash.len() + 1);
    let cut = deployment.get(..room).unwrap_or(deployment);
    format!("{cut}-{hash}")
}

/// The deployment with the template and the annotations that an older set has.
pub(super) fn rolled_back(deployment: &Deployment, set: &Set) -> Deployment {
    let mut object = deployment.clone();
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| NOT_COPIED.contains(&key.as_str()));
    for (key, value) in &set.annotations {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let template = set.known.spec.as_ref().and_then(|set| set.template.clone());
    if let (Some(spec), Some(mut template)) = (&mut object.spec, template) {
        let labels = template
            .metadata
            .as_mut()
            .and_then(|meta| meta.labels.as_mut());
        if let Some(labels) = labels {
            labels.remove(HASH_LABEL);
        }
        spec.template = template;
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_of_revisions_is_bounded() {
        assert_eq!(longer_history("", "1").as_deref(), Some("1"));
        assert_eq!(longer_history("1,2", "3").as_deref(), Some("1,2,3"));
        let long = ["1234567890"; 181].join(",");
        let next = longer_history(&long, "77777777").expect("there is room");
        assert!(next.len() <= HISTORY_LENGTH && next.ends_with(",77777777"));
        let next = longer_history(&next, "888888888").expect("there is room");
        assert!(next.len() <= HISTORY_LENGTH && next.ends_with(",77777777,888888888"));
    }

    #[test]
    fn names_of_sets_fit() {
        assert_eq!(set_name("web", "abc"), "web-abc");
        let name = set_name(&"x".repeat(253), "5d4f8c7b9d");
        assert_eq!(name.len(), 253);
        assert!(name.ends_with("-5d4f8c7b9d"));
    }
}
