//! What is used of each ResourceQuota, written into its status. Admission adds what it lets in;
//! here everything is counted, so what goes is given back.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/resourcequota`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use coracle_api::{
    quantity::Amount,
    quota::{Subject, Usage, counted},
};
use coracle_client::{Cached, Informer, Queue};
use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Client, ResourceExt as _,
    api::{DynamicObject, ListParams, ObjectList, PartialObjectMeta},
    core::ApiResource,
};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Seen},
    discovery::{self, Served},
    objects::Objects,
    pods,
    work::{self, Done, Key},
};

const NAME: &str = "resourcequota-controller";
const WORKERS: usize = 5;
/// After this long, what admission has let in is there or will not come.
const SETTLED: Duration = Duration::from_secs(10);
/// Objects counted at a time.
const PAGE: u32 = 500;

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        client: context.client.clone(),
        quotas: context.objects(),
        pods: context.informers.get(),
        claims: context.informers.get(),
        services: context.informers.get(),
        served: Mutex::default(),
        queue: Queue::named("resourcequota_primary"),
    };
    controller.run(&context, shutdown).await
}

/// A group, empty for the core group, and a resource in the plural.
type Kind = (String, String);

struct Controller {
    client: Client,
    quotas: Objects<ResourceQuota>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    services: Informer<Service>,
    /// Kinds that quotas have named.
    served: Mutex<HashMap<Kind, Served>>,
    queue: Queue<Key>,
}

/// Everything of a namespace that a quota may be about.
struct World {
    pods: Vec<Arc<Pod>>,
    claims: Vec<Arc<PersistentVolumeClaim>>,
    services: Vec<Arc<Service>>,
    /// The number of objects of each other kind that is named.
    counts: HashMap<Kind, i64>,
    now: Timestamp,
}

impl World {
    /// What is used of each name that the quota limits and some kind uses.
    fn used(&self, spec: &ResourceQuotaSpec) -> Usage {
        let mut used = Usage::new();
        let scoped = coracle_api::quota::scopes(spec).next().is_some();
        let (pod, claim, service) = Default::default();
        let kinds = [
            Subject::Pod(&pod),
            Subject::Claim(&claim),
            Subject::Service(&service),
        ];
        for name in spec.hard.iter().flatten().map(|(name, _)| name) {
            if kinds.iter().any(|kind| kind.concerns(name)) {
                used.insert(name.clone(), Amount::ZERO);
            } else if let Some((group, resource)) = counted(name) {
                let kind = (group.to_owned(), resource.to_owned());
                if let Some(count) = self.counts.get(&kind) {
                    let count = if scoped { 0 } else { *count };
                    used.insert(name.clone(), Amount::from_integer(count));
                }
            }
        }
        let pods = self.pods.iter().map(|pod| Subject::Pod(pod));
        let claims = self.claims.iter().map(|claim| Subject::Claim(claim));
        let services = self
            .services
            .iter()
            .map(|service| Subject::Service(service));
        for subject in pods.chain(claims).chain(services) {
            if !subject.is_in_scope(spec) {
                continue;
            }
            for (name, amount) in subject.usage(self.now) {
                if let Some(sum) = used.get_mut(&name) {
                    // A sum takes the form of what is summed up.
                    *sum = if sum.is_zero() {
                        amount
                    } else {
                        sum.plus(amount)
                    };
                }
            }
        }
        used
    }
}

/// The status to write; `None` when it stands already.
fn status(quota: &ResourceQuota, used: &Usage) -> Option<ResourceQuotaStatus> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
    let hard = hard.unwrap_or_default();
    let same = |known: Option<&std::collections::BTreeMap<String, Quantity>>, next: &Usage| {
        known.is_some_and(|known| {
            known.len() == next.len()
                && next.iter().all(|(name, amount)| {
                    known
                        .get(name)
                        .is_some_and(|known| Amount::from(known) == *amount)
                })
        })
    };
    let limits = hard
        .iter()
        .map(|(name, limit)| (name.clone(), Amount::from(limit)));
    let limits: Usage = limits.collect();
    let known = quota.status.as_ref();
    let stands = same(known.and_then(|known| known.hard.as_ref()), &limits)
        && same(known.and_then(|known| known.used.as_ref()), used);
    let used = used
        .iter()
        .map(|(name, amount)| (name.clone(), amount.to_quantity()));
    (!stands).then(|| ResourceQuotaStatus {
        hard: Some(hard),
        used: Some(used.collect()),
    })
}

