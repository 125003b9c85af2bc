//! Single objects: whether their owners still exist, and what follows from it.

use futures::{FutureExt as _, future::BoxFuture};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use serde_json::{Value, json};

use super::{
    Collector,
    graph::View,
    node::{Identity, Kind},
    uid::Uid,
};
use crate::{Error, error, work::Done};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Attempts to take a finalizer off an object that others write too.
const ATTEMPTS: u32 = 5;

/// The owners that an object names, by what has become of them.
#[derive(Debug, Default)]
struct Owners {
    /// They exist.
    solid: usize,
    /// They do not: uids.
    dangling: Vec<String>,
    /// They wait for their dependents to go: uids.
    waiting: Vec<String>,
}

/// Where an object is looked for.
enum Place {
    Api(Box<Api<DynamicObject>>),
    /// An object of the cluster cannot have an owner in a namespace.
    Nowhere,
}

impl Collector {
    /// Deletes the object if none of its owners exists.
    pub(super) async fn attempt_to_delete(&self, uid: &Uid) -> Result<Done, Error> {
        let Some(view) = self.graph.lock().view(uid) else {
            return Ok(Done::Settled);
        };
        if view.deleted && !view.deleting_dependents {
            return Ok(Done::Settled);
        }
        let api = match self.place(&view.identity.kind, &view.identity.namespace)? {
            Place::Api(api) => api,
            Place::Nowhere => return Ok(Done::Settled),
        };
        let latest = get(&api, &view.identity.name).await?;
        let Some(latest) = latest.filter(|meta| is(meta, uid)) else {
            self.is_absent(&view.identity);
            return Ok(Done::Settled);
        };
        if view.deleting_dependents {
            self.wait_for_dependents(&api, &view).await?;
        } else if latest
            .owner_references
            .as_ref()
            .is_some_and(|owners| !owners.is_empty())
        {
            self.judge(&api, &view, &latest).await?;
        }
        if view.is_virtual {
            // It exists, but its watch has not shown it yet.
            return Ok(Done::Retry);
        }
        Ok(Done::Settled)
    }

    fn is_absent(&self, identity: &Identity) {
        let effects = self.graph.lock().absent(identity);
        self.take(effects);
    }

    fn place(&self, kind: &Kind, namespace: &str) -> Result<Place, Error> {
        let served = self.served(kind).ok_or_else(|| {
            Error::Refused(format!(
                "unable to get REST mapping for {}/{}.",
                kind.api_version, kind.kind
            ))
        })?;
        if served.namespaced && namespace.is_empty() {
            return Ok(Place::Nowhere);
        }
        Ok(Place::Api(Box::new(served.api(&self.client, namespace))))
    }

    /// The object goes when nothing blocks it any more; until then what blocks it is looked at.
    async fn wait_for_dependents(
        &self,
        api: &Api<DynamicObject>,
        view: &View,
    ) -> Result<(), Error> {
        let mut blocked = false;
        for dependent in view.dependents.iter().filter(|dependent| dependent.blocks) {
            blocked = true;
            if !dependent.deleting_dependents {
                self.to_delete.add(dependent.identity.uid.clone());
            }
        }
        if !blocked {
            remove_finalizer(api, &view.identity, FOREGROUND).await?;
        }
        Ok(())
    }

    async fn judge(
        &self,
        api: &Api<DynamicObject>,
        view: &View,
        latest: &ObjectMeta,
    ) -> Result<(), Error> {
        let Some(owners) = self.classify(view, latest).await? else {
            return Ok(());
        };
        let identity = &view.identity;
        if owners.solid > 0 {
            let mut gone = owners.dangling;
            gone.extend(owners.waiting);
            if !gone.is_empty() {
                drop_owners(api, identity, &gone).await?;
            }
            return Ok(());
        }
        let policy = if !owners.waiting.is_empty() && !view.dependents.is_empty() {
            // Two that wait for each other would wait for ever.
            if view.dependents.iter().any(|one| one.deleting_dependents) {
                unblock(api, view).await?;
            }
            PropagationPolicy::Foreground
        } else {
            let finalizers = latest.finalizers.as_deref().unwrap_or_default();
            let has = |wanted: &str| finalizers.iter().any(|finalizer| finalizer == wanted);
            if has(ORPHAN) {
                PropagationPolicy::Orphan
            } else if has(FOREGROUND) {
                PropagationPolicy::Foreground
            } else {
                PropagationPolicy::Background
            }
        };
        if !delete(api, identity, latest, &policy).await? {
            self.is_absent(identity);
        }
        Ok(())
    }

