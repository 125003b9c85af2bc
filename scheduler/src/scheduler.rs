//! The scheduling loop: one task that owns the queue and the cache, takes in what changes, and
//! decides for one pod after the other. Binding and all other writing happens beside it.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use coracle_client::{Change, Changes, EventRecorder, Informer, Informers};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Client, ResourceExt as _};
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    actions::{Actions, Nomination, condition},
    binding::{self, Binding, Interrupt},
    cache::Cache,
    cluster::{Cluster, Informed},
    devices::{
        self,
        binding::{Plan, Reserved},
    },
    event::{Event, NodeChanges, PodChanges},
    framework::{Listed, PostFilter},
    metrics::{self, Attempt},
    nominator::Nominator,
    plugins::{self, dynamic_resources, volume_binding},
    pod::{self, Key, PodInfo},
    preemption::Preemption,
    queue::{QueuedPod, SchedulingQueue},
    schedule::{Outcome, Turn, Unfit, schedule},
    surroundings::{SurroundingChange, Surroundings},
};

/// Writes under way at once. When there are as many, no further pod is decided on.
const WRITES: usize = 256;

/// How the scheduler behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are scheduled.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            scheduler_name: "default-scheduler".to_owned(),
        }
    }
}

/// Why the scheduler ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write to the API panicked.
    #[error("scheduling: {0}")]
    Task(#[from] JoinError),
}

/// Gives every pod a node.
pub struct Scheduler {
    config: Config,
    client: Client,
    informers: Informers,
}

impl Scheduler {
    /// Does nothing yet; see [`Scheduler::run`].
    pub fn new(config: Config, client: Client, informers: Informers) -> Self {
        Scheduler {
            config,
            client,
            informers,
        }
    }

    /// Schedules until `shutdown`; writes under way are given up then.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut scheduling = Loop::new(self.config, self.client, &self.informers);
        shutdown
            .run_until_cancelled(scheduling.run())
            .await
            .unwrap_or(Ok(()))
    }
}

/// What came of a write.
enum Done {
    /// The pod was bound, or not.
    Bound {
        pod: QueuedPod,
        outcome: Result<(), binding::Error>,
    },
    /// The victims of a preemption were asked to go, or not.
    Preempted {
        preemptor: Key,
        failed: bool,
    },
    Reported,
}

struct Loop {
    config: Config,
    actions: Actions,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    surroundings: Informed,
    plugins: Vec<Listed>,
    cache: Cache,
    queue: SchedulingQueue,
    nominator: Nominator,
    turn: Turn,
    writes: JoinSet<Done>,
    /// Bindings that wait for volumes, which may take long: each is of a pod that waits too.
    bindings: JoinSet<Done>,
    /// Of the bindings that wait, by the pod's UID.
    interrupts: HashMap<String, Interrupt>,
}

impl Loop {
    fn new(config: Config, client: Client, informers: &Informers) -> Self {
        let surroundings = Informed::new(informers);
        let devices = surroundings.devices.clone();
        let queue = SchedulingQueue::new(move |pod| {
            dynamic_resources::is_waiting(pod, &*devices).then_some(dynamic_resources::NAME)
        });
        let recorder = EventRecorder::new(client.clone(), &config.scheduler_name, "");
        Loop {
            config,
            actions: Actions { client, recorder },
            pods: informers.get(),
            nodes: informers.get(),
            surroundings,
            plugins: plugins::table(),
            cache: Cache::default(),
            queue,
            nominator: Nominator::default(),
            turn: Turn::new(RandomState::new().hash_one(0)),
            writes: JoinSet::new(),
            bindings: JoinSet::new(),
            interrupts: HashMap::new(),
        }
    }

    async fn run(&mut self) -> Result<(), Error> {
        let (mut pods, mut nodes) = (self.pods.subscribe(), self.nodes.subscribe());
        let (storage, devices) = (&self.surroundings.storage, &self.surroundings.devices);
        let mut around = Surroundings::subscribe(storage, devices);
        self.nodes.synced().await;
        self.pods.synced().await;
        self.surroundings.synced().await;
        self.look_at_all_nodes();
        self.look_at_all_pods();
        tracing::info!(nodes = self.cache.nodes().len(), "the scheduler is ready");
        loop {
            self.step(&mut pods, &mut nodes, &mut around).await?;
        }
    }

