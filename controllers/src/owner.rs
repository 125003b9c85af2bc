//! Controlling owners: who an object belongs to, and how a controller adopts what it selects and
//! lets go of what it no longer does.

use std::sync::Arc;

use coracle_client::{Cached, Informer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt, api::Patch};
use serde_json::{Value, json};

use crate::{
    Error, error,
    objects::{Kept, Objects},
};

/// The reference to the owner that controls the object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true))
}

pub(crate) fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller_of(meta).is_some_and(|reference| Some(&reference.uid) == owner.uid.as_ref())
}

/// The reference that makes `owner` the controller of what carries it.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The cached object that controls `meta`, when it is of kind `K` and still the same object.
pub(crate) fn resolve<K: Cached>(owners: &Informer<K>, meta: &ObjectMeta) -> Option<Arc<K>> {
    let reference = controller_of(meta)?;
    if reference.kind != K::kind(&()) {
        return None;
    }
    owners
        .get(
            meta.namespace.as_deref().unwrap_or_default(),
            &reference.name,
        )
        .filter(|owner| owner.meta().uid.as_ref() == Some(&reference.uid))
}

/// What a controller makes of the objects it selects or owns.
#[derive(Debug)]
pub(crate) struct Claim<K> {
    pub owned: Vec<Arc<K>>,
    /// Selected and without a controller.
    pub adopt: Vec<Arc<K>>,
    /// Owned and no longer selected.
    pub release: Vec<Arc<K>>,
}

/// Decides which of the candidates belong to `owner`. An owner that is being deleted neither adopts
/// nor releases.
pub(crate) fn claim<K: Resource>(
    owner: &ObjectMeta,
    candidates: Vec<Arc<K>>,
    selects: impl Fn(&K) -> bool,
) -> Claim<K> {
    let deleted = owner.deletion_timestamp.is_some();
    let mut claim = Claim {
        owned: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    for object in candidates {
        let meta = object.meta();
        match controller_of(meta) {
            Some(_) if !is_controlled_by(meta, owner) => {}
            Some(_) if selects(&object) => claim.owned.push(object),
            Some(_) if !deleted => claim.release.push(object),
            None if !deleted
                && meta.deletion_timestamp.is_none()
                && meta.namespace == owner.namespace
                && selects(&object) =>
            {
                claim.adopt.push(object);
            }
            _ => {}
        }
    }
    claim
}

/// Adopts and releases as claimed, and returns everything that is owned afterwards.
///
/// `finalizers` go onto what is adopted and off what is released. The owner is read again before
/// the first adoption, so that one which has just been deleted adopts nothing.
pub(crate) async fn take<O: Kept, K: Kept>(
    owners: &Objects<O>,
    objects: &Objects<K>,
    owner: &O,
    claim: Claim<K>,
    finalizers: &[&str],
) -> Result<Vec<Arc<K>>, Error> {
    let namespace = owner.namespace().unwrap_or_default();
    let mut owned = claim.owned;
    let mut failure = None;
    if !claim.adopt.is_empty() {
        recheck(owners, owner, &namespace).await?;
    }
    for object in &claim.adopt {
        let patch = Patch::Strategic(adoption(owner, object.meta(), finalizers));
        let adopted = objects.patch(&namespace, &object.name_any(), patch).await;
        match error::optional(adopted) {
            Ok(Some(adopted)) => owned.push(Arc::new(adopted)),
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    for object in &claim.release {
        let patch = Patch::Strategic(letting_go(owner.meta(), object.meta(), finalizers));
        let released = objects.patch(&namespace, &object.name_any(), patch).await;
        match error::optional(released) {
            Ok(_) => {}
            // Not the object that was seen, or it has no owner references: nothing to let go of.
            Err(error) if error::is_invalid(&error) => {}
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(owned),
    }
}

/// The uid in a patch makes it fail on a later object of the same name.
fn adoption<O: Resource<DynamicType = ()>>(
    owner: &O,
    object: &ObjectMeta,
    finalizers: &[&str],
) -> Value {
    let mut patch = json!({ "metadata": {
        "uid": object.uid,
        "ownerReferences": [controller_reference(owner)],
    }});
    if !finalizers.is_empty() {
        patch["metadata"]["finalizers"] = json!(finalizers);
    }
    patch
}

fn letting_go(owner: &ObjectMeta, object: &ObjectMeta, finalizers: &[&str]) -> Value {
    let mut patch = json!({ "metadata": {
        "uid": object.uid,
        "ownerReferences": [{ "$patch": "delete", "uid": owner.uid }],
    }});
    if !finalizers.is_empty() {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    patch
}

async fn recheck<O: Kept>(owners: &Objects<O>, owner: &O, namespace: &str) -> Result<(), Error> {
    let name = owner.name_any();
    let kind = O::kind(&());
    let wanted = owner.uid().unwrap_or_default();
    let fresh = owners
        .read(namespace, &name)
        .await
        .map_err(Error::doing(format!("reading {kind} {namespace}/{name}")))?;
    let uid = fresh.as_ref().and_then(ResourceExt::uid);
    if uid.as_ref() != Some(&wanted) {
        return Err(Error::Refused(format!(
            "original {kind} {namespace}/{name} is gone: got uid {}, wanted {wanted}",
            uid.unwrap_or_default(),
        )));
    }
    let deleted = fresh.and_then(|fresh| fresh.meta().deletion_timestamp.clone());
    match deleted {
        Some(at) => Err(Error::Refused(format!(
            "{namespace}/{name} has just been deleted at {}",
            at.0
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::{apps::v1::ReplicaSet, core::v1::Pod},
        apimachinery::pkg::apis::meta::v1::Time,
    };

    use super::*;

    fn meta(name: &str, uid: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn pod(name: &str, owner: Option<&ReplicaSet>, deleted: bool) -> Arc<Pod> {
        Arc::new(Pod {
            metadata: ObjectMeta {
                owner_references: owner.map(|owner| vec![controller_reference(owner)]),
                deletion_timestamp: deleted.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
                ..meta(name, name)
            },
            ..Pod::default()
        })
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<String> {
        pods.iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn what_is_selected_is_adopted_and_what_is_not_is_released() {
        let set = |uid| ReplicaSet {
            metadata: meta("web", uid),
            ..ReplicaSet::default()
        };
        let (mut owner, other) = (set("1"), set("2"));
        let candidates = || {
            vec![
                pod("web-owned", Some(&owner), false),
                pod("web-owned-and-deleted", Some(&owner), true),
                pod("relabelled", Some(&owner), false),
                pod("web-of-another", Some(&other), false),
                pod("web-orphan", None, false),
                pod("web-orphan-deleted", None, true),
                pod("orphan", None, false),
            ]
        };
        let selects = |pod: &Pod| pod.name_any().starts_with("web");
        let pods = candidates();
        let claimed = claim(&owner.metadata, pods.clone(), selects);
        assert_eq!(
            names(&claimed.owned),
            ["web-owned", "web-owned-and-deleted"]
        );
        assert_eq!(names(&claimed.adopt), ["web-orphan"]);
        assert_eq!(names(&claimed.release), ["relabelled"]);

        owner.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let claimed = claim(&owner.metadata, pods, selects);
        assert_eq!(claimed.owned.len(), 2);
        assert!(claimed.adopt.is_empty() && claimed.release.is_empty());
    }
}
