//! DaemonSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use serde_json::Value;

use crate::{
    selector,
    strategy::Column,
    table::{AGE, NAME, age, column, container_cells, labels, name, template_pod, wide},
};
use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for DaemonSet {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

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