    /// Takes in one change, or else decides for one pod, or else waits.
    async fn step(
        &mut self,
        pods: &mut Changes<Pod>,
        nodes: &mut Changes<Node>,
        around: &mut Surroundings,
    ) -> Result<(), Error> {
        let can_decide = self.queue.has_next() && self.writes.len() < WRITES;
        let flush = self.queue.next_flush(Instant::now());
        tokio::select! {
            biased;
            Some(change) = nodes.next() => match change {
                Change::Applied { new: node, .. } | Change::Deleted(node) => {
                    self.look_at_node(&node.name_any());
                }
                Change::Lagged => self.look_at_all_nodes(),
            },
            Some(change) = pods.next() => match change {
                Change::Applied { new: pod, .. } | Change::Deleted(pod) => {
                    self.look_at_pod(&pod.namespace().unwrap_or_default(), &pod.name_any());
                }
                Change::Lagged => self.look_at_all_pods(),
            },
            change = around.next() => self.surroundings_changed(&change),
            Some(done) = self.writes.join_next() => self.done(done?),
            Some(done) = self.bindings.join_next() => self.done(done?),
            () = tokio::time::sleep_until(flush.unwrap_or_else(Instant::now)), if flush.is_some() => {
                self.queue.flush(Instant::now());
            }
            () = tokio::task::yield_now(), if can_decide => self.decide(),
        }
        Ok(())
    }

    /// Tries those pods again that a change of storage or devices may help.
    fn surroundings_changed(&mut self, change: &SurroundingChange) {
        match change {
            SurroundingChange::Claim(it) => self.wake(&Event::Claim(it.borrow()), |_| true),
            SurroundingChange::Volume(it) => self.wake(&Event::Volume(it.borrow()), |_| true),
            SurroundingChange::Class(it) => self.wake(&Event::StorageClass(it.borrow()), |_| true),
            SurroundingChange::CsiNode(it) => self.wake(&Event::CsiNode(it.borrow()), |_| true),
            SurroundingChange::Driver(it) => self.wake(&Event::CsiDriver(it.borrow()), |_| true),
            SurroundingChange::Capacity(it) => {
                self.wake(&Event::StorageCapacity(it.borrow()), |_| true);
            }
            SurroundingChange::Detached => self.wake(&Event::VolumeDetached, |_| true),
            SurroundingChange::ResourceClaim(it) => {
                self.wake(&Event::ResourceClaim(it.borrow()), |_| true);
            }
            SurroundingChange::DeviceClass(it) => {
                self.wake(&Event::DeviceClass(it.borrow()), |_| true);
            }
            SurroundingChange::ResourceSlice => self.wake(&Event::ResourceSlice, |_| true),
            SurroundingChange::Lost => {
                let now = Instant::now();
                self.queue
                    .wake(now, "ForceActivate", |pod| !pod.info.is_gated());
            }
        }
    }

    fn look_at_all_nodes(&mut self) {
        let known = self.cache.nodes().iter().map(|node| node.name.to_string());
        let listed = self.nodes.list();
        let names: HashSet<String> = listed
            .iter()
            .map(|node| node.name_any())
            .chain(known)
            .collect();
        for name in names {
            self.look_at_node(&name);
        }
    }

    fn look_at_all_pods(&mut self) {
        let known = self.cache.keys().chain(self.queue.keys());
        let listed = self.pods.list();
        let keys: HashSet<Key> = listed
            .iter()
            .map(|pod| pod::key(pod))
            .chain(known.cloned())
            .collect();
        for key in keys {
            if let Some((namespace, name)) = key.split_once('/') {
                self.look_at_pod(namespace, name);
            }
        }
    }

    /// Brings the cache up to date with the informer, whatever happened to the node.
    fn look_at_node(&mut self, name: &str) {
        let old = self.cache.node(name).map(|info| info.node.clone());
        match (old, self.nodes.get("", name)) {
            (None, None) => {}
            (Some(old), None) => {
                self.wake(&Event::NodeDeleted(&old), |_| true);
                self.cache.remove_node(name);
            }
            (None, Some(new)) => {
                self.cache.set_node(new.clone());
                self.wake(&Event::NodeAdded(&new), |_| true);
            }
            (Some(old), Some(new)) => {
                if Arc::ptr_eq(&old, &new) {
                    return;
                }
                self.cache.set_node(new.clone());
                if let Some(changes) = NodeChanges::between(&old, &new) {
                    let event = Event::NodeUpdated {
                        old: &old,
                        new: &new,
                        changes,
                    };
                    self.wake(&event, |_| true);
                }
            }
        }
    }

