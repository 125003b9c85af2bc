//! `/metrics/resources`: what pods ask for and may use, as scheduler and kubelet reckon it.
//!
//! Upstream's scheduler serves this page. Here scheduler and API server are one process with one
//! address, and the server has every pod at hand.

use coracle_api::{
    core::pod::resources::{Amounts, pod_limits, pod_requests},
    quantity::Amount,
};
use coracle_metrics::{Description, Kind, Page, Stability};
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::{admission::typed, server::ApiServer};

const REQUEST: Description = Description {
    name: "kube_pod_resource_request",
    stability: Stability::Stable,
    help: "Resources requested by workloads on the cluster, broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any.",
};
const LIMIT: Description = Description {
    name: "kube_pod_resource_limit",
    stability: Stability::Stable,
    help: "Resources limit for workloads on the cluster, broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any.",
};
const LABELS: [&str; 7] = [
    "namespace",
    "node",
    "pod",
    "priority",
    "resource",
    "scheduler",
    "unit",
];

type Part = fn(&PodSpec) -> Amounts;

/// One value of a page.
#[derive(Debug, PartialEq)]
struct Row {
    labels: [String; 7],
    value: f64,
}

pub(super) fn show(server: &ApiServer, page: &mut Page) {
    let Some(resource) = server.registry().find("", "v1", "pods") else {
        return;
    };
    let Some(cache) = &resource.cache else {
        return;
    };
    let objects = cache.objects();
    let parts: [(_, Part); 2] = [(REQUEST, pod_requests), (LIMIT, pod_limits)];
    for (description, part) in parts {
        page.family(&description, Kind::Gauge, &LABELS, |samples| {
            for entry in objects.values() {
                let object = entry.object(&*resource.stored.strategy).ok();
                let rows = typed(object.as_deref()).map(|pod| rows(pod, part));
                for Row { labels, value } in rows.into_iter().flatten() {
                    samples.add(&labels.each_ref().map(String::as_str), value);
                }
            }
        });
    }
}

/// Of a pod that takes something, or will.
fn rows(pod: &Pod, part: Part) -> Vec<Row> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if spec.node_name.is_some() && matches!(phase, Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let row = |(resource, amount): (String, Amount)| Row {
        labels: [
            text(&pod.metadata.namespace),
            text(&spec.node_name),
            text(&pod.metadata.name),
            spec.priority
                .map_or_else(String::new, |priority| priority.to_string()),
            resource.clone(),
            text(&spec.scheduler_name),
            unit(&resource).to_owned(),
        ],
        value: amount.as_f64(),
    };
    let amounts = part(spec).into_iter();
    amounts
        .filter(|(_, amount)| !amount.is_zero())
        .map(row)
        .collect()
}

fn unit(resource: &str) -> &'static str {
    match resource {
        "cpu" => "cores",
        "memory" | "storage" | "ephemeral-storage" => "bytes",
        _ if resource.starts_with("hugepages-") => "bytes",
        _ if resource.starts_with("attachable-volumes-") => "integer",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_shown_until_they_have_ended() {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "nodeName": "n",
                "schedulerName": "default-scheduler",
                "priority": 0,
                "containers": [
                    {"name": "a", "resources": {"requests": {"cpu": "250m", "memory": "0"}}},
                    {"name": "b", "resources": {"requests": {"cpu": "1", "example.com/x": "2"}}},
                ],
            },
        }))
        .unwrap();
        let shown: Vec<_> = rows(&pod, pod_requests)
            .into_iter()
            .map(|row| (row.labels.join(","), row.value))
            .collect();
        let of = |resource, unit| format!("shop,n,web,0,{resource},default-scheduler,{unit}");
        assert_eq!(
            shown,
            [(of("cpu", "cores"), 1.25), (of("example.com/x", ""), 2.0)]
        );
        assert_eq!(rows(&pod, pod_limits), []);
        pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
        assert_eq!(rows(&pod, pod_requests), []);
    }
}
