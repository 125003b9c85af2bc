//! What the API gets to see of a derived status: others write to the same object, and a pod is
//! not said to have ended while its containers may still run (upstream's `mergePodStatus`).

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::{
    conditions::{DISRUPTION_TARGET, fail_ready, find, is_ours},
    phase::is_terminal,
};

/// Puts a status together from the one in the API and the derived one. `may_run` tells whether
/// containers of the pod may be running.
pub fn merge(pod: &Pod, derived: &PodStatus, may_run: bool, now: jiff::Timestamp) -> PodStatus {
    let reported = pod.status.clone().unwrap_or_default();
    let phase = |status: &PodStatus| status.phase.clone().unwrap_or_default();
    let mut merged = derived.clone();
    let ends = !is_terminal(&phase(&reported)) && is_terminal(&phase(derived));

    let mut conditions = reported.conditions.clone().unwrap_or_default();
    conditions.retain(|condition| !is_ours(&condition.type_));
    let derived_conditions = derived.conditions.iter().flatten();
    conditions.extend(
        derived_conditions
            .filter(|condition| is_ours(&condition.type_))
            .cloned(),
    );
    if ends
        && !may_run
        && let Some(disruption) = find(derived, DISRUPTION_TARGET)
    {
        conditions.retain(|condition| condition.type_ != DISRUPTION_TARGET);
        conditions.push(disruption.clone());
    }
    merged.conditions = Some(conditions);
    merged.resource_claim_statuses = reported.resource_claim_statuses;
    merged.extended_resource_claim_status = reported.extended_resource_claim_status;
    merged.node_allocatable_resource_claim_statuses =
        reported.node_allocatable_resource_claim_statuses;
    merged.resize = reported.resize;
    merged.nominated_node_name = reported.nominated_node_name;
    if ends && may_run {
        merged.phase = reported.phase;
        merged.reason = reported.reason;
        merged.message = reported.message;
    }
    fail_ready(pod, &mut merged, now);
    merged
}