    /// Brings the cache and the queue up to date with the informer, whatever happened to the pod.
    fn look_at_pod(&mut self, namespace: &str, name: &str) {
        // A pod that has run to its end is as good as gone.
        let current = self
            .pods
            .get(namespace, name)
            .filter(|pod| !pod::is_terminal(pod));
        let key: Key = format!("{namespace}/{name}").into();
        let known = self
            .cache
            .pod(&key)
            .or_else(|| self.queue.get(&key).map(|queued| &queued.info))
            .cloned();
        if let (Some(known), Some(current)) = (&known, &current)
            && Arc::ptr_eq(&known.pod, current)
        {
            return;
        }
        let new = current.map(|pod| Arc::new(PodInfo::new(pod)));
        match (known, new) {
            (None, None) => {}
            (Some(old), None) => self.forget(&old),
            (None, Some(new)) => self.add(new),
            (Some(old), Some(new)) if old.uid() != new.uid() => {
                self.forget(&old);
                self.add(new);
            }
            (Some(old), Some(new)) => self.update(&old, &new),
        }
    }

    fn is_ours(&self, pod: &PodInfo) -> bool {
        let spec = pod.pod.spec.as_ref();
        let name = spec.and_then(|spec| spec.scheduler_name.as_deref());
        name == Some(&self.config.scheduler_name)
    }

    fn add(&mut self, pod: Arc<PodInfo>) {
        if !pod.node_name().is_empty() {
            self.cache.set_pod(pod.clone());
            self.wake(&Event::PodAdded(&pod), |_| true);
        } else if self.is_ours(&pod) {
            self.nominator.set(pod.clone(), pod.nominated_node_name());
            self.queue.add(pod, Instant::now());
        }
    }

    fn forget(&mut self, pod: &Arc<PodInfo>) {
        let placed = self.cache.remove_pod(&pod.key).is_some();
        self.queue.remove(&pod.key);
        self.nominator.remove(&pod.key);
        if placed {
            self.wake(&Event::PodDeleted(pod), |_| true);
        } else if !pod.nominated_node_name().is_empty() {
            let priority = pod.priority;
            self.wake(&Event::PodDeleted(pod), |other| other.priority <= priority);
        }
    }

    fn update(&mut self, old: &Arc<PodInfo>, new: &Arc<PodInfo>) {
        let changes = PodChanges::between(old, new);
        let changed = |changes| Event::PodUpdated { old, new, changes };
        if !new.node_name().is_empty() {
            let was_waiting = self.queue.remove(&new.key).is_some();
            let was_assumed = self.cache.is_assumed(&new.key);
            self.nominator.remove(&new.key);
            self.cache.set_pod(new.clone());
            if was_waiting || was_assumed {
                self.wake(&Event::PodAdded(new), |_| true);
            } else if let Some(changes) = changes {
                self.wake(&changed(changes), |_| true);
            }
            return;
        }
        if self.cache.is_assumed(&new.key) {
            // Its binding is under way. When it is being deleted, its room is free at once.
            if new.is_terminating() && !old.is_terminating() {
                self.cache.remove_pod(&new.key);
                self.wake(&Event::PodDeleted(new), |_| true);
            }
            return;
        }
        self.nominator.update(old, new);
        self.queue.update(new.clone());
        if let Some(changes) = changes {
            let key = new.key.clone();
            self.wake(&changed(changes), |other| other.key == key);
        }
        let nominated = old.nominated_node_name();
        if !nominated.is_empty() && nominated != new.nominated_node_name() {
            let priority = old.priority;
            self.wake(&Event::PodDeleted(old), |other| other.priority <= priority);
        }
    }

    /// Tries those pods again that the event may help, of those that `eligible` picks.
    fn wake(&mut self, event: &Event<'_>, eligible: impl Fn(&PodInfo) -> bool) {
        let cluster = Cluster {
            cache: &self.cache,
            nominator: &self.nominator,
            surroundings: &self.surroundings,
        };
        let plugins = &self.plugins;
        self.queue.wake(Instant::now(), event.label(), |pod| {
            eligible(&pod.info)
                && plugins.iter().any(|plugin| {
                    pod.rejectors.contains(plugin.name())
                        && plugin.may_help(&pod.info, event, &cluster)
                })
        });
    }

