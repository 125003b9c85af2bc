//! Claims for the ephemeral volumes of pods: each has the pod as its owner and goes with it.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/volume/ephemeral`.

use coracle_client::{EventRecorder, EventType, Informer, Queue};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;
use tokio_util::sync::CancellationToken;

use super::{claim_of, is_for};
use crate::{
    Context, Error,
    changes::{self, Seen},
    error,
    objects::Objects,
    owner,
    work::{self, Done, Key},
};

const NAME: &str = "ephemeral_volume";
const WORKERS: usize = 5;

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        pods: context.informers.get(),
        claims: context.objects(),
        recorder: context.recorder(NAME),
        queue: Queue::named("ephemeral_volume"),
    };
    controller.run(shutdown).await
}

struct Controller {
    pods: Informer<Pod>,
    claims: Objects<PersistentVolumeClaim>,
    recorder: EventRecorder,
    queue: Queue<Key>,
}

fn needs_claims(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && super::volumes(pod)
            .iter()
            .any(|volume| volume.ephemeral.is_some())
}

/// The claim of one volume; `None` for a volume of another sort.
fn claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let meta = template.metadata.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: claim_of(pod, volume).map(std::borrow::Cow::into_owned),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![owner::controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let pods = changes::each(&self.pods, |seen| {
            if let Seen::Applied { new: pod, .. } = seen
                && needs_claims(&pod)
            {
                self.queue.add(Key::of(&pod.metadata));
            }
        });
        // One that somebody deletes is made again.
        let claims = changes::each(&self.claims.cache, |seen| {
            if let Seen::Deleted(claim) = seen
                && let Some(pod) = owner::resolve(&self.pods, &claim.metadata)
            {
                self.queue.add(Key::of(&pod.metadata));
            }
        });
        let workers = async {
            self.pods.synced().await;
            self.claims.cache.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = pods => {}
            () = claims => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let pod = self.pods.get(&key.namespace, &key.name);
        let Some(pod) = pod.filter(|pod| needs_claims(pod)) else {
            return Ok(Done::Settled);
        };
        for volume in super::volumes(&pod) {
            let Some(claim) = claim(&pod, volume) else {
                continue;
            };
            if let Err(error) = self.claim(&pod, &claim).await {
                let message = format!("ephemeral volume {}: {error}", volume.name);
                self.recorder
                    .on(&*pod, EventType::Warning, "FailedBinding", message);
                return Err(error);
            }
        }
        Ok(Done::Settled)
    }

    /// Makes the claim, if it is not there.
    async fn claim(&self, pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        if let Some(known) = self.claims.get(namespace, name) {
            if is_for(&known, pod) {
                return Ok(());
            }
            return Err(Error::Refused(format!(
                "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
                pod.name_any()
            )));
        }
        match self.claims.create(claim).await {
            Err(error) if !error::is_namespace_terminating(&error) => {
                Err(Error::doing(format!("create PVC {name}"))(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_claim_is_named_after_pod_and_volume() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
            "spec": { "containers": [], "volumes": [
                { "name": "a", "emptyDir": {} },
                { "name": "b", "ephemeral": { "volumeClaimTemplate": {
                    "metadata": { "labels": { "x": "y" } },
                    "spec": { "storageClassName": "gold" } } } },
            ] },
        }))
        .expect("a pod");
        assert!(needs_claims(&pod));
        let made: Vec<_> = super::super::volumes(&pod)
            .iter()
            .filter_map(|volume| claim(&pod, volume))
            .collect();
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].metadata.name.as_deref(), Some("p-b"));
        assert!(is_for(&made[0], &pod));
        let spec = made[0].spec.as_ref().expect("a spec");
        assert_eq!(spec.storage_class_name.as_deref(), Some("gold"));
    }
}
