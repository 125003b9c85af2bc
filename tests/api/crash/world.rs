//! An API server in this process, nodes without machines, and controllers that are killed all the
//! time.

use std::{
    collections::HashMap,
    fmt::Debug,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use coracle_api::{Identity, kinds};
use coracle_apiserver::{
    ApiServer, Plugins, Registry,
    admission::Chain,
    authz::{AlwaysAllow, Authorizer},
    standard,
};
use coracle_client::{Change, Informers, in_process};
use coracle_store::MemoryStore;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::victims::{Death, Life};
use crate::fakes::FakeNodes;

/// How often the victims die in each test, at least.
pub const KILLS: usize = 20;
/// How many writes a life lasts, at most.
const LONGEST_LIFE: u64 = 9;
/// How long one step may take.
const DEADLINE: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Where the tests' objects live.
pub const NAMESPACE: &str = "crash";

/// What must hold of the pods at every moment: an error says what is wrong.
pub type Rule = Box<dyn Fn(&[Arc<Pod>]) -> Result<(), String> + Send>;

/// Everything ends when this is dropped.
pub struct World {
    pub client: Client,
    seed: u64,
    kills: Arc<AtomicUsize>,
    watched: Arc<Mutex<Watched>>,
    _nodes: FakeNodes,
    _tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

#[derive(Default)]
struct Watched {
    rule: Option<Rule>,
    broken: Option<String>,
    pods: HashMap<String, Arc<Pod>>,
    /// How many pods there ever were.
    ever: usize,
}

impl World {
    /// A cluster of so many nodes, with the kills under way.
    pub async fn start(nodes: usize) -> World {
        World::with(nodes, true).await
    }

    /// A cluster of so many nodes, where nobody is killed.
    pub async fn calm(nodes: usize) -> World {
        World::with(nodes, false).await
    }

    async fn with(nodes: usize, deadly: bool) -> World {
        let registry = Registry::new(Arc::new(MemoryStore::default()), kinds::builtin());
        let everything: Arc<dyn Authorizer> = Arc::new(AlwaysAllow);
        let plugins = Plugins {
            admission: Chain::new(standard::admission(&registry, &everything)),
            ..Plugins::default()
        };
        let server = ApiServer::new(coracle_apiserver::Config::default(), registry, plugins);
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.run(shutdown).await }
        });
        server.registry().ready().await;
        let user = Identity {
            user: "tester".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..Identity::default()
        };
        let client = in_process(server.clone(), user);
        for name in ["default", "kube-system", "kube-node-lease", NAMESPACE] {
            create_namespace(&client, name).await;
        }
        let seed = seed();
        let kills = Arc::new(AtomicUsize::new(0));
        let watched = Arc::new(Mutex::new(Watched::default()));
        tasks.spawn(watch_pods(client.clone(), watched.clone()));
        if deadly {
            tasks.spawn(kill_again_and_again(server, seed, kills.clone()));
        } else {
            let life = Life::start(&server, None);
            tasks.spawn(async move { life.ended().await });
        }
        World {
            _nodes: FakeNodes::start(client.clone(), nodes).await,
            client,
            seed,
            kills,
            watched,
            _tasks: tasks,
            shutdown,
        }
    }

    /// Whether the test must go on to reach its number of kills.
    pub fn wants_more(&self) -> bool {
        self.kills.load(Ordering::SeqCst) < KILLS
    }

    /// From now on this holds of the pods.
    pub fn always(&self, rule: impl Fn(&[Arc<Pod>]) -> Result<(), String> + Send + 'static) {
        self.watched.lock().rule = Some(Box::new(rule));
    }

    /// At no moment has one owner more pods than this that are not ending.
    pub fn at_most(&self, most: usize) {
        self.always(move |pods| {
            let mut by_owner: HashMap<&str, Vec<String>> = HashMap::new();
            for pod in live(pods) {
                let owner = pod.owner_references().first();
                let owner = owner.map_or("nobody", |owner| owner.name.as_str());
                by_owner.entry(owner).or_default().push(pod.name_any());
            }
            match by_owner.into_iter().find(|(_, pods)| pods.len() > most) {
                Some((owner, pods)) => Err(format!("more than {most} pods of {owner}: {pods:?}")),
                None => Ok(()),
            }
        });
    }

    /// How many pods there ever were.
    pub fn pods_ever(&self) -> usize {
        self.watched.lock().ever
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub async fn create<K>(&self, object: Value)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let object: K = serde_json::from_value(object).expect("the object is of its kind");
        let created = self.api().create(&PostParams::default(), &object).await;
        created.expect("the object is taken");
    }

    pub async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let patched = self
            .api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched.expect("the patch is taken");
    }

    /// Deletes the object, and returns when it is gone.
    pub async fn delete<K>(&self, name: &str, how: PropagationPolicy)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + 'static,
    {
        let params = DeleteParams {
            propagation_policy: Some(how),
            ..DeleteParams::default()
        };
        let deleted = self.api::<K>().delete(name, &params).await;
        deleted.expect("the deletion is taken");
        let what = format!("{} {name} is gone", K::kind(&()));
        self.until(&what, async || {
            let found = self.api::<K>().get_opt(name).await.expect("a read");
            nothing(found.map(|_| name.to_owned()))
        })
        .await;
    }

    /// All objects of a kind in the tests' namespace.
    pub async fn list<K>(&self) -> Vec<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let listed = self.api::<K>().list(&ListParams::default()).await;
        listed.expect("a list").items
    }

    /// Returns once nothing of the kind is left in the tests' namespace.
    pub async fn until_none<K>(&self)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let what = format!("no {} is left", K::plural(&()));
        self.until(&what, async || {
            nothing(self.list::<K>().await.iter().map(ResourceExt::name_any))
        })
        .await;
    }

    /// Returns once `holds` does.
    ///
    /// # Panics
    /// It does not in time, or the pods' rule was broken.
    pub async fn until<F>(&self, what: &str, holds: impl Fn() -> F)
    where
        F: Future<Output = Result<(), String>>,
    {
        let begun = Instant::now();
        loop {
            let missing = holds().await.err();
            if let Some(broken) = &self.watched.lock().broken {
                panic!("{what}: {broken} (CRASH_SEED={})", self.seed);
            }
            let Some(missing) = missing else {
                return;
            };
            assert!(
                begun.elapsed() < DEADLINE,
                "{what}: {missing} (CRASH_SEED={}, {} kills)",
                self.seed,
                self.kills.load(Ordering::SeqCst),
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// An error that names what should not be there.
pub fn nothing(found: impl IntoIterator<Item = String>) -> Result<(), String> {
    let found: Vec<String> = found.into_iter().collect();
    if found.is_empty() {
        Ok(())
    } else {
        Err(format!("there are {found:?}"))
    }
}

/// An error when the two differ.
pub fn same<T: Debug + PartialEq>(what: &str, found: T, wanted: T) -> Result<(), String> {
    let both = [found, wanted];
    if both[0] == both[1] {
        return Ok(());
    }
    let [found, wanted] = both;
    Err(format!("{what}: {found:?} instead of {wanted:?}"))
}

/// The pods that neither have ended nor are about to.
pub fn live(pods: &[Arc<Pod>]) -> impl Iterator<Item = &Arc<Pod>> {
    pods.iter().filter(|pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
    })
}

pub async fn create_namespace(client: &Client, name: &str) {
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
    let created = Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await;
    created.expect("the namespace is taken");
}

fn seed() -> u64 {
    match std::env::var("CRASH_SEED") {
        Ok(seed) => seed.parse().expect("CRASH_SEED is a number"),
        Err(_) => u64::from(std::process::id()),
    }
}

/// Numbers that look random; the same from the same seed (xorshift64*).
struct Random(u64);

impl Random {
    /// From 0 up to but not including `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }
}

async fn kill_again_and_again(server: ApiServer, seed: u64, kills: Arc<AtomicUsize>) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    loop {
        let death = Death {
            write: i64::try_from(random.below(LONGEST_LIFE)).unwrap_or(0) + 1,
            carried_out: random.below(2) == 0,
        };
        Life::start(&server, Some(death)).ended().await;
        kills.fetch_add(1, Ordering::SeqCst);
    }
}

async fn watch_pods(client: Client, watched: Arc<Mutex<Watched>>) {
    let informers = Informers::new(client);
    let pods = informers.matching::<Pod>(&format!("metadata.namespace={NAMESPACE}"));
    let mut changes = pods.subscribe();
    while let Some(change) = changes.next().await {
        let mut watched = watched.lock();
        match change {
            Change::Applied { old, new } => {
                let same = old.is_some_and(|old| old.uid() == new.uid());
                watched.ever += usize::from(!same);
                watched.pods.insert(new.name_any(), new);
            }
            Change::Deleted(pod) => {
                watched.pods.remove(&pod.name_any());
            }
            Change::Lagged => {
                watched.broken = Some("the test cannot follow the pods".to_owned());
            }
        }
        let now: Vec<Arc<Pod>> = watched.pods.values().cloned().collect();
        let checked = watched.rule.as_ref().map_or(Ok(()), |rule| rule(&now));
        if let Err(broken) = checked {
            watched.broken.get_or_insert(broken);
        }
    }
}
