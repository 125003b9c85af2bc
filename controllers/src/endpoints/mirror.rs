//! EndpointSlices that mirror Endpoints which somebody wrote for a Service without a selector, so
//! that whoever reads only slices sees those too. Upstream: `pkg/controller/endpointslicemirroring`.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use coracle_client::{Backoff, EventRecorder, EventType, Informer, Queue};
use k8s_openapi::{
    api::{
        core::v1::{EndpointAddress, Endpoints, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{ResourceExt as _, api::DeleteParams};
use tokio_util::sync::CancellationToken;

use super::{
    LAST_APPLIED,
    endpoints_controller::LEADER,
    slices::{self, EndpointKey, MANAGED_BY, PortKey, SERVICE_NAME, Set},
    subsets,
    trigger::LAST_CHANGE,
};
use crate::{
    Context, Error,
    changes::{self, Seen},
    error,
    labels::Labels,
    objects::Objects,
    owner,
    work::{self, Done, Key},
};

const NAME: &str = "endpointslice-mirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const WORKERS: usize = 5;
/// Addresses of one subset that are mirrored.
const MAX_ADDRESSES: usize = 1000;
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        services: context.informers.get(),
        endpoints: context.informers.get(),
        slices: context.objects(),
        recorder: context.recorder("endpoint-slice-mirroring-controller"),
        queue: Queue::new(Backoff {
            base: Duration::from_secs(1),
            max: Duration::from_secs(100),
        })
        .with_name("endpoint_slice_mirroring"),
    };
    controller.run(shutdown).await
}

struct Controller {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Objects<EndpointSlice>,
    recorder: EventRecorder,
    queue: Queue<Key>,
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let services = changes::each(&self.services, |seen| match seen {
            Seen::Applied { new: service, .. } | Seen::Deleted(service) => {
                self.queue.add(Key::of(&service.metadata));
            }
            Seen::Lagged => {}
        });
        let endpoints = changes::each(&self.endpoints, |seen| match seen {
            Seen::Applied { new: endpoints, .. } | Seen::Deleted(endpoints) => {
                self.queue.add(Key::of(&endpoints.metadata));
            }
            Seen::Lagged => {}
        });
        let slices = changes::each(&self.slices.cache, |seen| self.slice_seen(seen));
        let workers = async {
            self.services.synced().await;
            self.endpoints.synced().await;
            self.slices.cache.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = services => {}
            () = endpoints => {}
            () = slices => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    fn slice_seen(&self, seen: Seen<EndpointSlice>) {
        match seen {
            Seen::Applied { old, new } => {
                if let Some(old) = old {
                    self.queue_endpoints(&old);
                }
                self.queue_endpoints(&new);
            }
            Seen::Deleted(slice) => self.queue_endpoints(&slice),
            Seen::Lagged => {
                for service in self.services.list() {
                    self.queue.add(Key::of(&service.metadata));
                }
            }
        }
    }

    fn queue_endpoints(&self, slice: &EndpointSlice) {
        let name = slices::label(slice, SERVICE_NAME);
        if slices::label(slice, MANAGED_BY) == MANAGER && !name.is_empty() {
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            self.queue.add(Key::new(namespace, name));
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let mut slices = self.slices.cache.list_namespace(&key.namespace);
        slices.retain(|slice| {
            slices::label(slice, SERVICE_NAME) == key.name
                && slices::label(slice, MANAGED_BY) == MANAGER
        });
        let service = self.services.get(&key.namespace, &key.name);
        let wanted = service.is_some_and(|service| !has_selector(&service));
        let endpoints = self.endpoints.get(&key.namespace, &key.name);
        let Some(endpoints) = endpoints.filter(|endpoints| wanted && is_mirrored(endpoints)) else {
            for slice in slices {
                self.slices.delete(&slice, DeleteParams::default()).await?;
            }
            return Ok(Done::Settled);
        };
        let mirror = Mirror::of(&endpoints);
        self.tell_skipped(&endpoints, &mirror);
        for action in mirror.actions(&endpoints, slices) {
            match action {
                Action::Create(slice) => match self.slices.create(&slice).await {
                    Err(error) if error::is_namespace_terminating(&error) => {
                        return Ok(Done::Settled);
                    }
                    other => drop(other?),
                },
                Action::Update(slice) => drop(self.slices.replace(&slice).await?),
                Action::Delete(slice) => {
                    self.slices.delete(&slice, DeleteParams::default()).await?;
                }
            }
        }
        Ok(Done::Settled)
    }

    fn tell_skipped(&self, endpoints: &Arc<Endpoints>, mirror: &Mirror) {
        let tell = |reason: &str, message: String| {
            self.recorder
                .on(&**endpoints, EventType::Warning, reason, message);
        };
        if mirror.invalid > 0 {
            let message = format!(
                "Skipped {} invalid IP addresses when mirroring to EndpointSlices",
                mirror.invalid
            );
            tell("InvalidIPAddress", message);
        }
        if mirror.skipped > mirror.invalid {
            let message = format!(
                "A max of {MAX_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints \
                 subset. {} addresses were skipped",
                mirror.skipped
            );
            tell("TooManyAddressesToMirror", message);
        }
    }
}

fn has_selector(service: &Service) -> bool {
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(SKIP).map(String::as_str) != Some("true")
        && !endpoints.annotations().contains_key(LEADER)
}

#[derive(Debug)]
enum Action {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(Arc<EndpointSlice>),
}

/// What the slices should hold.
#[derive(Debug, Default)]
struct Mirror {
    wanted: BTreeMap<(&'static str, PortKey), (Vec<EndpointPort>, Set)>,
    invalid: usize,
    /// Left out, the invalid ones among them.
    skipped: usize,
}

impl Mirror {
    fn of(endpoints: &Endpoints) -> Self {
        let mut mirror = Mirror::default();
        let listed = endpoints.subsets.as_deref().unwrap_or_default();
        for subset in subsets::repack(listed) {
            let ports: Vec<EndpointPort> = subset
                .ports
                .iter()
                .flatten()
                .map(|port| EndpointPort {
                    name: Some(port.name.clone().unwrap_or_default()),
                    port: Some(port.port),
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                    app_protocol: port.app_protocol.clone(),
                })
                .collect();
            let ready = subset.addresses.iter().flatten().map(|one| (one, true));
            let other = subset.not_ready_addresses.iter().flatten();
            let mut added = 0;
            for (address, ready) in ready.chain(other.map(|one| (one, false))) {
                if added >= MAX_ADDRESSES {
                    mirror.skipped += 1;
                } else if let Some((family, endpoint)) = endpoint(address, ready) {
                    let (_, set) = mirror
                        .wanted
                        .entry((family, PortKey::of(&ports)))
                        .or_insert_with(|| (ports.clone(), Set::new()));
                    set.insert(EndpointKey::of(&endpoint), endpoint);
                    added += 1;
                } else {
                    mirror.invalid += 1;
                    mirror.skipped += 1;
                }
            }
        }
        mirror
    }

    fn actions(self, endpoints: &Endpoints, existing: Vec<Arc<EndpointSlice>>) -> Vec<Action> {
        let mut by_key: BTreeMap<(String, PortKey), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in existing {
            let key = (slice.address_type.clone(), PortKey::of_slice(&slice));
            by_key.entry(key).or_default().push(slice);
        }
        let mut actions = Vec::new();
        let mut new = Vec::new();
        let mut surplus = Vec::new();
        for ((family, ports_key), (ports, set)) in self.wanted {
            let key = (family.to_owned(), ports_key);
            let mut known = by_key.remove(&key).unwrap_or_default().into_iter();
            let first = known.next();
            surplus.extend(known);
            match first {
                Some(first) if stands(endpoints, &first, &set) => {}
                Some(first) => {
                    actions.push(Action::Update(slice(
                        endpoints,
                        family,
                        ports,
                        set,
                        Some(&first),
                    )));
                }
                None => new.push((family, ports, set)),
            }
        }
        surplus.extend(by_key.into_values().flatten());
        for (family, ports, set) in new {
            let place = surplus.iter().position(|old| old.address_type == family);
            match place {
                Some(place) => {
                    let old = surplus.remove(place);
                    actions.push(Action::Update(slice(
                        endpoints,
                        family,
                        ports,
                        set,
                        Some(&old),
                    )));
                }
                None if endpoints.metadata.deletion_timestamp.is_none() => {
                    actions.push(Action::Create(slice(endpoints, family, ports, set, None)));
                }
                None => {}
            }
        }
        actions.extend(surplus.into_iter().map(Action::Delete));
        actions
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        ..Endpoint::default()
    };
    Some((family, endpoint))
}

fn labels(endpoints: &Endpoints) -> Labels {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn annotations(endpoints: &Endpoints) -> Labels {
    let mut annotations = endpoints.annotations().clone();
    annotations.remove(LAST_CHANGE);
    annotations.remove(LAST_APPLIED);
    annotations
}

/// Whether the slice mirrors this already.
fn stands(endpoints: &Endpoints, slice: &EndpointSlice, wanted: &Set) -> bool {
    let there = slices::endpoints(slice);
    let same = there.len() == wanted.len()
        && there.iter().all(|endpoint| {
            wanted
                .get(&EndpointKey::of(endpoint))
                .is_some_and(|wanted| slices::same_state(wanted, endpoint))
        });
    let of_another = slice.owner_references().iter().any(|owner| {
        owner.kind == "Endpoints"
            && owner.name == endpoints.name_any()
            && Some(&owner.uid) != endpoints.metadata.uid.as_ref()
    });
    same && !of_another
        && *slice.labels() == labels(endpoints)
        && *slice.annotations() == annotations(endpoints)
}

fn slice(
    endpoints: &Endpoints,
    family: &str,
    ports: Vec<EndpointPort>,
    set: Set,
    known: Option<&EndpointSlice>,
) -> EndpointSlice {
    let annotations = annotations(endpoints);
    let name = known.and_then(|known| known.metadata.name.clone());
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: name
                .is_none()
                .then(|| slices::name_prefix(&endpoints.name_any())),
            name,
            namespace: endpoints.namespace(),
            resource_version: known.and_then(|known| known.metadata.resource_version.clone()),
            labels: Some(labels(endpoints)),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![owner::controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(set.into_values().take(MAX_ADDRESSES).collect()),
        ports: Some(ports),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn endpoints(subsets: &Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {
                "name": "db", "namespace": "default", "uid": "e", "labels": { "team": "x" },
                "annotations": { "note": "y",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}" },
            },
            "subsets": subsets,
        }))
        .expect("endpoints")
    }

    #[test]
    fn of_each_subset_a_thousand_addresses_are_mirrored() {
        let addresses = |count: usize, net: u8| -> Vec<Value> {
            let ip = |n: usize| format!("10.{net}.{}.{}", n / 250, n % 250);
            (0..count).map(|n| json!({ "ip": ip(n) })).collect()
        };
        let subset = |count, net, port| json!({ "addresses": addresses(count, net), "ports": [{ "port": port }] });
        let given = endpoints(&json!([
            subset(1200, 1, 80),
            subset(1001, 2, 81),
            subset(3, 3, 82)
        ]));
        let mirror = Mirror::of(&given);
        assert_eq!((mirror.invalid, mirror.skipped), (0, 201));
        let actions = mirror.actions(&given, Vec::new());
        let mut sizes: Vec<usize> = actions
            .iter()
            .map(|action| match action {
                Action::Create(slice) => slices::endpoints(slice).len(),
                other => panic!("{other:?}"),
            })
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [3, 1000, 1000]);
    }

    #[test]
    fn endpoints_are_mirrored_by_family_and_ports_and_then_left_alone() {
        let ports = json!([{ "name": "sql", "port": 5432, "protocol": "TCP" }]);
        let given = endpoints(&json!([
            { "addresses": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }, { "ip": "host" }],
              "notReadyAddresses": [{ "ip": "10.0.0.2", "hostname": "two" }], "ports": ports },
        ]));
        let mirror = Mirror::of(&given);
        assert_eq!((mirror.invalid, mirror.skipped), (1, 1));
        let made: Vec<EndpointSlice> = mirror
            .actions(&given, Vec::new())
            .into_iter()
            .map(|action| match action {
                Action::Create(slice) => slice,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(made.len(), 2);
        let value = serde_json::to_value(&made[0]).expect("JSON");
        assert_eq!(
            value["metadata"]["labels"],
            json!({ "team": "x", "kubernetes.io/service-name": "db",
                "endpointslice.kubernetes.io/managed-by":
                    "endpointslicemirroring-controller.k8s.io" })
        );
        assert_eq!(value["metadata"]["annotations"], json!({ "note": "y" }));
        assert_eq!(value["metadata"]["generateName"], "db-");
        assert_eq!(
            value["endpoints"],
            json!([
                { "addresses": ["10.0.0.1"], "conditions": { "ready": true } },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false }, "hostname": "two" },
            ])
        );
        assert_eq!(made[1].address_type, "IPv6");

        let existing: Vec<Arc<EndpointSlice>> = made.into_iter().map(Arc::new).collect();
        assert!(
            Mirror::of(&given)
                .actions(&given, existing.clone())
                .is_empty()
        );
        let fewer = endpoints(&json!([{ "addresses": [{ "ip": "10.0.0.1" }], "ports": ports }]));
        let actions = Mirror::of(&fewer).actions(&fewer, existing);
        assert!(
            matches!(&actions[..], [Action::Update(one), Action::Delete(other)]
                if slices::endpoints(one).len() == 1 && other.address_type == "IPv6"),
            "{actions:?}"
        );
    }
}
