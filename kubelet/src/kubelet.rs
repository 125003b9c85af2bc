//! The kubelet: its parts, put together and run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coracle_client::{EventRecorder, Informers};
use coracle_metrics::Page;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Client;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Config,
    cgroups::Cgroups,
    cri::Cri,
    host::{NodeHost, Running},
    node::{Dependencies, Machine, NodeAgent, Pressure},
    pods::{
        admission::NodeView,
        images::Images,
        manager::{Manager, ViewNode},
        reporter::Reporter,
        resources,
        services::{Index, NodeFacts, Services},
    },
    runtime::{self, Hints, Supervisor},
    server::Host,
    stats::Statistics,
    volumes::Volumes,
};

/// Hints of the runtime that wait to be looked at; more hold the runtime's stream back.
const HINTS: usize = 256;

/// Why the kubelet cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error("a part of the kubelet failed: {0}")]
    Part(#[from] tokio::task::JoinError),
    #[error("a part of the kubelet ended: {0}")]
    Ended(&'static str),
}

/// The node agent.
pub struct Kubelet {
    config: Config,
    client: Client,
    informers: Informers,
    host: Arc<NodeHost>,
}

impl Kubelet {
    /// `client` acts as the node; `informers` are shared by the process.
    pub fn new(config: Config, client: Client, informers: Informers) -> Self {
        Kubelet {
            host: Arc::new(NodeHost::new(config.clone())),
            config,
            client,
            informers,
        }
    }

    /// Has the node's page of metrics show more of this process.
    pub fn show_metrics(&self, other: fn(&mut Page)) {
        self.host.show(other);
    }

    /// What the node's HTTPS endpoints ask; it answers once the kubelet runs.
    pub fn host(&self) -> Arc<dyn Host> {
        self.host.clone()
    }

    /// Runs the node until `shutdown`. The pods and the runtime go on running then, and are found
    /// again by the next run.
    ///
    /// # Errors
    /// When the runtime cannot be set up, or a part fails; run a new kubelet then.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let ending = shutdown.child_token();
        let mut parts: JoinSet<Result<&'static str, Error>> = JoinSet::new();
        self.start(&mut parts, &ending);
        let result = match parts.join_next().await {
            _ if shutdown.is_cancelled() => Ok(()),
            None => Ok(()),
            Some(Ok(Ok(part))) => Err(Error::Ended(part)),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(Error::Part(error)),
        };
        ending.cancel();
        while parts.join_next().await.is_some() {}
        self.host.set(None);
        result
    }

    fn start(&self, parts: &mut JoinSet<Result<&'static str, Error>>, ending: &CancellationToken) {
        let config = &self.config;
        let cri = Cri::new(&config.runtime_socket());
        let supervisor = Supervisor::new(config, cri.clone());
        let (health, poke) = (supervisor.health(), supervisor.poke());
        let recorder = EventRecorder::new(self.client.clone(), "kubelet", &config.node_name);
        let machine = Machine::read(&config.root_dir);
        let facts = Arc::new(NodeFacts {
            allocatable: machine.allocatable(config.max_pods),
        });
        let (pressure_sender, pressure) = watch::channel(Pressure::default());
        let reporter = Arc::new(Reporter::new(self.client.clone()));
        let services = Arc::new(Services {
            config: config.clone(),
            client: self.client.clone(),
            cri: cri.clone(),
            recorder: recorder.clone(),
            cgroups: Cgroups::detect(),
            health: health.clone(),
            images: Images::new(cri.clone(), recorder, at_once(config)),
            volumes: Volumes::new(self.client.clone(), &config.root_dir),
            services: self.informers.get::<Service>(),
            reporter: reporter.clone(),
            machine: limits_of(&machine),
            node: watch::channel(facts).1,
            index: Index::default(),
            started: Timestamp::now(),
            seccomp_root: config.root_dir.join("seccomp"),
        });
        let statistics = Statistics::new(config, services.cgroups.clone(), services.kubepods());
        let volumes = services.volumes.clone();
        let pods = self.informers.get::<Pod>();
        let manager = Arc::new(Manager::new(
            services,
            pods,
            self.view_node(&machine, &health),
        ));
        self.host.set(Some(Running {
            manager: manager.clone(),
            health: health.clone(),
            statistics: Arc::new(statistics),
            cri: cri.clone(),
            volumes,
        }));
        let agent = NodeAgent::new(
            Arc::new(config.clone()),
            Dependencies {
                client: self.client.clone(),
                informers: self.informers.clone(),
                cri: cri.clone(),
                health: health.clone(),
                runtime_poke: poke,
                pressure,
                images_changed: Arc::new(Notify::new()),
            },
        );
        let (hints, hints_read) = mpsc::channel(HINTS);

        let until = ending.clone();
        parts.spawn(async move {
            supervisor.run(until).await?;
            Ok("runtime")
        });
        let events = ending
            .clone()
            .run_until_cancelled_owned(Hints::new(cri, health).run(hints));
        parts.spawn(async move {
            events.await;
            Ok("events")
        });
        parts.spawn(reporter.run(ending.clone()).ends("reporter", ending));
        parts.spawn(agent.run(ending.clone()).ends("node", ending));
        let manager = manager.run(hints_read, ending.clone());
        parts.spawn(
            async move {
                manager.await;
                drop(pressure_sender);
            }
            .ends("pods", ending),
        );
    }

    /// How admission sees the node.
    fn view_node(&self, machine: &Machine, health: &runtime::HealthWatch) -> ViewNode {
        let nodes = self.informers.get::<Node>();
        let (config, health) = (self.config.clone(), health.clone());
        let allocatable = machine.allocatable(config.max_pods);
        Arc::new(move || {
            let node = nodes.get("", &config.node_name);
            let labels = node.as_ref().and_then(|node| node.metadata.labels.clone());
            let spec = node.as_ref().and_then(|node| node.spec.as_ref());
            NodeView {
                name: config.node_name.clone(),
                labels: labels.unwrap_or_else(|| config.node_labels.clone()),
                taints: spec
                    .and_then(|spec| spec.taints.clone())
                    .unwrap_or_default(),
                allocatable: allocatable.clone(),
                supplemental_groups_policy: health.get().supplemental_groups_policy,
                allowed_unsafe_sysctls: config.allowed_unsafe_sysctls.clone(),
            }
        })
    }
}

