//! What the tasks of all pods share: the runtime, the API, images, volumes, and what is known of
//! the node.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coracle_api::quantity::ResourceList;
use coracle_client::{EventRecorder, EventType, Informer};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    node::v1::RuntimeClass,
};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    images::Images,
    reporter::Reporter,
    resources::Machine,
    security,
    spec::{ContainerKind, container_reference, pod_reference, spec},
};
use crate::{
    cgroups::Cgroups,
    config::Config,
    cri::Cri,
    runtime::{Health, HealthWatch},
    volumes::Volumes,
};

/// How long the runtime may take for anything but pulling images and stopping containers.
pub const RUNTIME_TIMEOUT: Duration = Duration::from_secs(240);

/// What of the node pods depend on; it may change.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    pub allocatable: ResourceList,
}

/// Shared by the tasks of all pods.
pub struct Services {
    pub config: Config,
    pub client: Client,
    pub cri: Cri,
    pub recorder: EventRecorder,
    pub cgroups: Cgroups,
    pub health: HealthWatch,
    pub images: Images,
    pub volumes: Volumes,
    pub services: Informer<Service>,
    pub reporter: Arc<Reporter>,
    pub machine: Machine,
    pub node: watch::Receiver<Arc<NodeFacts>>,
    pub index: Index,
    /// When this kubelet was started.
    pub started: Timestamp,
    pub seccomp_root: PathBuf,
}

/// Which pod a container or sandbox belongs to.
#[derive(Debug, Default)]
pub struct Index(Mutex<HashMap<String, String>>);

impl Index {
    pub fn insert(&self, id: &str, pod_uid: &str) {
        self.0.lock().insert(id.to_owned(), pod_uid.to_owned());
    }

    pub fn remove(&self, id: &str) {
        self.0.lock().remove(id);
    }

    /// The identity of the pod that the container or sandbox belongs to.
    pub fn pod_of(&self, id: &str) -> Option<String> {
        self.0.lock().get(id).cloned()
    }

    /// The identities of all pods that have something in the runtime.
    pub fn pods(&self) -> std::collections::BTreeSet<String> {
        self.0.lock().values().cloned().collect()
    }

    pub fn has_pod(&self, pod_uid: &str) -> bool {
        self.0.lock().values().any(|uid| uid == pod_uid)
    }
}

impl Services {
    /// The group of all pods.
    pub fn kubepods(&self) -> PathBuf {
        self.config.cgroup_root.join("kubepods")
    }

    pub fn host_ips(&self) -> Vec<String> {
        let ips = self.config.node_ips.iter();
        ips.map(std::net::IpAddr::to_string).collect()
    }

    pub fn health(&self) -> Arc<Health> {
        self.health.get()
    }

    pub fn security_policy(&self) -> security::Policy<'_> {
        security::Policy {
            seccomp_root: &self.seccomp_root,
            seccomp_default: self.config.seccomp_default,
        }
    }

    pub fn container_log_dir(&self, pod: &Pod, container: &str) -> PathBuf {
        self.pod_log_dir(pod).join(container)
    }

    pub fn pod_log_dir(&self, pod: &Pod) -> PathBuf {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        self.config
            .pod_log_dir(&namespace, &name, &text(&metadata.uid))
    }

    /// Tells of something that happened to a pod.
    pub fn pod_event(&self, pod: &Pod, event_type: EventType, reason: &str, message: &str) {
        self.recorder
            .event(pod_reference(pod), event_type, reason, message);
    }

    /// Tells of something that happened to a container of a pod.
    pub fn container_event(
        &self,
        pod: &Pod,
        container: (ContainerKind, &str),
        event_type: EventType,
        reason: &str,
        message: &str,
    ) {
        let involved = container_reference(pod, container.0, container.1);
        self.recorder.event(involved, event_type, reason, message);
    }

    /// The runtime's name for what the pod's runtime class asks for; empty for the default.
    ///
    /// # Errors
    /// In upstream's words, when there is no such class.
    pub async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let class = spec(pod).runtime_class_name.as_deref();
        let Some(name) = class.filter(|name| !name.is_empty()) else {
            return Ok(String::new());
        };
        let classes: Api<RuntimeClass> = Api::all(self.client.clone());
        match classes.get(name).await {
            Ok(class) => Ok(class.handler),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                Err(format!("RuntimeClass.node.k8s.io {name:?} not found"))
            }
            Err(error) => Err(format!("failed to lookup RuntimeClass {name}: {error}")),
        }
    }

    /// Whether the runtime that the pod runs on can mount recursively read-only.
    pub fn recursive_read_only_mounts(&self) -> bool {
        let health = self.health();
        let default = health
            .handlers
            .iter()
            .find(|handler| handler.name.is_empty());
        default.is_some_and(|handler| handler.recursive_read_only_mounts)
    }

    /// The directory of a pod below the kubelet's root.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.pod_dir(uid)
    }

    /// What the host resolves names with.
    pub fn host_resolver(&self) -> k8s_cri::v1::DnsConfig {
        let file: &Path = &self.config.resolv_conf;
        super::dns::parse(&std::fs::read_to_string(file).unwrap_or_default())
    }
}
