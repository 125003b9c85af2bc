//! Endpoints: the older form of EndpointSlices, one object for each Service that has a selector.
//! Upstream: `pkg/controller/endpoint`.

use std::sync::Arc;

use coracle_client::{EventRecorder, EventType, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{EndpointSubset, Endpoints, Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{ResourceExt as _, api::DeleteParams};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    HEADLESS, is_headless, selector, subsets,
    trigger::{LAST_CHANGE, Triggers},
};
use crate::{
    Context, Error,
    changes::{self, Seen},
    error,
    labels::{self, Labels},
    objects::Objects,
    work::{self, Done, Key},
};

const NAME: &str = "endpoint-controller";
const WORKERS: usize = 5;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The annotation of Endpoints that are a leader's lock and nobody's addresses.
pub(super) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Runs the Endpoints controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        services: context.informers.get(),
        pods: context.informers.get(),
        endpoints: context.objects(),
        recorder: context.recorder(NAME),
        queue: Queue::named("endpoint"),
        triggers: Mutex::default(),
    };
    controller.run(shutdown).await
}

struct Controller {
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Objects<Endpoints>,
    recorder: EventRecorder,
    queue: Queue<Key>,
    triggers: Mutex<Triggers>,
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let services = changes::each(&self.services, |seen| match seen {
            Seen::Applied { new: service, .. } | Seen::Deleted(service) => {
                self.queue.add(Key::of(&service.metadata));
            }
            Seen::Lagged => {}
        });
        let pods = async {
            self.services.synced().await;
            changes::each(&self.pods, |seen| {
                super::pod_seen(&self.services, &self.queue, seen);
            })
            .await;
        };
        let endpoints = changes::each(&self.endpoints.cache, |seen| {
            // They are made again.
            if let Seen::Deleted(endpoints) = seen {
                self.queue.add(Key::of(&endpoints.metadata));
            }
        });
        let workers = async {
            self.services.synced().await;
            self.pods.synced().await;
            self.endpoints.cache.synced().await;
            self.queue_leftovers();
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = services => {}
            () = pods => {}
            () = endpoints => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// Endpoints found at the start may have lost their Service meanwhile. Those that come later
    /// without one are somebody else's.
    fn queue_leftovers(&self) {
        for endpoints in self.endpoints.cache.list() {
            if !endpoints.annotations().contains_key(LEADER) {
                self.queue.add(Key::of(&endpoints.metadata));
            }
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let known = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            self.triggers.lock().forget(&key);
            if let Some(known) = known
                && !known.annotations().contains_key(LEADER)
            {
                self.endpoints
                    .delete(&known, DeleteParams::default())
                    .await?;
            }
            return Ok(Done::Settled);
        };
        let Some(wanted) = selector(&service) else {
            return Ok(Done::Settled);
        };
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|pod| labels::contains(pod.metadata.labels.as_ref(), Some(wanted)));
        let trigger = self
            .triggers
            .lock()
            .next(&key, &service, pods.iter().map(|pod| &**pod));
        let subsets = subsets::of_service(&service, &pods);
        let Some(next) = next(&service, known.as_deref(), subsets, trigger) else {
            return Ok(Done::Settled);
        };
        self.write(&service, known.is_some(), &next).await?;
        Ok(Done::Settled)
    }

    async fn write(
        &self,
        service: &Arc<Service>,
        exists: bool,
        next: &Endpoints,
    ) -> Result<(), Error> {
        let (written, reason, attempt) = if exists {
            let written = self.endpoints.replace(next).await;
            (written, "FailedToUpdateEndpoint", "update endpoint")
        } else {
            let written = self.endpoints.create(next).await;
            (
                written,
                "FailedToCreateEndpoint",
                "create endpoint for service",
            )
        };
        match written {
            Ok(_) => Ok(()),
            Err(error) if error::is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!(
                    "Failed to {attempt} {}/{}: {}",
                    service.namespace().unwrap_or_default(),
                    service.name_any(),
                    error::message(&error)
                );
                self.recorder.on(next, EventType::Warning, reason, message);
                Err(error.into())
            }
        }
    }
}

