//! The pods of the node as a whole: one task for each pod bound to it, told of what happens to
//! the pod in the API and in the runtime; and taking down what belongs to no pod.

mod groups;
mod leftovers;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use coracle_client::{Change, EventType, Informer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{self, NodeView},
    inbox::Inbox,
    reporter::Report,
    resize,
    services::Services,
    spec::{spec, uid},
    status::{self, is_terminal},
    worker::Worker,
};
use crate::{metrics, runtime::Hint};

/// How often everything in the runtime is listed although it tells of its events.
const RELIST: Duration = Duration::from_secs(120);
/// How often what belongs to no pod is looked for on disk.
const SWEEP: Duration = Duration::from_secs(300);

/// Tells what of the node a pod's admission depends on.
pub type ViewNode = Arc<dyn Fn() -> NodeView + Send + Sync>;

/// A pod as the manager knows it.
struct Known {
    /// With the resources that are allocated to it.
    pod: Arc<Pod>,
    /// As it is in the API, when it asks for resources that the node does not have now.
    desired: Option<Arc<Pod>>,
    inbox: Arc<Inbox>,
    /// Why the pod was not taken; then it has no task.
    rejected: Option<status::Failure>,
}

/// The pods of the node.
pub struct Manager {
    services: Arc<Services>,
    pods: Informer<Pod>,
    view_node: ViewNode,
    known: Mutex<HashMap<String, Known>>,
}

/// What runs while the manager does.
struct Running {
    workers: JoinSet<String>,
    /// By the task's own identity: the pod that a task that panicked worked on.
    of_task: HashMap<tokio::task::Id, String>,
    /// By container or sandbox: its state when everything was listed last.
    states: HashMap<String, i32>,
    /// Whether what the runtime has from before was listed.
    listed: bool,
    burstable_shares: u64,
    /// Removing what belongs to no pod takes its time.
    removals: JoinSet<()>,
}

impl Manager {
    pub fn new(services: Arc<Services>, pods: Informer<Pod>, view_node: ViewNode) -> Self {
        Manager {
            services,
            pods,
            view_node,
            known: Mutex::default(),
        }
    }

