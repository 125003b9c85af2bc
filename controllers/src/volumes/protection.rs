//! A claim that a pod uses, and a volume that is bound, stay until that is over.
//!
//! Enter at [`claims`] and [`volumes`]. Upstream: `pkg/controller/volume/pvcprotection` and
//! `pvprotection`.

use coracle_client::{Informer, Queue};
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::ListParams};
use tokio_util::sync::CancellationToken;

use super::{claim_of, is_for};
use crate::{
    Context, Error,
    changes::{self, Seen},
    error,
    objects::{Kept, Objects},
    pods,
    work::{self, Done, Key},
};

const CLAIMS: &str = "persistentvolumeclaim-protection-controller";
const VOLUMES: &str = "persistentvolume-protection-controller";
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// What the finalizer of an object needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    Add,
    /// The object is to go: off with it, unless the object is used.
    Remove,
}

pub(super) fn need(meta: &ObjectMeta, finalizer: &str) -> Need {
    let there = meta.finalizers.iter().flatten().any(|one| one == finalizer);
    match (there, meta.deletion_timestamp.is_some()) {
        (true, true) => Need::Remove,
        (false, false) => Need::Add,
        _ => Need::Nothing,
    }
}

pub(super) async fn write<K: Kept>(
    objects: &Objects<K>,
    known: &K,
    finalizer: &str,
) -> Result<(), Error> {
    let mut next = known.clone();
    let finalizers = next.meta_mut().finalizers.get_or_insert_default();
    if finalizers.iter().any(|one| one == finalizer) {
        finalizers.retain(|one| one != finalizer);
    } else {
        finalizers.push(finalizer.to_owned());
    }
    error::optional(objects.replace(&next).await)?;
    Ok(())
}

/// Whether the pod, on its node, uses the claim.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    // Nothing starts any more with a claim that is being deleted: only what is on a node counts.
    let name = claim.metadata.name.as_deref();
    !pods::node_name(pod).is_empty()
        && pod.metadata.namespace == claim.metadata.namespace
        && super::volumes(pod).iter().any(|volume| {
            claim_of(pod, volume).as_deref() == name
                && (volume.persistent_volume_claim.is_some()
                    || (!pods::is_terminal(pod) && is_for(claim, pod)))
        })
}