    /// Looks each owner up. `None` when one cannot exist at all.
    async fn classify(&self, view: &View, latest: &ObjectMeta) -> Result<Option<Owners>, Error> {
        let mut owners = Owners::default();
        for reference in latest.owner_references.iter().flatten() {
            let Some(found) = self.owner(view, reference).await? else {
                return Ok(None);
            };
            match found {
                Found::Absent => owners.dangling.push(reference.uid.clone()),
                Found::There(meta) => {
                    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
                    let foreground = finalizers.iter().any(|one| one == FOREGROUND);
                    if meta.deletion_timestamp.is_some() && foreground {
                        owners.waiting.push(reference.uid.clone());
                    } else {
                        owners.solid += 1;
                    }
                }
            }
        }
        Ok(Some(owners))
    }

    async fn owner(&self, view: &View, reference: &OwnerReference) -> Result<Option<Found>, Error> {
        let namespace = &view.identity.namespace;
        let identity = |graph: &mut super::Graph, namespace: &str| Identity {
            kind: graph.kind(&reference.api_version, &reference.kind),
            namespace: namespace.into(),
            name: reference.name.as_str().into(),
            uid: reference.uid.as_str().into(),
        };
        let (mut here, kind) = {
            let mut graph = self.graph.lock();
            let anywhere = identity(&mut graph, "");
            let here = identity(&mut graph, namespace);
            if graph.is_absent(&anywhere) || graph.is_absent(&here) {
                return Ok(Some(Found::Absent));
            }
            let kind = here.kind.clone();
            (here, kind)
        };
        let api = match self.place(&kind, namespace)? {
            Place::Api(api) => api,
            Place::Nowhere => return Ok(None),
        };
        let found = get(&api, &reference.name).await?;
        match found.filter(|meta| meta.uid.as_ref() == Some(&reference.uid)) {
            Some(meta) => Ok(Some(Found::There(Box::new(meta)))),
            None => {
                if self.served(&kind).is_some_and(|served| !served.namespaced) {
                    here.namespace = Box::default();
                }
                self.graph.lock().note_absent(here);
                Ok(Some(Found::Absent))
            }
        }
    }

    /// Sets the dependents of the object free, and then lets it go.
    pub(super) async fn attempt_to_orphan(&self, uid: &Uid) -> Result<Done, Error> {
        let Some(view) = self.graph.lock().view(uid) else {
            return Ok(Done::Settled);
        };
        for dependent in &view.dependents {
            let identity = &dependent.identity;
            if let Place::Api(api) = self.place(&identity.kind, &identity.namespace)? {
                drop_owners(&api, identity, &[uid.to_string()]).await?;
            }
        }
        if let Place::Api(api) = self.place(&view.identity.kind, &view.identity.namespace)? {
            remove_finalizer(&api, &view.identity, ORPHAN).await?;
        }
        Ok(Done::Settled)
    }
}

enum Found {
    Absent,
    There(Box<ObjectMeta>),
}

fn is(meta: &ObjectMeta, uid: &Uid) -> bool {
    meta.uid.as_deref().is_some_and(|text| uid.is(text))
}

fn get<'a>(
    api: &'a Api<DynamicObject>,
    name: &'a str,
) -> BoxFuture<'a, Result<Option<ObjectMeta>, kube::Error>> {
    async move {
        Ok(api
            .get_metadata_opt(name)
            .await?
            .map(|found| found.metadata))
    }
    .boxed()
}

fn patch<'a>(
    api: &'a Api<DynamicObject>,
    name: &'a str,
    patch: Patch<Value>,
) -> BoxFuture<'a, Result<(), kube::Error>> {
    async move {
        api.patch_metadata(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
    .boxed()
}

fn is_unsupported_patch(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 415)
}

