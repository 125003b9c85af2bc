//! The templates that a workload has had, each kept in a ControllerRevision.
//!
//! Enter at [`History`]. DaemonSets and StatefulSets share it; `kubectl rollout history` and `undo`
//! read what it writes. Upstream: `pkg/controller/history`.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        runtime::RawExtension,
    },
};
use kube::{ResourceExt as _, api::DeleteParams};
use serde::Deserialize as _;
use serde_json::json;

use crate::{
    Context, Error, error, hash, labels,
    objects::{Kept, Objects},
    owner, template,
};

/// The revision of its owner's template that a pod is of.
pub(crate) const POD_LABEL: &str = "controller-revision-hash";

/// Revisions kept when the owner does not say how many.
const LIMIT: i32 = 10;

/// A kind that keeps revisions of its template.
pub(crate) trait Revised: Kept {
    /// The label of a revision that has the hash of its template.
    const HASH_LABEL: &str;

    fn selector(&self) -> Option<&LabelSelector>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn history_limit(&self) -> Option<i32>;
    fn collision_count(&self) -> Option<i32>;
    fn with_collision_count(&self, count: i32) -> Self;
}

/// The revisions of the objects of one kind.
pub(crate) struct History<O> {
    owners: Objects<O>,
    pub revisions: Objects<ControllerRevision>,
}

impl<O: Revised> History<O> {
    pub fn new(context: &Context) -> Self {
        History {
            owners: context.objects(),
            revisions: context.objects(),
        }
    }

    /// The owner's revisions, oldest first. Those that it selects and nobody owns are adopted.
    pub async fn claim(&self, owner: &O) -> Result<Vec<Arc<ControllerRevision>>, Error> {
        let meta = owner.meta();
        let selects = |revision: &ControllerRevision| {
            let labels = revision.metadata.labels.as_ref();
            owner
                .selector()
                .is_some_and(|selector| labels::selects(selector, labels))
        };
        let uid = meta.uid.as_deref().unwrap_or_default();
        let mut candidates = self.revisions.cache.controlled_by(uid);
        candidates.extend(self.revisions.orphans(meta.namespace.as_deref()));
        let claim = owner::claim(meta, candidates, selects);
        let mut owned = owner::take(&self.owners, &self.revisions, owner, claim, &[]).await?;
        owned.sort_by(|one, other| age(one).cmp(&age(other)));
        Ok(owned)
    }

    /// Gives the revision this number, unless it has it.
    pub async fn renumber(
        &self,
        revision: &Arc<ControllerRevision>,
        number: i64,
    ) -> Result<Arc<ControllerRevision>, Error> {
        if revision.revision == number {
            return Ok(revision.clone());
        }
        let next = ControllerRevision {
            revision: number,
            ..(**revision).clone()
        };
        Ok(Arc::new(self.revisions.replace(&next).await?))
    }

    /// Keeps the owner's template as the revision of this number. Where another template has the
    /// name already, that is counted in the owner's status, and the next attempt takes another.
    pub async fn create(&self, owner: &O, number: i64) -> Result<Arc<ControllerRevision>, Error> {
        let Some(template) = owner.template() else {
            return Err(Error::Refused("there is no template".to_owned()));
        };
        let object = revision_of(owner, template, number);
        let error = match self.revisions.create(&object).await {
            Ok(created) => return Ok(Arc::new(created)),
            Err(error) => error,
        };
        if !error::is_already_exists(&error) {
            return Err(error.into());
        }
        let namespace = owner.namespace().unwrap_or_default();
        let existing = self.revisions.read(&namespace, &object.name_any()).await?;
        let Some(existing) = existing else {
            return Err(error.into());
        };
        let ours = owner::controller_of(&existing.metadata)
            .is_none_or(|reference| Some(&reference.uid) == owner.meta().uid.as_ref());
        if ours && is_of(&existing, template) {
            let version = existing.resource_version().unwrap_or_default();
            self.revisions.cache.reached(&version).await;
        } else {
            let count = owner.collision_count().unwrap_or(0) + 1;
            let counted = owner.with_collision_count(count);
            self.owners.replace_status(&counted).await?;
        }
        Err(error.into())
    }

