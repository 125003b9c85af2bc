//! Pod, and the pod template that workload kinds share with it.
//!
//! `defaults`, `container_defaults` and `volume_defaults` fill in values; `prepare` is what the
//! server itself writes; `validation` is what may be wrong with a Pod, `update`, `resize` and
//! `status_validation` with a change of one; `warnings` is what is unwise; `resources` sums up
//! what a Pod asks for; `table` is `kubectl get`.

mod container_defaults;
pub mod defaults;
mod image;
mod prepare;
mod resize;
pub mod resources;
mod status_validation;
mod table;
mod update;
pub mod validation;
mod virtual_paths;
mod volume_defaults;
pub mod warnings;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::Value;

use crate::{
    field::ErrorList,
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    zero::{list, text},
};

impl Behaviour for Pod {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn default_fields(&mut self) {
        defaults::pod(self);
    }

    fn prepare_for_create(&mut self) {
        prepare::for_create(self);
    }

    fn prepare_for_subresource(&mut self, old: &Self, subresource: Subresource) {
        match subresource {
            Subresource::Status => prepare::for_status(self, old),
            Subresource::Resize => prepare::for_resize(self, old),
            Subresource::EphemeralContainers => prepare::for_ephemeral_containers(self, old),
            Subresource::Finalize | Subresource::Approval => {}
        }
    }

    fn validate(&self) -> ErrorList {
        validation::pod(self)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        update::pod(self, old)
    }

    fn validate_subresource(&self, old: &Self, subresource: Subresource) -> ErrorList {
        match subresource {
            Subresource::Status => status_validation::status(self, old),
            Subresource::Resize => update::resize(self, old),
            Subresource::EphemeralContainers => update::ephemeral_containers(self, old),
            Subresource::Finalize | Subresource::Approval => ErrorList::new(),
        }
    }

    /// Pods are mostly changed by controllers, which read no warnings.
    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        match old {
            None => warnings::new_pod(self),
            Some(_) => Vec::new(),
        }
    }

    fn status_warnings(&self) -> Vec<String> {
        warnings::status(self.status.as_ref())
    }

    const SELECTABLE_FIELDS: &'static [&'static str] = &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ];

    fn selectable_fields(&self) -> Vec<String> {
        let no_spec = PodSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref();
        let ip = status
            .and_then(|status| list(&status.pod_ips).first())
            .map_or("", |ip| &ip.ip);
        let host_network = spec.host_network == Some(true);
        [
            text(&spec.node_name),
            text(&spec.restart_policy),
            text(&spec.scheduler_name),
            text(&spec.service_account_name),
            if host_network { "true" } else { "false" },
            status.map_or("", |status| text(&status.phase)),
            ip,
            ip,
            status.map_or("", |status| text(&status.nominated_node_name)),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }

    /// The spec's period unless the client names one; none for a Pod that runs nowhere.
    fn grace_period_seconds(&self, requested: Option<i64>) -> Option<i64> {
        let spec = self.spec.as_ref();
        let is_bound = spec.is_some_and(|spec| !text(&spec.node_name).is_empty());
        let phase = self
            .status
            .as_ref()
            .map_or("", |status| text(&status.phase));
        if !is_bound || matches!(phase, "Failed" | "Succeeded") {
            return Some(0);
        }
        let period = requested
            .or_else(|| spec.and_then(|spec| spec.termination_grace_period_seconds))
            .unwrap_or(0);
        Some(if period < 0 { 1 } else { period })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods() {
        crate::testing::run::<Pod>(include_str!("../../testdata/pod.yaml"));
    }

    #[test]
    fn a_pod_is_deleted_after_its_grace_period_unless_it_runs_nowhere() {
        let cases = [
            (json!({"nodeName": "n"}), "Running", None, 30),
            (json!({"nodeName": "n"}), "Running", Some(5), 5),
            (json!({"nodeName": "n"}), "Running", Some(-1), 1),
            (json!({"nodeName": "n"}), "Succeeded", None, 0),
            (json!({"nodeName": "n"}), "Failed", Some(5), 0),
            (json!({}), "Pending", Some(5), 0),
        ];
        for (spec, phase, requested, expected) in cases {
            let mut pod: Pod =
                serde_json::from_value(json!({"spec": spec, "status": {"phase": phase}})).unwrap();
            pod.default_fields();
            assert_eq!(
                pod.grace_period_seconds(requested),
                Some(expected),
                "{spec} {phase}"
            );
        }
    }
}
