//! Pods as the workload controllers see them: active, ready, available; made from a template and
//! deleted, with upstream's events.

use std::{sync::Arc, time::Duration};

use coracle_client::{EventRecorder, EventType};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::{
    Resource, ResourceExt as _,
    api::{DeleteParams, Patch},
};
use serde_json::json;

use crate::{Error, conditions, error, objects::Objects};

pub(crate) fn phase(pod: &Pod) -> &str {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase.unwrap_or_default()
}

pub(crate) fn node_name(pod: &Pod) -> &str {
    let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    name.unwrap_or_default()
}

/// Its containers have ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither ended nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Being deleted and not yet ended.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_some()
}

pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let status = pod.status.as_ref()?;
    conditions::find(status.conditions.as_ref(), type_)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod is ready. `None` when it is not, or does not say.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready")
        .filter(|ready| ready.status == "True")
        .and_then(|ready| ready.last_transition_time.as_ref())
        .map(|time| time.0)
}

/// When a ready pod becomes, or became, available. `None` when it is not ready.
fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if min_ready_seconds <= 0 {
        return is_ready(pod).then_some(Timestamp::MIN);
    }
    let wait = jiff::SignedDuration::from_secs(i64::from(min_ready_seconds));
    ready_since(pod)?.checked_add(wait).ok()
}

/// Ready for at least `min_ready_seconds`.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

/// After how long the first of these pods, ready already, becomes available.
pub(crate) fn next_available(
    pods: &[Arc<Pod>],
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    let times = pods
        .iter()
        .filter_map(|pod| available_at(pod, min_ready_seconds));
    let next = times.filter(|at| *at > now).min()?;
    Duration::try_from(next.duration_since(now)).ok()
}

/// The most restarts of one container, and of one sidecar.
pub(crate) fn restarts(pod: &Pod) -> (i32, i32) {
    let status = pod.status.as_ref();
    let most = |statuses: Option<&Vec<ContainerStatus>>, counts: &dyn Fn(&str) -> bool| {
        let statuses = statuses.into_iter().flatten();
        statuses
            .filter(|status| counts(&status.name))
            .map(|status| status.restart_count)
            .max()
            .unwrap_or(0)
    };
    let init = pod.spec.iter().flat_map(|spec| &spec.init_containers);
    let sidecars: Vec<&str> = init
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    (
        most(
            status.and_then(|status| status.container_statuses.as_ref()),
            &|_| true,
        ),
        most(
            status.and_then(|status| status.init_container_statuses.as_ref()),
            &|name| sidecars.contains(&name),
        ),
    )
}

/// A pod as the template says, owned as the reference says. Its name is generated from the prefix.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    owner: &ObjectMeta,
    reference: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: owner.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            generate_name: owner.name.as_deref().map(name_prefix),
            owner_references: Some(vec![reference]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `name-`, or the name itself where the dash would make names that are not valid.
fn name_prefix(name: &str) -> String {
    // A name that fills the whole length of a DNS subdomain leaves no room for the dash.
    if name.len() < 253 {
        format!("{name}-")
    } else {
        name.to_owned()
    }
}

/// Why a pod is deleted that its owner did not delete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disruption {
    /// In upper camel case.
    pub reason: &'static str,
    pub message: &'static str,
}

/// The pod's status with the condition that says it is about to be deleted; `None` when it says so
/// already.
pub(crate) fn disrupted(pod: &Pod, disruption: &Disruption, now: Timestamp) -> Option<PodStatus> {
    const TARGET: &str = "DisruptionTarget";
    let known = condition(pod, TARGET);
    let since = known
        .filter(|known| known.status == "True")
        .and_then(|known| known.last_transition_time.clone());
    let next = PodCondition {
        type_: TARGET.to_owned(),
        status: "True".to_owned(),
        reason: Some(disruption.reason.to_owned()),
        message: Some(disruption.message.to_owned()),
        last_transition_time: Some(since.unwrap_or(Time(conditions::to_seconds(now)))),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    };
    if known == Some(&next) {
        return None;
    }
    let mut status = pod.status.clone().unwrap_or_default();
    conditions::put(&mut status.conditions, next);
    Some(status)
}

/// Says on the pod why it is about to be deleted, and deletes it. One that is gone is left alone.
pub(crate) async fn evict(
    pods: &Objects<Pod>,
    pod: &Pod,
    disruption: &Disruption,
) -> Result<(), Error> {
    if let Some(status) = disrupted(pod, disruption, Timestamp::now()) {
        let marked = patch_status(pods, pod, status).await;
        if error::optional(marked)?.is_none() {
            return Ok(());
        }
    }
    pods.delete(pod, DeleteParams::default()).await?;
    Ok(())
}

/// Writes phase and conditions of the status, onto exactly this pod.
pub(crate) async fn patch_status(
    pods: &Objects<Pod>,
    pod: &Pod,
    status: PodStatus,
) -> Result<Pod, kube::Error> {
    let patch = json!({
        "metadata": { "uid": pod.metadata.uid },
        "status": {
            "phase": status.phase,
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
        },
    });
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    pods.patch_status(namespace, name, Patch::Strategic(patch))
        .await
}

/// Creates and deletes pods in the name of one controller, and tells their owner's events.
#[derive(Clone)]
pub(crate) struct PodControl {
    pub recorder: EventRecorder,
    pub pods: Objects<Pod>,
}

impl PodControl {
    /// Creates the pod, which names its namespace.
    pub async fn create<O>(&self, owner: &O, pod: &Pod) -> Result<Pod, kube::Error>
    where
        O: Resource<DynamicType = ()>,
    {
        let created = self.pods.create(pod).await;
        match &created {
            Ok(pod) => {
                let message = format!("Created pod: {}", pod.name_any());
                self.recorder
                    .on(owner, EventType::Normal, "SuccessfulCreate", message);
            }
            Err(error) if error::is_namespace_terminating(error) => {}
            Err(error) => {
                let message = format!("Error creating: {}", error::message(error));
                self.recorder
                    .on(owner, EventType::Warning, "FailedCreate", message);
            }
        }
        created
    }

    /// Deletes the pod, unless it is gone or another one by now.
    pub async fn delete<O>(&self, owner: &O, pod: &Pod) -> Result<(), Error>
    where
        O: Resource<DynamicType = ()>,
    {
        match self.pods.delete(pod, DeleteParams::default()).await {
            Ok(true) => {
                let message = format!("Deleted pod: {}", pod.name_any());
                self.recorder
                    .on(owner, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                let message = format!("Error deleting: {}", error::message(&error));
                self.recorder
                    .on(owner, EventType::Warning, "FailedDelete", message);
                Err(Error::doing("unable to delete pods")(error))
            }
        }
    }
}