    pub async fn delete(&self, revision: &ControllerRevision) -> Result<(), Error> {
        self.revisions
            .delete(revision, DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Deletes the oldest of `old`, in order of age, that are not `live`, down to the limit.
    pub async fn truncate(
        &self,
        owner: &O,
        old: &[Arc<ControllerRevision>],
        live: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), Error> {
        for revision in surplus(owner.history_limit(), old, live) {
            self.delete(&revision).await?;
        }
        Ok(())
    }
}

fn age(revision: &ControllerRevision) -> (i64, Option<jiff::Timestamp>, &str) {
    let created = revision.metadata.creation_timestamp.as_ref();
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    (revision.revision, created.map(|time| time.0), name)
}

fn surplus(
    limit: Option<i32>,
    old: &[Arc<ControllerRevision>],
    live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let Ok(limit) = usize::try_from(limit.unwrap_or(LIMIT)) else {
        return Vec::new();
    };
    let mut dead: Vec<_> = old.iter().filter(|one| !live(one)).cloned().collect();
    dead.truncate(dead.len().saturating_sub(limit));
    dead
}

/// The number of the next revision.
pub(crate) fn next_number<'a>(revisions: impl IntoIterator<Item = &'a ControllerRevision>) -> i64 {
    let numbers = revisions.into_iter().map(|revision| revision.revision);
    numbers.max().unwrap_or(0) + 1
}

/// The template that the revision keeps.
pub(crate) fn template_in(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.get("spec")?.get("template")?;
    PodTemplateSpec::deserialize(template).ok()
}

/// Whether the revision is of this template.
pub(crate) fn is_of(revision: &ControllerRevision, wanted: &PodTemplateSpec) -> bool {
    template_in(revision).is_some_and(|kept| {
        kept.metadata == wanted.metadata
            && template::same_spec(kept.spec.as_ref(), wanted.spec.as_ref())
    })
}

/// The label's value of a revision; its name where it has none.
pub(crate) fn hash_in<O: Revised>(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(O::HASH_LABEL))
        .or(revision.metadata.name.as_ref())
        .map(String::as_str)
        .unwrap_or_default()
}

fn revision_of<O: Revised>(
    owner: &O,
    template: &PodTemplateSpec,
    number: i64,
) -> ControllerRevision {
    let hash = hash::template_hash(template, owner.collision_count());
    let meta = template.metadata.as_ref();
    let mut labels = meta
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    labels.insert(O::HASH_LABEL.to_owned(), hash.clone());
    // `kubectl rollout undo` sends this as a strategic merge patch.
    let mut data = json!({ "spec": { "template": template } });
    data["spec"]["template"]["$patch"] = json!("replace");
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name(&owner.name_any(), &hash)),
            namespace: owner.namespace(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![owner::controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

/// `web-6d4cf56db6`, with the owner's part cut so that the whole is a valid name and label.
fn name(owner: &str, hash: &str) -> String {
    let cut = owner.get(..223).unwrap_or(owner);
    format!("{cut}-{hash}")
}

#[cfg(test)]
mod tests {
    use coracle_api::core::pod::defaults;
    use k8s_openapi::api::apps::v1::DaemonSet;

    use super::*;

    fn set(image: &str) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "s",
                "annotations": { "kubernetes.io/change-cause": "because" } },
            "spec": {
                "selector": { "matchLabels": { "app": "web" } },

                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "c", "image": image }] },
                },
            },
        }))
        .expect("a set")
    }

    fn kept(set: &DaemonSet, number: i64) -> ControllerRevision {
        revision_of(set, set.template().expect("a template"), number)
    }

    #[test]
    fn a_revision_keeps_the_template_as_a_patch() {
        let (one, other) = (set("v1"), set("v2"));
        let revision = kept(&one, 3);
        assert!(is_of(&revision, one.template().expect("a template")));
        assert!(!is_of(&revision, other.template().expect("a template")));
        let mut defaulted = one.template().expect("a template").clone();
        defaults::pod_spec(defaulted.spec.as_mut().expect("a spec"));
        assert!(is_of(&revision, &defaulted));
        assert_eq!(revision.revision, 3);
        assert_eq!(revision.labels()["app"], "web");
        assert_eq!(
            revision.annotations()["kubernetes.io/change-cause"],
            "because"
        );
        let hash = hash_in::<DaemonSet>(&revision);
        assert_eq!(revision.name_any(), format!("web-{hash}"));
        let data = revision.data.expect("data").0;
        assert_eq!(data["spec"]["template"]["$patch"], "replace");
        assert_eq!(
            data["spec"]["template"]["spec"]["containers"][0]["image"],
            "v1"
        );
    }

    #[test]
    fn the_oldest_that_nothing_needs_go() {
        let set = set("v1");
        let all: Vec<_> = (1..=5).map(|number| Arc::new(kept(&set, number))).collect();
        let numbers = |limit, live: i64| -> Vec<i64> {
            let gone = surplus(Some(limit), &all, |revision| revision.revision == live);
            gone.iter().map(|revision| revision.revision).collect()
        };
        assert_eq!(numbers(2, 1), [2, 3]);
        assert_eq!(numbers(0, 9), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(5, 9), [0_i64; 0]);
        assert_eq!(next_number(all.iter().map(|revision| &**revision)), 6);
        assert_eq!(next_number([]), 1);
    }
}