    /// Decides for the next pod of the queue.
    fn decide(&mut self) {
        let Some(queued) = self.queue.pop() else {
            return;
        };
        let pod = queued.info.clone();
        if pod.is_terminating() {
            let (namespace, name) = (pod.namespace(), pod.name());
            let message = format!("skip schedule deleting pod: {namespace}/{name}");
            self.actions.record_failure(&pod, &message);
            return;
        }
        let cluster = Cluster {
            cache: &self.cache,
            nominator: &self.nominator,
            surroundings: &self.surroundings,
        };
        let since = Instant::now();
        let outcome = schedule(&pod, &cluster, &self.plugins, &mut self.turn);
        metrics::decided(since.elapsed());
        metrics::cached(self.cache.nodes().len(), self.cache.pods());
        match outcome {
            Outcome::Node { name, devices } => self.bind(queued, &name, devices, since),
            Outcome::Error(why) => {
                metrics::attempted(Attempt::Error, since.elapsed());
                self.failed(queued, &why);
            }
            Outcome::NoNodes => {
                metrics::attempted(Attempt::Unschedulable, since.elapsed());
                let message = "no nodes available to schedule pods";
                self.report(&pod, "Unschedulable", message, Nomination::Clear);
                self.nominator.remove(&pod.key);
                self.queue
                    .put_back(queued, [].into(), false, Instant::now());
            }
            Outcome::Unfit(unfit) => {
                metrics::attempted(Attempt::Unschedulable, since.elapsed());
                self.unfit(queued, unfit);
            }
        }
    }

    /// No node could be chosen because of an error.
    fn failed(&mut self, queued: QueuedPod, why: &str) {
        let pod = queued.info.clone();
        tracing::warn!(pod = %pod.key, error = why, "cannot schedule the pod");
        self.nominator.remove(&pod.key);
        self.report(&pod, "SchedulerError", why, Nomination::Clear);
        self.queue
            .put_back(queued, [].into(), false, Instant::now());
    }

    fn bind(&mut self, queued: QueuedPod, node: &Arc<str>, devices: Plan, since: Instant) {
        let pod = queued.info.clone();
        let storage = &self.surroundings.storage;
        let found = self.cache.node(node);
        let plan = found.and_then(|found| volume_binding::plan(&pod, &found.node, &**storage));
        // The loop alone changes what the decision was made on, so there is always a plan.
        let plan = plan.unwrap_or_default();
        let devices = Reserved::new_for(devices, self.surroundings.devices.clone());
        let binding = Binding::new(pod.clone(), node.clone(), plan, storage.clone(), devices);
        self.cache.assume(pod.clone(), node);
        self.nominator.remove(&pod.key);
        let waits = binding.waits();
        if waits {
            let interrupt = binding.interrupt();
            self.interrupts.insert(pod.uid().to_owned(), interrupt);
        }
        let (actions, pods) = (self.actions.clone(), self.pods.clone());
        let counted = metrics::binding();
        let work = async move {
            let outcome = binding.run(&actions, &pods).await;
            drop(counted);
            match &outcome {
                Ok(()) => {
                    metrics::attempted(Attempt::Scheduled, since.elapsed());
                    metrics::bound(queued.attempts, queued.first.elapsed());
                }
                Err(_) => metrics::attempted(Attempt::Error, since.elapsed()),
            }
            Done::Bound {
                pod: queued,
                outcome,
            }
        };
        if waits {
            self.bindings.spawn(work);
        } else {
            self.writes.spawn(work);
        }
    }

    fn unfit(&mut self, queued: QueuedPod, unfit: Unfit) {
        let pod = queued.info.clone();
        let nomination = match &unfit.preemption {
            Preemption::Possible { node, .. } => {
                self.nominator.set(pod.clone(), node);
                Nomination::Set(node.to_string())
            }
            Preemption::Impossible(_) => {
                self.nominator.remove(&pod.key);
                Nomination::Clear
            }
            Preemption::Ineligible(_) => Nomination::Keep,
        };
        self.report(&pod, "Unschedulable", &unfit.message, nomination);
        let preempting = matches!(unfit.preemption, Preemption::Possible { .. });
        self.queue
            .put_back(queued, unfit.rejectors, preempting, Instant::now());
        if !matches!(unfit.claims, PostFilter::Nothing) {
            self.give_up(unfit.claims);
        }
        if let Preemption::Possible { node, victims } = unfit.preemption {
            self.preempt(pod, node, victims);
        }
    }