/// How long a part of the kubelet has to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A part of the kubelet, which ends with the others.
trait Part: Future<Output = ()> + Sized + Send + 'static {
    fn ends(
        self,
        name: &'static str,
        ending: &CancellationToken,
    ) -> impl Future<Output = Result<&'static str, Error>> + Send + 'static {
        let ending = ending.clone();
        async move {
            tokio::pin! {
                let part = self;
            }
            tokio::select! {
                () = &mut part => {}
                // Those that look for the end themselves have to clear up.
                () = ending.cancelled() => {
                    let ended = tokio::time::timeout(PATIENCE, part).await;
                    if ended.is_err() {
                        warn!(part = name, "did not end in time");
                    }
                }
            }
            Ok(name)
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Part for F {}

fn at_once(config: &Config) -> Option<usize> {
    match config.serialize_image_pulls {
        true => Some(1),
        false => config.max_parallel_image_pulls,
    }
}

/// What limits of containers depend on: the kernel calls a size `2MB` that the API calls `2Mi`.
fn limits_of(machine: &Machine) -> resources::Machine {
    let sizes: &BTreeMap<String, u64> = &machine.huge_pages;
    resources::Machine {
        memory: i64::try_from(machine.memory).unwrap_or(i64::MAX),
        hugepage_sizes: sizes
            .keys()
            .map(|size| format!("{}B", size.trim_end_matches('i')))
            .collect(),
    }
}
