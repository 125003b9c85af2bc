//! Ranges of Service addresses: they say when they are ready, and stay while addresses of theirs
//! are in use.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/servicecidrs`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use coracle_client::{Informer, Queue};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{ResourceExt as _, api::Patch};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Seen},
    conditions, error,
    objects::Objects,
    work::{self, Done, Key},
};

const NAME: &str = "service-cidr-controller";
const WORKERS: usize = 5;
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// Time for every server to learn that a range is going, and give out no more of it.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        ranges: context.objects(),
        addresses: context.informers.get(),
        queue: Queue::named("servicecidrs"),
    };
    controller.run(shutdown).await
}

struct Controller {
    ranges: Objects<ServiceCIDR>,
    addresses: Informer<IPAddress>,
    queue: Queue<Key>,
}

/// What there is to do for a range.
#[derive(Debug, PartialEq)]
enum Step {
    Finalizer,
    Ready(Box<Condition>),
    Wait(Duration),
    Release,
    Nothing,
}

fn prefixes(range: &ServiceCIDR) -> impl Iterator<Item = IpNet> + '_ {
    let cidrs = range.spec.iter().flat_map(|spec| &spec.cidrs).flatten();
    cidrs.filter_map(|cidr| cidr.parse().ok())
}

fn condition(status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: None,
        last_transition_time: Time(conditions::to_seconds(now)),
    }
}

fn say(range: &ServiceCIDR, condition: Condition) -> Step {
    let known = range.status.as_ref();
    let known = conditions::find(known.and_then(|status| status.conditions.as_ref()), "Ready");
    let same = known.is_some_and(|known| {
        known.status == condition.status
            && known.reason == condition.reason
            && known.message == condition.message
    });
    if same {
        Step::Nothing
    } else {
        Step::Ready(Box::new(condition))
    }
}

/// Whether other ranges cover all of this one, or none of its addresses is in use.
fn can_go(range: &ServiceCIDR, all: &[Arc<ServiceCIDR>], used: &[IpAddr]) -> bool {
    let others: Vec<IpNet> = all
        .iter()
        .filter(|other| {
            other.metadata.name != range.metadata.name
                && other.metadata.deletion_timestamp.is_none()
        })
        .flat_map(|other| prefixes(other))
        .collect();
    let covered = |prefix: IpNet| others.iter().any(|other| other.contains(&prefix));
    prefixes(range).all(|prefix| {
        covered(prefix)
            || !used.iter().any(|address| {
                prefix.contains(address) && !others.iter().any(|other| other.contains(address))
            })
    })
}

fn decide(range: &ServiceCIDR, all: &[Arc<ServiceCIDR>], used: &[IpAddr], now: Timestamp) -> Step {
    let held = range.finalizers().iter().any(|one| one == FINALIZER);
    let Some(deleted) = &range.metadata.deletion_timestamp else {
        if !held {
            return Step::Finalizer;
        }
        return say(
            range,
            condition("True", "", "Kubernetes Service CIDR is ready", now),
        );
    };
    if !can_go(range, all, used) {
        let message = "There are still IPAddresses referencing the ServiceCIDR, please remove \
            them or create a new ServiceCIDR";
        return say(range, condition("False", "Terminating", message, now));
    }
    let passed = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    match GRACE.saturating_sub(passed) {
        left if !left.is_zero() => Step::Wait(left),
        _ if held => Step::Release,
        _ => Step::Nothing,
    }
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let queue_all = || {
            for range in self.ranges.cache.list() {
                self.queue.add(Key::of(&range.metadata));
            }
        };
        // A range that comes or goes may free another.
        let ranges = changes::each(&self.ranges.cache, |_| queue_all());
        let addresses = changes::each(&self.addresses, |seen| {
            if !matches!(seen, Seen::Applied { .. }) {
                queue_all();
            }
        });
        let workers = async {
            self.ranges.cache.synced().await;
            self.addresses.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = ranges => {}
            () = addresses => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(range) = self.ranges.get("", &key.name) else {
            return Ok(Done::Settled);
        };
        let mut used: Vec<IpAddr> = Vec::new();
        if range.metadata.deletion_timestamp.is_some() {
            let managed = self.addresses.list();
            let managed = managed.iter().filter(|address| {
                let manager = address.labels().get(MANAGED_BY);
                manager.is_some_and(|manager| manager == ALLOCATOR)
            });
            used.extend(managed.filter_map(|address| address.name_any().parse::<IpAddr>().ok()));
        }
        let all = self.ranges.cache.list();
        let patch = match decide(&range, &all, &used, Timestamp::now()) {
            Step::Nothing => return Ok(Done::Settled),
            Step::Wait(left) => return Ok(Done::Again(left)),
            Step::Ready(condition) => {
                let patch = json!({ "status": { "conditions": [*condition] } });
                let patched = self.ranges.patch_status("", &key.name, Patch::Merge(patch));
                error::optional(patched.await)?;
                return Ok(Done::Settled);
            }
            Step::Finalizer => json!({ "metadata": { "finalizers": [FINALIZER] } }),
            Step::Release => json!({ "metadata": {
                "$deleteFromPrimitiveList/finalizers": [FINALIZER] } }),
        };
        let patched = self.ranges.patch("", &key.name, Patch::Strategic(patch));
        error::optional(patched.await)?;
        Ok(Done::Settled)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn range(name: &str, cidr: &str, deleted: bool, finalizers: &[&str]) -> Arc<ServiceCIDR> {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "finalizers": finalizers,
                    "deletionTimestamp": deleted.map_or(Value::Null, |at| json!(at)) },
                "spec": { "cidrs": [cidr] },
            }))
            .expect("a range"),
        )
    }

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().expect("a time")
    }

    fn ready(step: Step) -> (String, String) {
        match step {
            Step::Ready(condition) => (condition.status, condition.reason),
            other => panic!("no condition: {other:?}"),
        }
    }

    #[test]
    fn a_new_range_is_held_and_ready() {
        let new = range("a", "10.0.0.0/24", false, &[]);
        assert_eq!(decide(&new, &[], &[], now()), Step::Finalizer);
        let held = range("a", "10.0.0.0/24", false, &[FINALIZER]);
        let step = decide(&held, &[], &[], now());
        assert_eq!(ready(step), ("True".to_owned(), String::new()));
        let mut done = (*held).clone();
        let status = json!({ "conditions": [condition(
            "True", "", "Kubernetes Service CIDR is ready", now())] });
        done.status = serde_json::from_value(status).expect("a status");
        assert_eq!(decide(&done, &[], &[], now()), Step::Nothing);
    }

    #[test]
    fn a_range_stays_while_it_alone_has_an_address() {
        let going = range("a", "10.0.0.0/24", true, &[FINALIZER]);
        let used: [IpAddr; 1] = ["10.0.0.9".parse().expect("an address")];
        let step = decide(&going, std::slice::from_ref(&going), &used, now());
        assert_eq!(ready(step), ("False".to_owned(), "Terminating".to_owned()));
        assert_eq!(decide(&going, &[], &[], now()), Step::Release);
        let wider = [
            going.clone(),
            range("b", "10.0.0.0/16", false, &[FINALIZER]),
        ];
        assert_eq!(decide(&going, &wider, &used, now()), Step::Release);
        let soon = "2026-01-01T00:00:04Z".parse().expect("a time");
        let wait = decide(&going, &wider, &used, soon);
        assert_eq!(wait, Step::Wait(Duration::from_secs(6)));
    }
}
