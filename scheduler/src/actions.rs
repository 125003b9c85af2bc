//! What the scheduler does through the API: bind, report failure, preempt.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Binding, ContainerExtendedResourceRequest, ObjectReference, Pod, PodCondition,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use coracle_client::{EventRecorder, EventType};

use crate::pod::PodInfo;

/// The longest text of an event, in bytes.
const EVENT_BYTES: usize = 1024;

/// Writes to the API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Actions {
    pub client: Client,
    pub recorder: EventRecorder,
}

/// What to do with the node that a pod is nominated for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nomination {
    Keep,
    Set(String),
    Clear,
}

impl Actions {
    fn pods(&self, pod: &PodInfo) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.namespace())
    }

    /// Binds the pod to the node and records that.
    pub async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
        let binding = Binding {
            metadata: ObjectMeta {
                namespace: Some(pod.namespace().to_owned()),
                name: Some(pod.name().to_owned()),
                uid: Some(pod.uid().to_owned()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let parameters = PostParams::default();
        self.pods(pod)
            .create_subresource::<Binding, Value>("binding", pod.name(), &parameters, &binding)
            .await?;
        let (namespace, name) = (pod.namespace(), pod.name());
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        self.recorder
            .on(&*pod.pod, EventType::Normal, "Scheduled", message);
        Ok(())
    }

    /// Says on which node the pod is going to be, when it takes a while until it is. Nothing
    /// depends on that.
    pub async fn announce(&self, pod: &PodInfo, node: &str) {
        let nomination = Nomination::Set(node.to_owned());
        let Some(status) = status_patch(pod, None, &nomination) else {
            return;
        };
        if let Err(error) = self.patch_status(pod, status).await {
            tracing::debug!(pod = %pod.key, %error, "cannot set the nominated node");
        }
    }

    /// Says which claim was made for the pod's extended resources.
    pub async fn set_extended_claim(
        &self,
        pod: &PodInfo,
        claim: &str,
        mappings: &[ContainerExtendedResourceRequest],
    ) -> Result<(), kube::Error> {
        let status = json!({ "extendedResourceClaimStatus": {
            "resourceClaimName": claim,
            "requestMappings": mappings,
        } });
        self.patch_status(pod, status).await
    }

    /// Records that the pod could not be scheduled.
    pub fn record_failure(&self, pod: &PodInfo, message: &str) {
        let message = truncated(message);
        self.recorder
            .on(&*pod.pod, EventType::Warning, "FailedScheduling", message);
    }

    /// Writes the condition `PodScheduled` and the nomination, if that changes anything.
    pub async fn report(
        &self,
        pod: &PodInfo,
        condition: PodCondition,
        nomination: &Nomination,
    ) -> Result<(), kube::Error> {
        let Some(status) = status_patch(pod, Some(condition), nomination) else {
            return Ok(());
        };
        self.patch_status(pod, status).await
    }

    /// Asks the victims to go, the last one last: its going is what the preemptor waits for.
    pub async fn preempt(
        &self,
        preemptor: &PodInfo,
        node: &str,
        victims: &[Arc<PodInfo>],
        void: &[Arc<PodInfo>],
    ) -> Result<(), kube::Error> {
        for pod in void {
            if let Some(status) = status_patch(pod, None, &Nomination::Clear) {
                ignore_missing(self.patch_status(pod, status).await)?;
            }
        }
        for victim in victims {
            if victim.is_terminating() {
                continue;
            }
            if let Err(error) = self.evict(preemptor, victim).await {
                ignore_missing(Err(error))?;
                continue;
            }
            self.record_preempted(preemptor, node, victim, "");
        }
        Ok(())
    }

    /// Records that the victim had to make room; `how` ends the text.
    pub fn record_preempted(&self, preemptor: &PodInfo, node: &str, victim: &PodInfo, how: &str) {
        let message = format!("Preempted by pod {} on node {node}{how}", preemptor.uid());
        self.recorder
            .on(&*victim.pod, EventType::Normal, "Preempted", message);
    }

    async fn evict(&self, preemptor: &PodInfo, victim: &PodInfo) -> Result<(), kube::Error> {
        let spec = preemptor.pod.spec.as_ref();
        let scheduler = spec.and_then(|spec| spec.scheduler_name.as_deref());
        let scheduler = scheduler.unwrap_or_default();
        let condition = condition(
            victim,
            "DisruptionTarget",
            "True",
            "PreemptionByScheduler",
            &format!("{scheduler}: preempting to accommodate a higher priority pod"),
        );
        if let Some(status) = status_patch(victim, Some(condition), &Nomination::Keep) {
            self.patch_status(victim, status).await?;
        }
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(victim.uid().to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.pods(victim).delete(victim.name(), &parameters).await?;
        Ok(())
    }

    async fn patch_status(&self, pod: &PodInfo, status: Value) -> Result<(), kube::Error> {
        let patch = Patch::Strategic(json!({
            "metadata": { "uid": pod.uid() },
            "status": status,
        }));
        self.pods(pod)
            .patch_status(pod.name(), &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}

/// A condition as of now.
pub(crate) fn condition(
    pod: &PodInfo,
    condition_type: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> PodCondition {
    PodCondition {
        type_: condition_type.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        observed_generation: pod.pod.metadata.generation,
        last_probe_time: None,
        last_transition_time: Some(Time(Timestamp::now())),
    }
}

/// The change of the status, or `None` when the pod has it already.
fn status_patch(
    pod: &PodInfo,
    condition: Option<PodCondition>,
    nomination: &Nomination,
) -> Option<Value> {
    let mut status = serde_json::Map::new();
    if let Some(condition) = condition.and_then(|condition| changed(pod, condition)) {
        let mut condition = json!(condition);
        condition["lastProbeTime"] = Value::Null;
        status.insert("conditions".to_owned(), json!([condition]));
    }
    let current = pod.nominated_node_name();
    match nomination {
        Nomination::Set(node) if node != current => {
            status.insert("nominatedNodeName".to_owned(), json!(node));
        }
        Nomination::Clear if !current.is_empty() => {
            status.insert("nominatedNodeName".to_owned(), Value::Null);
        }
        _ => {}
    }
    (!status.is_empty()).then_some(Value::Object(status))
}

/// The condition as it is to be written; the time of the last transition stays when the status
/// does. `None` when the pod has it already.
fn changed(pod: &PodInfo, mut condition: PodCondition) -> Option<PodCondition> {
    let status = pod.pod.status.as_ref();
    let mut known = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    let Some(known) = known.find(|known| known.type_ == condition.type_) else {
        return Some(condition);
    };
    if known.status == condition.status {
        condition.last_transition_time = known.last_transition_time.clone();
    }
    (*known != condition).then_some(condition)
}

/// What is gone already needs nothing done to it.
fn ignore_missing(outcome: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

fn truncated(message: &str) -> String {
    const END: &str = " ...";
    if message.len() <= EVENT_BYTES {
        return message.to_owned();
    }
    let at = message.floor_char_boundary(EVENT_BYTES - END.len());
    format!("{}{END}", &message[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn only_what_changes_is_written() {
        let unschedulable = |message: &str| {
            let pod = pod(json!({}));
            condition(&pod, "PodScheduled", "False", "Unschedulable", message)
        };
        let mut known = unschedulable("m");
        known.last_transition_time = Some(Time(Timestamp::UNIX_EPOCH));
        let pod = pod(json!({"status": {"conditions": [known], "nominatedNodeName": "n"}}));
        let patch = |message: &str, nomination: Nomination| {
            status_patch(&pod, Some(unschedulable(message)), &nomination)
        };
        assert_eq!(patch("m", Nomination::Keep), None);
        assert_eq!(patch("m", Nomination::Set("n".to_owned())), None);
        assert_eq!(
            patch("m", Nomination::Clear),
            Some(json!({"nominatedNodeName": null}))
        );
        let changed = patch("other", Nomination::Keep).expect("a change");
        let written = &changed["conditions"][0];
        assert_eq!(written["message"], "other");
        assert_eq!(written["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn long_messages_are_cut() {
        let cut = truncated(&"ä".repeat(1000));
        assert!(cut.len() <= EVENT_BYTES && cut.ends_with("ä ..."));
    }
}
