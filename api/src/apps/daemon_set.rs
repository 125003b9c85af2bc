//! DaemonSet.

mod validation;

use std::num::IntErrorKind;

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{DaemonSet, DaemonSetStatus},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use super::workload;
use crate::{
    core::pod::defaults,
    field::ErrorList,
    selector, shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, age, column, container_cells, labels, name, template_pod, wide},
    zero::{default_text, text},
};

impl Behaviour for DaemonSet {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    /// Upstream keeps the generation of the template as a number.
    fn check_decoded(&self) -> Result<(), String> {
        let annotations = self.metadata.annotations.as_ref();
        let Some(text) = annotations.and_then(|all| all.get(TEMPLATE_GENERATION)) else {
            return Ok(());
        };
        text.parse::<i64>().map(|_| ()).map_err(|error| {
            let why = match error.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            format!("strconv.ParseInt: parsing {text:?}: {why}")
        })
    }

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        defaults::pod_template(&mut spec.template);
        let strategy = spec.update_strategy.get_or_insert_default();
        default_text(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
        set_template_generation(self, template_generation(self));
    }

    fn prepare_for_create(&mut self) {
        let generation = template_generation(self).max(1);
        set_template_generation(self, generation);
    }

    fn prepare_for_update(&mut self, old: &Self) {
        let template = |set: &Self| set.spec.as_ref().map(|spec| spec.template.clone());
        let changed = template(self) != template(old);
        set_template_generation(self, template_generation(old) + i64::from(changed));
    }

    fn prepare_for_subresource(&mut self, old: &Self, _subresource: Subresource) {
        set_template_generation(self, template_generation(old));
    }

    fn validate(&self) -> ErrorList {
        validation::create(self)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        validation::update(self, old)
    }

    fn validate_subresource(&self, old: &Self, subresource: Subresource) -> ErrorList {
        if subresource != Subresource::Status {
            return ErrorList::new();
        }
        let none = DaemonSetStatus::default();
        let (new, old) = (self.status.as_ref(), old.status.as_ref());
        validation::status(new.unwrap_or(&none), old.unwrap_or(&none))
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let Some(spec) = &self.spec else {
            return Vec::new();
        };
        match old {
            Some(old) if template_generation(self) == template_generation(old) => Vec::new(),
            _ => workload::template_warnings(&spec.template),
        }
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Desired",
                "integer",
                "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
            ),
            column(
                "Current",
                "integer",
                "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
            ),
            column(
                "Ready",
                "integer",
                "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
            ),
            column(
                "Up-to-date",
                "integer",
                "The total number of nodes that are running updated daemon pod",
            ),
            column(
                "Available",
                "integer",
                "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
            ),
            column(
                "Node Selector",
                "string",
                "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
            ),
            AGE,
            wide("Containers", "Names of each container in the template."),
            wide(
                "Images",
                "Images referenced by each container in the template.",
            ),
            wide(
                "Selector",
                "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let count = |get: fn(&DaemonSetStatus) -> i32| Value::from(status.map_or(0, get));
        let template = spec.map(|spec| &spec.template);
        let [containers, images] = container_cells(template_pod(template));
        let pod = template.and_then(|template| template.spec.as_ref());
        vec![
            name(&self.metadata),
            count(|status| status.desired_number_scheduled),
            count(|status| status.current_number_scheduled),
            count(|status| status.number_ready),
            count(|status| status.updated_number_scheduled.unwrap_or_default()),
            count(|status| status.number_available.unwrap_or_default()),
            labels(pod.and_then(|pod| pod.node_selector.as_ref())),
            age(&self.metadata, now),
            containers,
            images,
            Value::from(selector::format_object(spec.map(|spec| &spec.selector))),
        ]
    }
}

/// Counts the templates that a DaemonSet had. Upstream keeps it for clients of old versions.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(set: &DaemonSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(TEMPLATE_GENERATION))
        .and_then(|generation| generation.parse().ok())
        .unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_sets() {
        crate::testing::run::<DaemonSet>(include_str!("../../testdata/daemon_set.yaml"));
    }

    #[test]
    fn the_generation_of_the_template_is_a_number() {
        let check = |generation: &str| {
            let mut set = DaemonSet::default();
            let annotations = set.metadata.annotations.get_or_insert_default();
            annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_owned());
            set.check_decoded()
        };
        assert_eq!(check("7"), Ok(()));
        let refused = r#"strconv.ParseInt: parsing "x": invalid syntax"#;
        assert_eq!(check("x"), Err(refused.to_owned()));
        let refused = r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#;
        assert_eq!(check("9223372036854775808"), Err(refused.to_owned()));
    }
}
