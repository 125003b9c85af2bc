//! Where the pods behind Services are: EndpointSlices, the older Endpoints, and slices that mirror
//! Endpoints written by somebody else.
//!
//! Enter at [`slice_controller`], [`endpoints_controller`] and [`mirror`]; what they share of pods
//! is in [`pod`].

pub(crate) mod endpoints_controller;
pub(crate) mod mirror;
mod pod;
pub(crate) mod slice_controller;
mod slice_plan;
mod slices;
mod subsets;
mod topology;
mod trigger;

use coracle_client::{Informer, Queue};
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::{
    changes::Seen,
    labels::{self, Labels},
    work::Key,
};

/// The label of what belongs to a Service without an address of its own.
const HEADLESS: &str = "service.kubernetes.io/headless";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The pods that a Service selects; `None` when that is not for a controller to say.
fn selector(service: &Service) -> Option<&Labels> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
}

fn cluster_ip(service: &Service) -> &str {
    let ip = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref());
    ip.unwrap_or_default()
}

/// Whether the Service has no address of its own.
fn is_headless(service: &Service) -> bool {
    matches!(cluster_ip(service), "" | "None")
}

fn publishes_not_ready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// Queues the Services that a change of a pod matters to.
fn pod_seen(services: &Informer<Service>, queue: &Queue<Key>, seen: Seen<Pod>) {
    match seen {
        Seen::Applied { old, new } => {
            let change = old
                .as_deref()
                .map_or(pod::Change::ALL, |old| pod::change(old, &new));
            if change.endpoint || change.labels {
                queue_selecting(services, queue, &new);
            }
            if change.labels
                && let Some(old) = old
            {
                queue_selecting(services, queue, &old);
            }
        }
        Seen::Deleted(pod) => queue_selecting(services, queue, &pod),
        Seen::Lagged => {
            for service in services.list() {
                queue.add(Key::of(&service.metadata));
            }
        }
    }
}

fn queue_selecting(services: &Informer<Service>, queue: &Queue<Key>, pod: &Pod) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for service in services.list_namespace(namespace) {
        let wanted = selector(&service);
        if wanted.is_some() && labels::contains(pod.metadata.labels.as_ref(), wanted) {
            queue.add(Key::of(&service.metadata));
        }
    }
}
