//! ResourceClaims of pods: makes those that pods ask for by template, reserves allocated ones for
//! pods that were given their node by hand, and takes reservations back from pods that are gone or
//! will not run, so that the devices are free again.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/resourceclaim`, without its alpha parts.

use std::collections::BTreeMap;

use coracle_client::{EventRecorder, EventType, Informer, Queue};
use k8s_openapi::{
    api::{
        core::v1::{Pod, PodResourceClaim},
        resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

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
/// Which of the pod's claims a generated one is.
const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// Leaves room for a hyphen and five random characters in a name of 63.
const LONGEST_BASE: usize = 57;
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

fn pod_claims(pod: &Pod) -> &[PodResourceClaim] {
    let claims = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.resource_claims.as_deref());
    claims.unwrap_or_default()
}

/// What the pod's claim is called.
#[derive(Debug, PartialEq, Eq)]
enum Called<'a> {
    Name(&'a str),
    /// It was found that the pod needs none.
    NotNeeded,
    /// Nobody has made it yet.
    NotMade,
}

fn called<'a>(pod: &'a Pod, claim: &'a PodResourceClaim) -> Called<'a> {
    if let Some(name) = &claim.resource_claim_name {
        return Called::Name(name);
    }
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.resource_claim_statuses.as_ref());
    let mut statuses = statuses.into_iter().flatten();
    match statuses.find(|status| status.name == claim.name) {
        None => Called::NotMade,
        Some(status) => match &status.resource_claim_name {
            Some(name) => Called::Name(name),
            None => Called::NotNeeded,
        },
    }
}

/// The names of the claims that the pod uses, also of the one that the scheduler made for it.
pub(crate) fn names(pod: &Pod) -> Vec<&str> {
    let extended = pod
        .status
        .as_ref()
        .and_then(|status| status.extended_resource_claim_status.as_ref());
    let named = pod_claims(pod)
        .iter()
        .filter_map(|claim| match called(pod, claim) {
            Called::Name(name) => Some(name),
            _ => None,
        });
    named
        .chain(extended.map(|status| status.resource_claim_name.as_str()))
        .collect()
}

/// Whether the pod has ended, or goes without ever having had a node.
fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || pods::is_terminating(pod) && pods::node_name(pod).is_empty()
}

fn is_of(claim: &ResourceClaim, pod: &Pod) -> bool {
    owner::is_controlled_by(&claim.metadata, &pod.metadata)
}

pub(crate) fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    let status = claim.status.as_ref();
    let consumers = status.and_then(|status| status.reserved_for.as_deref());
    consumers.unwrap_or_default()
}

fn is_allocated(claim: &ResourceClaim) -> bool {
    let status = claim.status.as_ref();
    status.is_some_and(|status| status.allocation.is_some())
}

pub(crate) fn is_pod(consumer: &ResourceClaimConsumerReference) -> bool {
    consumer.resource == "pods" && consumer.api_group.as_deref().unwrap_or_default().is_empty()
}

/// What the name of a claim begins with. When it is too long, both parts are cut in proportion.
fn base_of_name(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= LONGEST_BASE {
        return whole;
    }
    let cut = |part: &str| part[..part.len() * LONGEST_BASE / whole.len()].to_owned();
    format!("{}-{}", cut(pod), cut(claim))
}

fn from_template(
    pod: &Pod,
    claim: &PodResourceClaim,
    template: &ResourceClaimTemplate,
) -> ResourceClaim {
    let meta = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM.to_owned(), claim.name.clone());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base_of_name(&pod.name_any(), &claim.name)),
            namespace: pod.metadata.namespace.clone(),
            annotations: Some(annotations),
            labels: meta.labels,
            owner_references: Some(vec![OwnerReference {
                // As upstream's: the pod does not wait for its claim.
                block_owner_deletion: None,
                ..owner::controller_reference(pod)
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn a_claim_has_the_name_that_spec_or_status_tell() {
        let pod = pod(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "resourceClaims": [
                {"name": "own", "resourceClaimName": "shared"},
                {"name": "made", "resourceClaimTemplateName": "t"},
                {"name": "not-needed", "resourceClaimTemplateName": "t"},
                {"name": "not-made", "resourceClaimTemplateName": "t"},
            ]},
            "status": {
                "resourceClaimStatuses": [
                    {"name": "made", "resourceClaimName": "p-made-x"},
                    {"name": "not-needed"},
                ],
                "extendedResourceClaimStatus": {
                    "resourceClaimName": "extended",
                    "requestMappings": [],
                },
            },
        }));
        let found: Vec<_> = pod_claims(&pod)
            .iter()
            .map(|claim| called(&pod, claim))
            .collect();
        let wanted = [
            Called::Name("shared"),
            Called::Name("p-made-x"),
            Called::NotNeeded,
            Called::NotMade,
        ];
        assert_eq!(found, wanted);
        assert_eq!(names(&pod), ["shared", "p-made-x", "extended"]);
    }

    #[test]
    fn long_names_are_cut_in_proportion() {
        assert_eq!(base_of_name("pod", "claim"), "pod-claim-");
        let cut = base_of_name(&"p".repeat(90), &"c".repeat(30));
        assert_eq!(cut, format!("{}-{}", "p".repeat(42), "c".repeat(14)));
        assert!(cut.len() <= LONGEST_BASE);
    }

    #[test]
    fn a_pod_is_done_when_it_has_ended_or_never_gets_a_node() {
        let cases = [
            (json!({"status": {"phase": "Running"}}), false),
            (json!({"status": {"phase": "Succeeded"}}), true),
            (json!({"status": {"phase": "Failed"}}), true),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                true,
            ),
            (
                json!({
                    "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
                    "spec": {"containers": [], "nodeName": "n"},
                }),
                false,
            ),
        ];
        for (value, done) in cases {
            assert_eq!(is_done(&pod(value.clone())), done, "{value}");
        }
    }

    #[test]
    fn a_claim_from_a_template_belongs_to_the_pod() {
        let pod = pod(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}}));
        let wanted = PodResourceClaim {
            name: "gpu".to_owned(),
            resource_claim_template_name: Some("t".to_owned()),
            ..PodResourceClaim::default()
        };
        let template: ResourceClaimTemplate = serde_json::from_value(json!({
            "metadata": {"name": "t"},
            "spec": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"devices": {"requests": [
                    {"name": "r", "exactly": {"deviceClassName": "gpu"}}
                ]}},
            },
        }))
        .expect("a template");
        let claim = from_template(&pod, &wanted, &template);
        assert!(is_of(&claim, &pod));
        assert_eq!(claim.annotations()[POD_CLAIM], "gpu");
        assert_eq!(claim.labels()["a"], "b");
        assert_eq!(claim.spec, template.spec.spec);
    }
}
