//! ResourceClaims of pods: makes those that pods ask for by template, reserves allocated ones for
//! pods that were given their node by hand, and takes reservations back from pods that are gone or
//! will not run, so that the devices are free again.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/resourceclaim`, without its alpha parts.

mod claims;

use std::collections::BTreeMap;

use coracle_client::{EventRecorder, EventType, Informer, Queue};
use k8s_openapi::api::{
    core::v1::{Pod, PodResourceClaim},
    resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use claims::{Called, POD_CLAIM, called, from_template, is_allocated, is_done, is_of, pod_claims};
pub(crate) use claims::{consumers, is_pod, names};

use crate::{
    Context, Error,
    changes::{self, Seen},
    error,
    objects::Objects,
    owner, pods,
    work::{self, Done, Key},
};

const NAME: &str = "resource_claim";
const WORKERS: usize = 10;
const FIELD_MANAGER: &str = "ResourceClaimController";
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How many consumers a claim has at most.
const MOST_CONSUMERS: usize = 256;

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        pods: context.objects(),
        claims: context.objects(),
        templates: context.informers.get(),
        recorder: context.recorder(NAME),
        pod_queue: Queue::named("resource_claim"),
        claim_queue: Queue::named("resource_claim"),
    };
    controller.run(shutdown).await
}

struct Controller {
    pods: Objects<Pod>,
    claims: Objects<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    recorder: EventRecorder,
    pod_queue: Queue<Key>,
    claim_queue: Queue<Key>,
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let pods = changes::each(&self.pods.cache, |seen| match seen {
            Seen::Applied { new: pod, .. } => self.pod_seen(&pod, is_done(&pod)),
            Seen::Deleted(pod) => self.pod_seen(&pod, true),
            Seen::Lagged => self.look_at_all_claims(),
        });
        let claims = changes::each(&self.claims.cache, |seen| match seen {
            Seen::Applied { new: claim, .. } => {
                self.claim_queue.add(Key::of(&claim.metadata));
                self.look_at_users(&claim);
            }
            Seen::Deleted(claim) => self.look_at_users(&claim),
            Seen::Lagged => {}
        });
        let templates = changes::each(&self.templates, |seen| {
            if let Seen::Applied { new: template, .. } = seen {
                self.look_at_askers(&template);
            }
        });
        let workers = async {
            self.pods.cache.synced().await;
            self.claims.cache.synced().await;
            self.templates.synced().await;
            let (pods, claims) = (&self.pod_queue, &self.claim_queue);
            futures::join!(
                work::work(NAME, pods, WORKERS, &shutdown, |key| self.sync_pod(key)),
                work::work(NAME, claims, WORKERS, &shutdown, |key| self.sync_claim(key)),
            );
        };
        tokio::select! {
            () = pods => {}
            () = claims => {}
            () = templates => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    fn pod_seen(&self, pod: &Pod, done: bool) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        if done {
            for name in names(pod) {
                self.claim_queue.add(Key::new(namespace, name));
            }
        }
        if !pod_claims(pod).is_empty() {
            self.pod_queue.add(Key::of(&pod.metadata));
        }
    }

    fn look_at_all_claims(&self) {
        for claim in self.claims.cache.list() {
            self.claim_queue.add(Key::of(&claim.metadata));
        }
    }

    /// The pods that use the claim, or for which it was made.
    fn look_at_users(&self, claim: &ResourceClaim) {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.name_any();
        for pod in self.pods.cache.list_namespace(namespace) {
            if is_of(claim, &pod) || names(&pod).contains(&name.as_str()) {
                self.pod_queue.add(Key::of(&pod.metadata));
            }
        }
    }

    fn look_at_askers(&self, template: &ResourceClaimTemplate) {
        let namespace = template.metadata.namespace.as_deref().unwrap_or_default();
        let name = template.metadata.name.as_deref();
        for pod in self.pods.cache.list_namespace(namespace) {
            let mut claims = pod_claims(&pod).iter();
            if claims.any(|claim| claim.resource_claim_template_name.as_deref() == name) {
                self.pod_queue.add(Key::of(&pod.metadata));
            }
        }
    }

