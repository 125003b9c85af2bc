//! The Node object of this machine: registered, kept up to date, and shown to be alive by a Lease.
//!
//! Enter at [`NodeAgent`]. The status is derived whole from what the machine, the runtime and
//! eviction say ([`status`]); it is written when it changes, and every five minutes.

mod lease;
mod machine;
mod network;
mod status;

use std::{sync::Arc, time::Duration};

use coracle_client::{EventRecorder, EventType, Informer, Informers, InvolvedObject};
use k8s_cri::v1::ListImagesRequest;
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{Config, cri::Cri, runtime::HealthWatch};

pub use machine::Machine;
pub use status::Pressure;

/// Before a write that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How long the runtime may take to start until a node that was Ready is said not to be.
const STARTING: Duration = Duration::from_secs(10);

/// What the agent needs of the rest of the kubelet.
pub struct Dependencies {
    pub client: Client,
    pub informers: Informers,
    pub cri: Cri,
    pub health: HealthWatch,
    /// Told when the pod network was set up, so that the runtime is asked again at once.
    pub runtime_poke: Arc<Notify>,
    /// What the node is short of.
    pub pressure: watch::Receiver<Pressure>,
    /// Told when the node's images have changed.
    pub images_changed: Arc<Notify>,
}

/// Keeps the Node object of this machine.
pub struct NodeAgent {
    config: Arc<Config>,
    machine: Machine,
    api: Api<Node>,
    nodes: Informer<Node>,
    recorder: EventRecorder,
    dependencies: Dependencies,
}

impl NodeAgent {
    /// Reads what the machine is; call it within a runtime.
    pub fn new(config: Arc<Config>, dependencies: Dependencies) -> Self {
        NodeAgent {
            machine: Machine::read(&config.root_dir),
            api: Api::all(dependencies.client.clone()),
            nodes: dependencies.informers.get::<Node>(),
            recorder: EventRecorder::new(dependencies.client.clone(), "kubelet", &config.node_name),
            config,
            dependencies,
        }
    }

    /// What the machine has, for those that admit pods and fill in downward fields.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Registers the node and keeps it until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        // Synced first, so that the status begins with the conditions as they stand.
        self.nodes.synced().await;
        self.event(EventType::Normal, "Starting", "Starting kubelet.");
        self.register().await;
        let lease = lease::renew(self.config.clone(), self.dependencies.client.clone());
        let network = network::follow(
            self.config.clone(),
            self.nodes.clone(),
            self.dependencies.runtime_poke.clone(),
        );
        tokio::select! {
            () = lease => {}
            () = network => {}
            () = self.report() => {}
        }
    }

    /// Creates the Node, or gives the one that exists our labels. Goes on until it is done.
    async fn register(&self) {
        loop {
            match self.try_register().await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "cannot register the node, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_register(&self) -> Result<(), kube::Error> {
        let labels = status::labels(&self.config);
        let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
        let node = Node {
            metadata: ObjectMeta {
                name: Some(self.config.node_name.clone()),
                labels: Some(labels.clone()),
                annotations: serde_json::from_value(annotations.clone()).ok(),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: (!self.config.node_taints.is_empty())
                    .then(|| self.config.node_taints.clone()),
                ..NodeSpec::default()
            }),
            status: Some(self.status(None).await),
        };
        match self.api.create(&PostParams::default(), &node).await {
            Ok(_) => {
                tracing::info!(node = self.config.node_name, "the node is registered");
                Ok(())
            }
            Err(kube::Error::Api(error)) if error.is_already_exists() => {
                let patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
                let name = &self.config.node_name;
                self.api
                    .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                    .await?;
                tracing::info!(node = name, "the node was registered before");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the status whenever it changes, and in any case every
    /// [`Config::node_status_update_frequency`].
    async fn report(&mut self) {
        // Nothing is known of a runtime that starts with us: that is no reason to say that a node
        // which was Ready is not.
        let _ = tokio::time::timeout(STARTING, self.settle()).await;
        loop {
            if let Err(error) = self.write().await {
                tracing::debug!(%error, "cannot write the node's status, trying again");
                if matches!(&error, kube::Error::Api(error) if error.is_not_found()) {
                    self.register().await;
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
            tokio::select! {
                () = self.dependencies.health.changed() => {}
                Ok(()) = self.dependencies.pressure.changed() => {}
                () = self.dependencies.images_changed.notified() => {}
                () = tokio::time::sleep(self.config.node_status_update_frequency) => {}
            }
        }
    }

    /// Waits until the status would not take back that the node is Ready.
    async fn settle(&mut self) {
        loop {
            let known = self.nodes.get("", &self.config.node_name);
            let before = known.as_ref().and_then(|node| node.status.as_ref());
            if !status::takes_back(before, &self.status(before).await) {
                return;
            }
            self.dependencies.health.changed().await;
        }
    }

    async fn write(&self) -> Result<(), kube::Error> {
        let name = &self.config.node_name;
        let known = self.nodes.get("", name);
        let before = known.as_ref().and_then(|node| node.status.as_ref());
        let status = self.status(before).await;
        for (reason, message) in status::transitions(before, &status, name) {
            self.event(EventType::Normal, reason, &message);
        }
        let patch = Patch::Strategic(json!({"status": status}));
        self.api
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .map(|_| ())
    }

    async fn status(
        &self,
        before: Option<&k8s_openapi::api::core::v1::NodeStatus>,
    ) -> k8s_openapi::api::core::v1::NodeStatus {
        let images = self
            .dependencies
            .cri
            .image
            .clone()
            .list_images(ListImagesRequest::default())
            .await;
        let images = images
            .map(|listed| listed.into_inner().images)
            .unwrap_or_default();
        let health = self.dependencies.health.get();
        let pressure = *self.dependencies.pressure.borrow();
        status::status(&status::Facts {
            config: &self.config,
            machine: &self.machine,
            health: &health,
            images: &images,
            pressure,
            before,
            now: jiff::Timestamp::now(),
        })
    }

    fn event(&self, event_type: EventType, reason: &str, message: &str) {
        let node = InvolvedObject {
            kind: Some("Node".to_owned()),
            name: Some(self.config.node_name.clone()),
            // Upstream's kubelet gives the name for the identifier, and `describe` looks for it.
            uid: Some(self.config.node_name.clone()),
            ..InvolvedObject::default()
        };
        self.recorder.event(node, event_type, reason, message);
    }
}