/// The object to write; `None` when it stands already.
fn next(
    service: &Service,
    known: Option<&Endpoints>,
    mut subsets: Vec<EndpointSubset>,
    trigger: Option<Timestamp>,
) -> Option<Endpoints> {
    if let Some(known) = known {
        let there = known.subsets.as_deref().unwrap_or_default();
        let same = there == subsets || subsets::repack(there) == subsets;
        let marked = known.annotations().contains_key(OVER_CAPACITY);
        let fits = subsets::count(there) <= subsets::CAPACITY && !marked;
        if same && fits && known.metadata.labels.as_ref() == Some(&labels(service)) {
            return None;
        }
    }
    let mut metadata = known.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |known| known.metadata.clone(),
    );
    metadata.labels = Some(labels(service));
    let annotations = metadata.annotations.get_or_insert_default();
    match trigger {
        Some(at) => annotations.insert(LAST_CHANGE.to_owned(), at.to_string()),
        None => annotations.remove(LAST_CHANGE),
    };
    if subsets::truncate(&mut subsets) {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    let next = Endpoints {
        metadata,
        subsets: (!subsets.is_empty()).then_some(subsets),
    };
    // What was cut the last time is cut the same way again.
    let unchanged = known.is_some_and(|known| {
        known.subsets == next.subsets
            && known.metadata.labels == next.metadata.labels
            && known.annotations().get(OVER_CAPACITY) == next.annotations().get(OVER_CAPACITY)
    });
    (!unchanged).then_some(next)
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.labels().clone();
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "labels": { "app": "web" } },
            "spec": {
                "clusterIP": "10.43.0.5", "ipFamilies": ["IPv4"],
                "selector": { "app": "web" },
                "ports": [
                    { "name": "http", "port": 80, "targetPort": "http", "protocol": "TCP" },
                    { "name": "fixed", "port": 81, "targetPort": 8081, "protocol": "TCP" },
                ],
            },
        }))
        .expect("a service")
    }

    fn pod(name: &str, ip: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "default", "uid": name },
                "spec": { "nodeName": "n", "containers": [
                    { "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] },
                ]},
                "status": {
                    "podIP": ip, "podIPs": [{ "ip": ip }], "phase": "Running",
                    "conditions": [{ "type": "Ready", "status": ready }],
                },
            }))
            .expect("a pod"),
        )
    }

    #[test]
    fn pods_become_addresses_and_stay_as_they_are() {
        let service = service();
        let pods = [pod("a", "10.42.0.1", true), pod("b", "10.42.0.2", false)];
        let made = subsets::of_service(&service, &pods);
        let trigger = "2026-01-01T00:00:00Z".parse().ok();
        let endpoints = next(&service, None, made.clone(), trigger).expect("a new object");
        let target = |name: &str| json!({ "kind": "Pod", "namespace": "default", "name": name, "uid": name });
        assert_eq!(
            serde_json::to_value(&endpoints).expect("JSON"),
            json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": {
                    "name": "web", "namespace": "default",
                    "labels": { "app": "web",
                        "endpoints.kubernetes.io/managed-by": "endpoint-controller" },
                    "annotations": { "endpoints.kubernetes.io/last-change-trigger-time":
                        "2026-01-01T00:00:00Z" },
                },
                "subsets": [{
                    "addresses": [
                        { "ip": "10.42.0.1", "nodeName": "n", "targetRef": target("a") },
                    ],
                    "notReadyAddresses": [
                        { "ip": "10.42.0.2", "nodeName": "n", "targetRef": target("b") },
                    ],
                    "ports": [
                        { "name": "fixed", "port": 8081, "protocol": "TCP" },
                        { "name": "http", "port": 8080, "protocol": "TCP" },
                    ],
                }],
            })
        );
        assert_eq!(next(&service, Some(&endpoints), made, None), None);
        let fewer = subsets::of_service(&service, &pods[..1]);
        assert!(next(&service, Some(&endpoints), fewer, None).is_some());
    }

    #[test]
    fn what_was_cut_is_not_written_again() {
        let service = service();
        let pods: Vec<Arc<Pod>> = (0..1100)
            .map(|n| {
                pod(
                    &format!("p{n}"),
                    &format!("10.42.{}.{}", n / 250, n % 250),
                    true,
                )
            })
            .collect();
        let made = subsets::of_service(&service, &pods);
        let endpoints = next(&service, None, made.clone(), None).expect("a new object");
        let list = endpoints.subsets.as_deref().expect("subsets");
        assert_eq!(subsets::count(list), 1000);
        assert_eq!(endpoints.annotations()[OVER_CAPACITY], "truncated");
        assert_eq!(next(&service, Some(&endpoints), made, None), None);
    }
}