    /// The pods of the node, with the statuses that are known here.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        let pods: Vec<Arc<Pod>> = self
            .known
            .lock()
            .values()
            .map(|it| it.pod.clone())
            .collect();
        pods.into_iter().map(|pod| self.with_status(pod)).collect()
    }

    /// The pod of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let found = self.known.lock().values().find_map(|known| {
            let metadata = &known.pod.metadata;
            let is = metadata.namespace.as_deref() == Some(namespace)
                && metadata.name.as_deref() == Some(name);
            is.then(|| known.pod.clone())
        });
        found.map(|pod| self.with_status(pod))
    }

    /// Tells the task of a pod something.
    pub fn tell(&self, pod_uid: &str, tell: impl FnOnce(&mut super::inbox::Letters)) {
        let inbox = self.known.lock().get(pod_uid).map(|it| it.inbox.clone());
        if let Some(inbox) = inbox {
            inbox.put(tell);
        }
    }

    fn with_status(&self, pod: Arc<Pod>) -> Arc<Pod> {
        self.services.reporter.pod(uid(&pod)).unwrap_or(pod)
    }

    /// Runs the pods until `shutdown`; their containers go on running then.
    pub async fn run(
        self: Arc<Self>,
        mut hints: mpsc::Receiver<Hint>,
        shutdown: CancellationToken,
    ) {
        let mut running = Running {
            workers: JoinSet::new(),
            of_task: HashMap::new(),
            states: HashMap::new(),
            listed: false,
            burstable_shares: 0,
            removals: JoinSet::new(),
        };
        self.make_groups(&mut running).await;
        let mut changes = self.pods.subscribe();
        tokio::select! {
            () = self.pods.synced() => {}
            () = shutdown.cancelled() => return,
        }
        self.compare(&mut running);
        let mut health = self.services.health.clone();
        let mut relist = tokio::time::interval(RELIST);
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = health.usable(), if !running.listed => self.list(&mut running).await,
                change = changes.next() => match change {
                    Some(Change::Applied { new, .. }) => self.apply(&new, &mut running),
                    Some(Change::Deleted(pod)) => self.delete(&pod),
                    Some(Change::Lagged) => self.compare(&mut running),
                    None => break,
                },
                Some(hint) = hints.recv() => match hint {
                    Hint::Changed(id) => self.pass_on(id, false),
                    Hint::Ended(id) => self.pass_on(id, true),
                    Hint::Everything => self.list(&mut running).await,
                },
                _ = relist.tick(), if running.listed => {
                    self.list(&mut running).await;
                    self.resized(&mut running);
                }
                _ = sweep.tick(), if running.listed => self.sweep().await,
                Some(_) = running.removals.join_next() => {}
                Some(ended) = running.workers.join_next_with_id() => {
                    self.ended(ended, &mut running);
                }
            }
        }
        running.workers.shutdown().await;
        running.removals.shutdown().await;
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        spec(pod).node_name.as_deref() == Some(self.services.config.node_name.as_str())
    }

    /// Looks at all pods in the API: some may have come or gone unseen.
    fn compare(&self, running: &mut Running) {
        let mut pods: Vec<Arc<Pod>> = self.pods.list();
        pods.retain(|pod| self.is_ours(pod));
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        let there: BTreeSet<&str> = pods.iter().map(|pod| uid(pod)).collect();
        let known = self.known.lock();
        let gone: Vec<Arc<Pod>> = known
            .iter()
            .filter(|(uid, _)| !there.contains(uid.as_str()))
            .map(|(_, known)| known.pod.clone())
            .collect();
        drop(known);
        for pod in gone {
            self.delete(&pod);
        }
        for pod in &pods {
            self.apply(pod, running);
        }
    }

    fn apply(&self, pod: &Arc<Pod>, running: &mut Running) {
        if !self.is_ours(pod) {
            return;
        }
        let key = uid(pod).to_owned();
        let mut known = self.known.lock();
        if let Some(entry) = known.get_mut(&key) {
            if let Some(failure) = entry.rejected.clone() {
                entry.pod = pod.clone();
                self.reject(pod, &failure);
                return;
            }
            let resized = self.update(&key, pod, &mut known);
            drop(known);
            if resized {
                self.resized(running);
            }
            return;
        }
        let rejected = self.judge(pod, &known);
        if let Some(failure) = &rejected {
            let (warning, reason) = (EventType::Warning, failure.reason.as_str());
            metrics::rejected(reason);
            self.services
                .pod_event(pod, warning, reason, &failure.message);
            self.reject(pod, failure);
        }
        let inbox = Arc::new(Inbox::default());
        let allocated = resize::with_reported_allocation(pod);
        let entry = Known {
            pod: allocated.clone(),
            desired: None,
            inbox: inbox.clone(),
            rejected,
        };
        let taken = entry.rejected.is_none();
        known.insert(key.clone(), entry);
        if taken {
            self.start(&allocated, inbox, running);
            if !Arc::ptr_eq(&allocated, pod) {
                self.update(&key, pod, &mut known);
            }
        }
        drop(known);
        self.update_shares(running);
    }

    /// Takes in what has changed of a pod. Tells whether it was given other resources.
    fn update(&self, key: &str, pod: &Arc<Pod>, known: &mut HashMap<String, Known>) -> bool {
        let Some(entry) = known.get(key) else {
            return false;
        };
        let as_before = resize::with_allocation_of(pod, &entry.pod);
        let mut refusal = None;
        let resizes = !Arc::ptr_eq(&as_before, pod);
        if resizes {
            let others = self.active(known, key);
            let others: Vec<&Pod> = others.iter().map(AsRef::as_ref).collect();
            refusal = admission::admit_resize(pod, &(self.view_node)(), &others).err();
        }
        let Some(entry) = known.get_mut(key) else {
            return false;
        };
        let generation = pod.metadata.generation;
        let Some(refusal) = refusal else {
            if resizes {
                let message = resize::message("Pod resize started", pod, generation, "");
                let normal = EventType::Normal;
                self.services
                    .pod_event(pod, normal, "ResizeStarted", &message);
            }
            entry.pod = pod.clone();
            entry.desired = None;
            entry.inbox.put(|letters| {
                letters.pod = Some(pod.clone());
                letters.pending_resize = None;
            });
            return resizes;
        };
        let asked = |pod: &Arc<Pod>| pod.metadata.generation == generation;
        if !entry.desired.as_ref().is_some_and(asked) {
            let what = "Pod resize Deferred";
            let message = resize::message(what, pod, generation, &refusal.message);
            let warning = EventType::Warning;
            self.services
                .pod_event(pod, warning, "ResizeDeferred", &message);
        }
        entry.pod = as_before.clone();
        entry.desired = Some(pod.clone());
        entry.inbox.put(|letters| {
            letters.pod = Some(as_before);
            letters.pending_resize = Some(resize::Pending {
                message: refusal.message,
                generation,
            });
        });
        false
    }

    /// Room may have come free for pods that wait for it.
    fn resized(&self, running: &mut Running) {
        loop {
            let mut known = self.known.lock();
            let waiting = known.iter().filter_map(|(key, entry)| {
                let desired = entry.desired.clone()?;
                Some((key.clone(), desired))
            });
            let mut waiting: Vec<(String, Arc<Pod>)> = waiting.collect();
            waiting.sort_by_key(|(_, pod)| pod.metadata.creation_timestamp.clone());
            let any = waiting
                .iter()
                .any(|(key, desired)| self.update(key, desired, &mut known));
            if !any {
                break;
            }
        }
        self.update_shares(running);
    }

    fn start(&self, pod: &Arc<Pod>, inbox: Arc<Inbox>, running: &mut Running) {
        let since = std::time::Instant::now();
        let key = uid(pod).to_owned();
        let from_before = !running.listed || self.services.index.has_pod(&key);
        let worker = Worker::new(self.services.clone(), inbox, pod.clone(), from_before);
        metrics::began(since.elapsed(), spec(pod).containers.len());
        let of = key.clone();
        let task = running.workers.spawn(async move {
            worker.run().await;
            key
        });
        running.of_task.insert(task.id(), of);
    }

    /// Whether the node takes a new pod. What has ended already is not judged any more.
    fn judge(&self, pod: &Pod, known: &HashMap<String, Known>) -> Option<status::Failure> {
        if pod.metadata.deletion_timestamp.is_some() || has_ended(pod) {
            return None;
        }
        let active = self.active(known, uid(pod));
        let active: Vec<&Pod> = active.iter().map(AsRef::as_ref).collect();
        admission::admit(pod, &(self.view_node)(), &active).err()
    }

    /// The pods that have not ended, but for one.
    fn active(&self, known: &HashMap<String, Known>, but: &str) -> Vec<Arc<Pod>> {
        known
            .iter()
            .filter(|(key, known)| known.rejected.is_none() && *key != but)
            .map(|(_, known)| self.with_status(known.pod.clone()))
            .filter(|pod| !has_ended(pod))
            .collect()
    }

    fn reject(&self, pod: &Arc<Pod>, failure: &status::Failure) {
        let report = Report {
            status: status::rejected(pod, failure, Timestamp::now()),
            may_run: false,
            finished: true,
        };
        self.services.reporter.report(pod, report);
    }

    fn delete(&self, pod: &Pod) {
        let key = uid(pod);
        let mut known = self.known.lock();
        let Some(entry) = known.get(key) else {
            return;
        };
        if entry.rejected.is_some() {
            known.remove(key);
            self.services.reporter.forget(key);
        } else {
            entry.inbox.put(|letters| letters.deleted = true);
        }
    }

    fn pass_on(&self, id: String, ended: bool) {
        let Some(pod) = self.services.index.pod_of(&id) else {
            return;
        };
        self.tell(&pod, |letters| {
            let hint = letters.hints.entry(id).or_insert(ended);
            *hint |= ended;
        });
    }

    /// A task has ended: its pod is gone, or it panicked and begins anew.
    fn ended(
        &self,
        ended: Result<(tokio::task::Id, String), tokio::task::JoinError>,
        running: &mut Running,
    ) {
        match ended {
            Ok((task, key)) => {
                running.of_task.remove(&task);
                self.known.lock().remove(&key);
                self.resized(running);
            }
            Err(error) => {
                let Some(key) = running.of_task.remove(&error.id()) else {
                    return;
                };
                tracing::error!(pod = key, %error, "the task of a pod failed, it begins anew");
                let inbox = Arc::new(Inbox::default());
                let mut known = self.known.lock();
                let Some(entry) = known.get_mut(&key) else {
                    return;
                };
                entry.inbox = inbox.clone();
                let pod = entry.pod.clone();
                drop(known);
                inbox.put(|letters| letters.look_at_all = true);
                self.start(&pod, inbox, running);
            }
        }
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    phase.is_some_and(is_terminal)
}