/// Takes the references to these owners off the object.
async fn drop_owners(
    api: &Api<DynamicObject>,
    identity: &Identity,
    uids: &[String],
) -> Result<(), Error> {
    let references: Vec<Value> = uids
        .iter()
        .map(|uid| json!({ "$patch": "delete", "uid": uid }))
        .collect();
    let strategic =
        json!({ "metadata": { "uid": identity.uid.to_string(), "ownerReferences": references } });
    let keep = |owners: Vec<OwnerReference>| {
        let owners = owners.into_iter();
        owners.filter(|owner| !uids.contains(&owner.uid)).collect()
    };
    patch_owners(api, identity, strategic, keep).await
}

/// Makes the object block none of its owners any more.
async fn unblock(api: &Api<DynamicObject>, view: &View) -> Result<(), Error> {
    let references: Vec<Value> = view
        .owners
        .iter()
        .filter(|owner| owner.blocks)
        .map(|owner| {
            json!({
                "apiVersion": owner.kind.api_version, "kind": owner.kind.kind,
                "name": &*owner.name, "uid": owner.uid.to_string(), "blockOwnerDeletion": false,
            })
        })
        .collect();
    let strategic = json!({ "metadata": { "uid": view.identity.uid.to_string(), "ownerReferences": references } });
    let free = |owners: Vec<OwnerReference>| {
        let owners = owners.into_iter();
        owners
            .map(|owner| OwnerReference {
                block_owner_deletion: Some(false),
                ..owner
            })
            .collect()
    };
    patch_owners(api, &view.identity, strategic, free).await
}

/// Patches owner references strategically, or, where the kind is a custom one and knows no such
/// patches, as a whole.
async fn patch_owners(
    api: &Api<DynamicObject>,
    identity: &Identity,
    strategic: Value,
    next: impl FnOnce(Vec<OwnerReference>) -> Vec<OwnerReference>,
) -> Result<(), Error> {
    let name = &identity.name;
    match patch(api, name, Patch::Strategic(strategic)).await {
        Err(error) if is_unsupported_patch(&error) => {}
        other => {
            error::optional(other)?;
            return Ok(());
        }
    }
    let Some(latest) = get(api, name).await? else {
        return Ok(());
    };
    if !is(&latest, &identity.uid) {
        return Ok(());
    }
    let merge = json!({ "metadata": {
        "resourceVersion": latest.resource_version,
        "ownerReferences": next(latest.owner_references.unwrap_or_default()),
    }});
    error::optional(patch(api, name, Patch::Merge(merge)).await)?;
    Ok(())
}

async fn remove_finalizer(
    api: &Api<DynamicObject>,
    identity: &Identity,
    finalizer: &str,
) -> Result<(), Error> {
    for attempt in 1.. {
        let Some(mut latest) = get(api, &identity.name).await? else {
            return Ok(());
        };
        if !is(&latest, &identity.uid) {
            return Ok(());
        }
        let finalizers = latest.finalizers.get_or_insert_default();
        let count = finalizers.len();
        finalizers.retain(|one| one != finalizer);
        if finalizers.len() == count {
            return Ok(());
        }
        let merge = json!({ "metadata": {
            "resourceVersion": latest.resource_version,
            "finalizers": finalizers,
        }});
        match patch(api, &identity.name, Patch::Merge(merge)).await {
            Err(error) if error::is_conflict(&error) && attempt < ATTEMPTS => {}
            other => {
                error::optional(other)?;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Deletes the object as it was looked at, or as it is now if its owners are still the same.
/// Returns whether it was there.
async fn delete(
    api: &Api<DynamicObject>,
    identity: &Identity,
    latest: &ObjectMeta,
    policy: &PropagationPolicy,
) -> Result<bool, Error> {
    let mut version = latest.resource_version.clone();
    loop {
        let params = DeleteParams {
            propagation_policy: Some(policy.clone()),
            preconditions: Some(Preconditions {
                uid: Some(identity.uid.to_string()),
                resource_version: version.take(),
            }),
            ..DeleteParams::default()
        };
        let conditional = params
            .preconditions
            .as_ref()
            .is_some_and(|conditions| conditions.resource_version.is_some());
        match Box::pin(api.delete(&identity.name, &params)).await {
            Ok(_) => return Ok(true),
            Err(error) if error::is_not_found(&error) => return Ok(false),
            Err(error) if error::is_conflict(&error) && conditional => {
                let Some(live) = get(api, &identity.name).await? else {
                    return Ok(false);
                };
                let same = live.uid == latest.uid
                    && live.owner_references == latest.owner_references
                    && live.resource_version != latest.resource_version;
                if !same {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