/// Protects claims.
pub(crate) async fn claims(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let claims: Objects<PersistentVolumeClaim> = context.objects();
    let known: Informer<Pod> = context.informers.get();
    let queue: Queue<Key> = Queue::named("pvcprotection");
    let seen = changes::each(&claims.cache, |seen| {
        if let Seen::Applied { new: claim, .. } = seen
            && need(&claim.metadata, CLAIM_FINALIZER) != Need::Nothing
        {
            queue.add(Key::of(&claim.metadata));
        }
    });
    let queue_claims = |pod: &Pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for volume in super::volumes(pod) {
            if let Some(name) = claim_of(pod, volume) {
                queue.add(Key::new(namespace, name));
            }
        }
    };
    let pods = changes::each(&known, |seen| match seen {
        Seen::Deleted(pod) => queue_claims(&pod),
        Seen::Applied { new: pod, .. } if pods::is_terminal(&pod) => queue_claims(&pod),
        Seen::Applied { .. } => {}
        Seen::Lagged => {
            for claim in claims.cache.list() {
                queue.add(Key::of(&claim.metadata));
            }
        }
    });
    let workers = async {
        claims.cache.synced().await;
        known.synced().await;
        work::work(CLAIMS, &queue, 1, &shutdown, |key| {
            protect_claim(&context.client, &claims, &known, key)
        })
        .await;
    };
    tokio::select! {
        () = seen => {}
        () = pods => {}
        () = workers => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

async fn protect_claim(
    client: &Client,
    claims: &Objects<PersistentVolumeClaim>,
    known: &Informer<Pod>,
    key: Key,
) -> Result<Done, Error> {
    let Some(claim) = claims.get(&key.namespace, &key.name) else {
        return Ok(Done::Settled);
    };
    match need(&claim.metadata, CLAIM_FINALIZER) {
        Need::Nothing => return Ok(Done::Settled),
        Need::Add => {}
        Need::Remove => {
            let cached = known.list_namespace(&key.namespace);
            if cached.iter().any(|pod| uses(pod, &claim)) {
                return Ok(Done::Settled);
            }
            // A pod may have been put on its node a moment ago.
            let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
            let listed = Box::pin(api.list(&ListParams::default())).await?;
            if listed.iter().any(|pod| uses(pod, &claim)) {
                return Ok(Done::Retry);
            }
        }
    }
    write(claims, &*claim, CLAIM_FINALIZER).await?;
    Ok(Done::Settled)
}

/// Protects volumes.
pub(crate) async fn volumes(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let volumes: Objects<PersistentVolume> = context.objects();
    let queue: Queue<Key> = Queue::named("pvprotection");
    let seen = changes::each(&volumes.cache, |seen| {
        if let Seen::Applied { new: volume, .. } = seen
            && wants_change(&volume)
        {
            queue.add(Key::of(&volume.metadata));
        }
    });
    let workers = async {
        volumes.cache.synced().await;
        work::work(VOLUMES, &queue, 1, &shutdown, |key| {
            protect_volume(&volumes, key)
        })
        .await;
    };
    tokio::select! {
        () = seen => {}
        () = workers => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

async fn protect_volume(volumes: &Objects<PersistentVolume>, key: Key) -> Result<Done, Error> {
    let volume = volumes.get("", &key.name);
    if let Some(volume) = volume.filter(|volume| wants_change(volume)) {
        write(volumes, &*volume, VOLUME_FINALIZER).await?;
    }
    Ok(Done::Settled)
}

fn wants_change(volume: &PersistentVolume) -> bool {
    let status = volume.status.as_ref();
    let bound = status.and_then(|status| status.phase.as_deref()) == Some("Bound");
    match need(&volume.metadata, VOLUME_FINALIZER) {
        Need::Nothing => false,
        Need::Add => true,
        Need::Remove => !bound,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn finalizers_come_and_go() {
        let meta = |finalizers: &[&str], deleted: bool| -> ObjectMeta {
            parsed(json!({ "finalizers": finalizers,
                "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z") }))
        };
        let cases = [
            (meta(&[], false), Need::Add),
            (meta(&[], true), Need::Nothing),
            (meta(&["other"], false), Need::Add),
            (meta(&[CLAIM_FINALIZER], false), Need::Nothing),
            (meta(&["other", CLAIM_FINALIZER], true), Need::Remove),
        ];
        for (meta, expected) in cases {
            assert_eq!(need(&meta, CLAIM_FINALIZER), expected, "{meta:?}");
        }
    }

    #[test]
    fn a_bound_volume_stays() {
        let volume = |phase: &str| -> PersistentVolume {
            parsed(
                json!({ "metadata": { "name": "v", "finalizers": [VOLUME_FINALIZER],
                "deletionTimestamp": "2026-01-01T00:00:00Z" }, "status": { "phase": phase } }),
            )
        };
        assert!(!wants_change(&volume("Bound")));
        assert!(wants_change(&volume("Released")));
    }

    #[test]
    fn pods_on_nodes_use_their_claims() {
        let claim: PersistentVolumeClaim = parsed(json!({ "metadata": {
            "name": "p-data", "namespace": "ns", "ownerReferences": [{ "apiVersion": "v1",
                "kind": "Pod", "name": "p", "uid": "p", "controller": true }] } }));
        let pod = |node: &str, phase: &str, volume: Value| -> Pod {
            parsed(json!({
                "metadata": { "name": "p", "namespace": "ns", "uid": "p" },
                "spec": { "nodeName": node, "containers": [], "volumes": [volume] },
                "status": { "phase": phase },
            }))
        };
        let named = || json!({ "name": "x", "persistentVolumeClaim": { "claimName": "p-data" } });
        let made = || json!({ "name": "data", "ephemeral": {} });
        let other = || json!({ "name": "x", "persistentVolumeClaim": { "claimName": "other" } });
        let cases = [
            (pod("n", "Running", named()), true),
            (pod("n", "Succeeded", named()), true),
            (pod("", "Pending", named()), false),
            (pod("n", "Running", other()), false),
            (pod("n", "Running", made()), true),
            (pod("n", "Failed", made()), false),
        ];
        for (pod, expected) in cases {
            assert_eq!(uses(&pod, &claim), expected, "{pod:?}");
        }
    }
}
