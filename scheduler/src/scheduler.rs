//! The scheduling loop: one task that owns the queue and the cache, takes in what changes
//! ([`intake`]), and decides for one pod after the other. Binding and all other writing happens
//! beside it ([`outcome`]).

mod intake;
mod outcome;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
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
    actions::{Actions, Nomination},
    binding::{self, Interrupt},
    cache::Cache,
    cluster::{Cluster, Informed},
    framework::Listed,
    metrics::{self, Attempt},
    nominator::Nominator,
    plugins::{self, dynamic_resources},
    pod::Key,
    queue::{QueuedPod, SchedulingQueue},
    schedule::{Outcome, Turn, schedule},
    surroundings::Surroundings,
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
}