    /// Gives a claim of devices up that does not help its pod.
    fn give_up(&mut self, claims: PostFilter) {
        let actions = self.actions.clone();
        let work = async move {
            match &claims {
                PostFilter::Nothing => Ok(()),
                PostFilter::Deallocate(claim) => {
                    devices::binding::deallocate(claim, &actions).await
                }
                PostFilter::Delete(claim) => devices::binding::delete(claim, &actions).await,
            }
        };
        self.writes.spawn(async move {
            if let Err(error) = work.await {
                tracing::warn!(error, "cannot give up a claim of devices");
            }
            Done::Reported
        });
    }

    fn preempt(&mut self, pod: Arc<PodInfo>, node: Arc<str>, victims: Vec<Arc<PodInfo>>) {
        metrics::preempts(victims.len());
        let void: Vec<Arc<PodInfo>> = self
            .nominator
            .on(&node)
            .iter()
            .filter(|other| other.priority < pod.priority)
            .cloned()
            .collect();
        // Those that are not bound yet need not be deleted: they look for another node.
        let (waiting, victims): (Vec<_>, Vec<_>) = victims.into_iter().partition(|victim| {
            let interrupt = self.interrupts.get(victim.uid());
            interrupt.is_some_and(Interrupt::give_up)
        });
        for victim in waiting {
            let how = " (in kube-scheduler memory).";
            self.actions.record_preempted(&pod, &node, &victim, how);
        }
        let actions = self.actions.clone();
        self.writes.spawn(async move {
            let outcome = actions.preempt(&pod, &node, &victims, &void).await;
            if let Err(error) = &outcome {
                tracing::warn!(pod = %pod.key, node = %node, %error, "cannot preempt");
            }
            Done::Preempted {
                preemptor: pod.key.clone(),
                failed: outcome.is_err(),
            }
        });
    }

    /// Tells the user and the API that the pod could not be scheduled.
    fn report(&mut self, pod: &Arc<PodInfo>, reason: &str, message: &str, nomination: Nomination) {
        self.actions.record_failure(pod, message);
        let condition = condition(pod, "PodScheduled", "False", reason, message);
        let (actions, pod) = (self.actions.clone(), pod.clone());
        self.writes.spawn(async move {
            if let Err(error) = actions.report(&pod, condition, &nomination).await {
                tracing::debug!(pod = %pod.key, %error, "cannot update the pod's status");
            }
            Done::Reported
        });
    }

    fn done(&mut self, done: Done) {
        if let Done::Bound { pod, .. } = &done {
            self.interrupts.remove(pod.info.uid());
        }
        match done {
            Done::Reported
            | Done::Bound {
                outcome: Ok(()), ..
            } => {}
            Done::Preempted { preemptor, failed } => {
                self.queue
                    .preemption_done(&preemptor, failed, Instant::now());
            }
            Done::Bound {
                pod,
                outcome: Err(error),
            } => self.not_bound(pod, &error),
        }
    }

    /// Gives the room back and tries again, unless the pod is gone or bound after all.
    fn not_bound(&mut self, mut queued: QueuedPod, error: &binding::Error) {
        let pod = queued.info.clone();
        let still_assumed = self.cache.is_assumed(&pod.key)
            && self
                .cache
                .pod(&pod.key)
                .is_some_and(|known| known.uid() == pod.uid());
        if !still_assumed {
            return;
        }
        self.cache.remove_pod(&pod.key);
        self.wake(&Event::PodDeleted(&pod), |_| true);
        self.wake(&Event::DevicesReleased, |_| true);
        let message = error.to_string();
        tracing::warn!(pod = %pod.key, %error, "cannot bind the pod");
        let Some(current) = self.pods.get(pod.namespace(), pod.name()) else {
            return self.actions.record_failure(&pod, &message);
        };
        let current = Arc::new(PodInfo::new(current));
        if current.uid() != pod.uid() || !current.node_name().is_empty() {
            // What the informer says next is taken in as a pod that is new here.
            return self.look_at_pod(pod.namespace(), pod.name());
        }
        self.report(&current, "SchedulerError", &message, Nomination::Clear);
        queued.info = current;
        self.queue
            .put_back(queued, [].into(), false, Instant::now());
    }
}