/// The kinds that the quota limits the number of, and that no cache is kept of here.
fn others(spec: &ResourceQuotaSpec) -> impl Iterator<Item = Kind> + '_ {
    let names = spec.hard.iter().flatten().map(|(name, _)| name);
    let kinds = names.filter_map(|name| counted(name));
    kinds
        .filter(|kind| !matches!(kind, ("", "pods" | "services" | "persistentvolumeclaims")))
        .map(|(group, resource)| (group.to_owned(), resource.to_owned()))
}

type Page = ObjectList<PartialObjectMeta<DynamicObject>>;

impl Controller {
    async fn run(self, context: &Context, shutdown: CancellationToken) -> Result<(), Error> {
        // What admission has added may be of objects that no cache shows yet, or that were not
        // created after all.
        let quotas = changes::each(&self.quotas.cache, |seen| match seen {
            Seen::Applied {
                old: Some(old),
                new,
            } if old.spec == new.spec => {
                self.queue.add_after(Key::of(&new.metadata), SETTLED);
            }
            Seen::Applied { new: quota, .. } => self.queue.add(Key::of(&quota.metadata)),
            _ => {}
        });
        let pods = changes::each(&self.pods, |seen| match &seen {
            Seen::Applied {
                old: Some(old),
                new,
            } if same_usage(old, new) => {}
            _ => self.queue_namespace(&seen),
        });
        let claims = changes::each(&self.claims, |seen| self.queue_namespace(&seen));
        let services = changes::each(&self.services, |seen| self.queue_namespace(&seen));
        let removals = self.watch_removals(context);
        let workers = async {
            self.quotas.cache.synced().await;
            self.pods.synced().await;
            self.claims.synced().await;
            self.services.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = quotas => {}
            () = pods => {}
            () = claims => {}
            () = services => {}
            () = removals => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    /// Objects of kinds that are only counted.
    async fn watch_removals(&self, context: &Context) {
        let mut removals = context.removals();
        loop {
            let namespace = match removals.recv().await {
                Ok(removed) => Some(removed.namespace),
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return std::future::pending().await,
            };
            let quotas = match &namespace {
                Some(namespace) => self.quotas.cache.list_namespace(namespace),
                None => self.quotas.cache.list(),
            };
            for quota in quotas {
                let spec = quota.spec.as_ref();
                if spec.is_some_and(|spec| others(spec).next().is_some()) {
                    self.queue.add(Key::of(&quota.metadata));
                }
            }
        }
    }

    /// Of what is new, admission has taken care.
    fn queue_namespace<K: Cached>(&self, seen: &Seen<K>) {
        let quotas = match seen {
            Seen::Applied { old: None, .. } => return,
            Seen::Applied { new: object, .. } | Seen::Deleted(object) => {
                let namespace = object.meta().namespace.as_deref().unwrap_or_default();
                self.quotas.cache.list_namespace(namespace)
            }
            Seen::Lagged => self.quotas.cache.list(),
        };
        for quota in quotas {
            self.queue.add(Key::of(&quota.metadata));
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(quota) = self.quotas.get(&key.namespace, &key.name) else {
            return Ok(Done::Settled);
        };
        let Some(spec) = &quota.spec else {
            return Ok(Done::Settled);
        };
        let mut counts = HashMap::new();
        for kind in others(spec) {
            if let Some(count) = self.count(&kind, &key.namespace).await? {
                counts.insert(kind, count);
            }
        }
        let world = World {
            pods: self.pods.list_namespace(&key.namespace),
            claims: self.claims.list_namespace(&key.namespace),
            services: self.services.list_namespace(&key.namespace),
            counts,
            now: Timestamp::now(),
        };
        if let Some(status) = status(&quota, &world.used(spec)) {
            let next = ResourceQuota {
                status: Some(status),
                ..(*quota).clone()
            };
            self.quotas.replace_status(&next).await?;
        }
        Ok(Done::Settled)
    }

    /// `None` for a kind that the API does not serve in namespaces.
    async fn count(&self, kind: &Kind, namespace: &str) -> Result<Option<i64>, Error> {
        let Some(served) = self.find(kind).await? else {
            return Ok(None);
        };
        let api = served.api(&self.client, namespace);
        let mut params = ListParams::default().limit(PAGE);
        let mut count = 0_i64;
        loop {
            let page: Page = async { api.list_metadata(&params).await }.boxed().await?;
            count += i64::try_from(page.items.len()).unwrap_or(i64::MAX);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(Some(count)),
            }
        }
    }

    async fn find(&self, kind: &Kind) -> Result<Option<Served>, Error> {
        let (group, plural) = kind;
        if group.is_empty() {
            // Always there: no need to ask.
            let resource = ApiResource {
                group: String::new(),
                version: "v1".to_owned(),
                api_version: "v1".to_owned(),
                kind: String::new(),
                plural: plural.clone(),
            };
            return Ok(Some(Served {
                resource,
                namespaced: true,
                verbs: ["list".to_owned()].into(),
                preferred: true,
            }));
        }
        if let Some(known) = self.served.lock().get(kind) {
            return Ok(Some(known.clone()));
        }
        let found = discovery::discover(&self.client).await?;
        let mut matching = found.served.into_iter().filter(|served| {
            served.preferred
                && served.namespaced
                && served.can("list")
                && served.resource.group == *group
                && served.resource.plural == *plural
        });
        let served = matching.next();
        if let Some(served) = &served {
            self.served.lock().insert(kind.clone(), served.clone());
        }
        Ok(served)
    }
}

/// Whether a pod that has changed uses what it used before.
fn same_usage(old: &Pod, new: &Pod) -> bool {
    old.metadata.generation == new.metadata.generation
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && pods::phase(old) == pods::phase(new)
        && old.uid() == new.uid()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn world() -> World {
        let pod = |name: &str, phase: &str, deadline: Value| -> Arc<Pod> {
            Arc::new(parsed(json!({
                "metadata": { "name": name },
                "spec": { "activeDeadlineSeconds": deadline, "containers": [{ "name": "c",
                    "resources": { "requests": { "cpu": "300m" } } }] },
                "status": { "phase": phase },
            })))
        };
        World {
            pods: vec![
                pod("a", "Running", Value::Null),
                pod("b", "Pending", json!(60)),
                pod("c", "Succeeded", Value::Null),
            ],
            claims: Vec::new(),
            services: Vec::new(),
            counts: [(("".to_owned(), "secrets".to_owned()), 4)].into(),
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn used(spec: Value) -> Value {
        let used = world().used(&parsed(spec));
        let shown = used
            .iter()
            .map(|(name, amount)| (name.clone(), amount.to_string().into()));
        Value::Object(shown.collect())
    }

    #[test]
    fn what_is_limited_is_summed_up() {
        let hard = json!({ "pods": "5", "cpu": "1", "requests.cpu": "2", "secrets": "9",
            "count/pods": "9", "services": "3", "unknown": "1", "count/x.example.com": "1" });
        assert_eq!(
            used(json!({ "hard": hard })),
            json!({ "pods": "2", "cpu": "600m", "requests.cpu": "600m", "secrets": "4",
                "count/pods": "3", "services": "0" })
        );
        let scoped = json!({ "hard": { "pods": "5", "secrets": "9" }, "scopes": ["Terminating"] });
        assert_eq!(used(scoped), json!({ "pods": "1", "secrets": "0" }));
    }

    #[test]
    fn the_status_is_written_when_it_says_something_else() {
        let mut quota: ResourceQuota = parsed(json!({
            "metadata": { "name": "q" }, "spec": { "hard": { "cpu": "1000m" } },
        }));
        let usage = |text| Usage::from([("cpu".to_owned(), Amount::parse(text).expect("cpu"))]);
        let next = status(&quota, &usage("500m")).expect("a status");
        assert_eq!(next.used.as_ref().expect("used")["cpu"].0, "500m");
        quota.status = Some(next);
        assert_eq!(status(&quota, &usage("0.5")), None);
        assert!(status(&quota, &usage("0.6")).is_some());
        quota.spec = Some(parsed(json!({ "hard": { "cpu": "2" } })));
        assert!(status(&quota, &usage("500m")).is_some());
    }

    #[test]
    fn only_other_kinds_are_counted_at_the_api() {
        let spec = parsed(
            json!({ "hard": { "pods": "1", "cpu": "1", "count/pods": "1",
            "configmaps": "1", "count/deployments.apps": "1" } }),
        );
        let kinds: Vec<_> = others(&spec).collect();
        let kind = |group: &str, resource: &str| (group.to_owned(), resource.to_owned());
        assert_eq!(kinds, [kind("", "configmaps"), kind("apps", "deployments")]);
    }
}