    async fn sync_pod(&self, key: Key) -> Result<Done, Error> {
        let pod = self.pods.get(&key.namespace, &key.name);
        let Some(pod) = pod.filter(|pod| !pods::is_terminating(pod)) else {
            return Ok(Done::Settled);
        };
        // All are told together: what is left out of an applied configuration goes.
        let (mut told, mut changed) = (BTreeMap::new(), false);
        for claim in pod_claims(&pod) {
            match self.make(&pod, claim).await {
                Ok(Some(name)) => {
                    told.insert(claim.name.as_str(), name);
                    changed = true;
                }
                Ok(None) => {
                    if let (Called::Name(name), None) =
                        (called(&pod, claim), &claim.resource_claim_name)
                    {
                        told.insert(claim.name.as_str(), name.to_owned());
                    }
                }
                Err(error) => {
                    let message = format!("PodResourceClaim {}: {error}", claim.name);
                    let reason = "FailedResourceClaimCreation";
                    self.recorder.on(&*pod, EventType::Warning, reason, message);
                    return Err(error);
                }
            }
        }
        if changed {
            self.report(&pod, &told).await?;
            // The pod is seen again with these names.
            return Ok(Done::Settled);
        }
        if !pods::node_name(&pod).is_empty() {
            self.reserve_all(&pod).await?;
        }
        Ok(Done::Settled)
    }

    /// Returns the name of the claim, if the pod's status does not tell it.
    async fn make(&self, pod: &Pod, wanted: &PodResourceClaim) -> Result<Option<String>, Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let Some(template) = &wanted.resource_claim_template_name else {
            return Ok(None);
        };
        match called(pod, wanted) {
            Called::NotNeeded => return Ok(None),
            Called::Name(name) => {
                let known = self.claims.get(namespace, name);
                if known.is_some_and(|known| is_of(&known, pod)) {
                    return Ok(None);
                }
            }
            Called::NotMade => {}
        }
        // One that was made before, and the status did not come to tell it.
        let uid = pod.uid().unwrap_or_default();
        let mut owned = self.claims.cache.controlled_by(&uid).into_iter();
        if let Some(known) =
            owned.find(|known| known.annotations().get(POD_CLAIM) == Some(&wanted.name))
        {
            return Ok(Some(known.name_any()));
        }
        let Some(found) = self.templates.get(namespace, template) else {
            return Err(Error::Refused(format!(
                "resource claim template \"{template}\": resourceclaimtemplate.resource.k8s.io \
                 \"{template}\" not found"
            )));
        };
        let claim = from_template(pod, wanted, &found);
        match self.claims.create(&claim).await {
            Ok(created) => Ok(Some(created.name_any())),
            Err(error) if error::is_namespace_terminating(&error) => Ok(None),
            Err(error) => Err(Error::doing("create ResourceClaim")(error)),
        }
    }

    async fn report(&self, pod: &Pod, told: &BTreeMap<&str, String>) -> Result<(), Error> {
        let statuses: Vec<_> = told
            .iter()
            .map(|(name, claim)| json!({"name": name, "resourceClaimName": claim}))
            .collect();
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let patch = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()},
            "status": {"resourceClaimStatuses": statuses},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self
            .pods
            .api(&namespace)
            .patch_status(&name, &params, &Patch::Apply(patch))
            .await;
        if let Some(written) = error::optional(written)? {
            let version = written.resource_version().unwrap_or_default();
            self.pods.cache.reached(&version).await;
        }
        Ok(())
    }

    /// The scheduler reserves claims, but not for pods that it has not given their node.
    async fn reserve_all(&self, pod: &Pod) -> Result<(), Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = pod.uid().unwrap_or_default();
        for wanted in pod_claims(pod) {
            let Called::Name(name) = called(pod, wanted) else {
                continue;
            };
            let Some(claim) = self.claims.get(namespace, name) else {
                return Ok(());
            };
            let reserved = consumers(&claim).iter().any(|consumer| consumer.uid == uid);
            if !is_allocated(&claim) || reserved || consumers(&claim).len() >= MOST_CONSUMERS {
                continue;
            }
            let mut claim = (*claim).clone();
            let status = claim.status.get_or_insert_default();
            let reservation = ResourceClaimConsumerReference {
                api_group: None,
                resource: "pods".to_owned(),
                name: pod.name_any(),
                uid: uid.clone(),
            };
            status
                .reserved_for
                .get_or_insert_default()
                .push(reservation);
            let written = self.claims.replace_status(&claim).await;
            written.map_err(Error::doing(format!("reserve claim {namespace}/{name}")))?;
        }
        Ok(())
    }

    async fn sync_claim(&self, key: Key) -> Result<Done, Error> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        let mut remaining = Vec::new();
        for consumer in consumers(&claim) {
            if !is_pod(consumer) || self.may_run(&key.namespace, consumer).await? {
                remaining.push(consumer.clone());
            }
        }
        let unused = remaining.is_empty();
        let fewer = remaining.len() < consumers(&claim).len();
        if fewer || unused && claim.metadata.deletion_timestamp.is_some() {
            self.release((*claim).clone(), remaining).await?;
        }
        if unused {
            self.delete_unneeded(&key, &claim).await?;
        }
        Ok(Done::Settled)
    }

    /// Whether a claim stays reserved for the pod. What the cache does not know may be too new.
    async fn may_run(
        &self,
        namespace: &str,
        consumer: &ResourceClaimConsumerReference,
    ) -> Result<bool, Error> {
        if let Some(pod) = self.pods.get(namespace, &consumer.name) {
            return Ok(pod.uid().as_ref() == Some(&consumer.uid) && !is_done(&pod));
        }
        let stored = self.pods.read(namespace, &consumer.name).await?;
        Ok(stored.is_some_and(|pod| pod.uid().as_ref() == Some(&consumer.uid)))
    }

    /// Leaves these consumers; without any, what was allocated is free and the claim may go.
    async fn release(
        &self,
        mut claim: ResourceClaim,
        remaining: Vec<ResourceClaimConsumerReference>,
    ) -> Result<(), Error> {
        let protected = claim.finalizers().iter().any(|name| name == FINALIZER);
        let before = claim.status.take().unwrap_or_default();
        let mut status = before.clone();
        if remaining.is_empty() && protected {
            status.allocation = None;
        }
        status.reserved_for = (!remaining.is_empty()).then_some(remaining);
        let changed = status != before;
        claim.status = Some(status);
        if changed {
            let Some(written) = self.claims.replace_status(&claim).await? else {
                return Ok(());
            };
            claim = written;
        }
        if protected && !is_allocated(&claim) {
            claim
                .finalizers_mut()
                .retain(|finalizer| finalizer != FINALIZER);
            error::optional(self.claims.replace(&claim).await)?;
        }
        Ok(())
    }

    /// A claim that was made for a pod that will not run goes before the pod does.
    async fn delete_unneeded(&self, key: &Key, claim: &ResourceClaim) -> Result<(), Error> {
        let owner = owner::controller_of(&claim.metadata);
        let Some(owner) = owner.filter(|owner| owner.api_version == "v1" && owner.kind == "Pod")
        else {
            return Ok(());
        };
        // One that is not known yet, or is gone, is left to the garbage collector.
        let Some(pod) = self.pods.get(&key.namespace, &owner.name) else {
            return Ok(());
        };
        if claim.metadata.deletion_timestamp.is_none()
            && (pod.uid().as_ref() != Some(&owner.uid) || is_done(&pod))
        {
            self.claims.delete(claim, DeleteParams::default()).await?;
        }
        Ok(())
    }
}
