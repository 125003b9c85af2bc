//! Finds pods and containers in the runtime, by the labels that the kubelet put on them.

use std::collections::HashMap;

use async_trait::async_trait;
use k8s_cri::v1::{
    Container, ContainerFilter, ContainerState, ContainerStateValue, ContainerStatus,
    ContainerStatusRequest, ListContainersRequest, ListPodSandboxRequest, PodSandbox,
    PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
};
use tonic::{Code, Status};

use super::logs::Liveness;
use crate::cri::Cri;

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Names a pod. Without a UID, the newest pod of the name.
#[derive(Clone, Debug)]
pub struct PodId {
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
}

impl PodId {
    fn labels(&self) -> HashMap<String, String> {
        let mut labels = HashMap::from([
            (POD_NAMESPACE.to_owned(), self.namespace.clone()),
            (POD_NAME.to_owned(), self.name.clone()),
        ]);
        if let Some(uid) = &self.uid {
            labels.insert(POD_UID.to_owned(), uid.clone());
        }
        labels
    }
}

/// What the runtime runs.
#[derive(Clone, Debug)]
pub struct Containers(Cri);

impl Containers {
    pub fn new(cri: Cri) -> Self {
        Containers(cri)
    }

    /// The id of the running container of the name.
    pub async fn running(&self, pod: &PodId, container: &str) -> Result<Option<String>, Status> {
        let newest = self
            .newest(pod, container, Some(ContainerState::ContainerRunning))
            .await?;
        Ok(newest.map(|container| container.id))
    }

    /// The id of the latest container of the name, in whatever state.
    pub async fn latest(&self, pod: &PodId, container: &str) -> Result<Option<String>, Status> {
        let newest = self.newest(pod, container, None).await?;
        Ok(newest.map(|container| container.id))
    }

    async fn newest(
        &self,
        pod: &PodId,
        container: &str,
        state: Option<ContainerState>,
    ) -> Result<Option<Container>, Status> {
        let mut labels = pod.labels();
        labels.insert(CONTAINER_NAME.to_owned(), container.to_owned());
        let request = ListContainersRequest {
            filter: Some(ContainerFilter {
                state: state.map(|state| ContainerStateValue {
                    state: state.into(),
                }),
                label_selector: labels,
                ..ContainerFilter::default()
            }),
        };
        let response = self.0.runtime.clone().list_containers(request).await?;
        let containers = response.into_inner().containers.into_iter();
        Ok(containers.max_by_key(|container| container.created_at))
    }

    /// The id of the pod's sandbox that is ready.
    pub async fn sandbox(&self, pod: &PodId) -> Result<Option<String>, Status> {
        let sandboxes = self.ready_sandboxes(pod.labels()).await?.into_iter();
        let newest = sandboxes.max_by_key(|sandbox| sandbox.created_at);
        Ok(newest.map(|sandbox| sandbox.id))
    }

    async fn ready_sandboxes(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<PodSandbox>, Status> {
        let request = ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                state: Some(PodSandboxStateValue {
                    state: PodSandboxState::SandboxReady.into(),
                }),
                label_selector: labels,
                ..PodSandboxFilter::default()
            }),
        };
        let response = self.0.runtime.clone().list_pod_sandbox(request).await?;
        Ok(response.into_inner().items)
    }

    /// Every pod that runs, with its running containers.
    pub async fn running_pods(&self) -> Result<Vec<(PodSandbox, Vec<Container>)>, Status> {
        let sandboxes = self.ready_sandboxes(HashMap::new()).await?;
        let request = ListContainersRequest {
            filter: Some(ContainerFilter {
                state: Some(ContainerStateValue {
                    state: ContainerState::ContainerRunning.into(),
                }),
                ..ContainerFilter::default()
            }),
        };
        let response = self.0.runtime.clone().list_containers(request).await?;
        let mut by_sandbox: HashMap<String, Vec<Container>> = HashMap::new();
        for container in response.into_inner().containers {
            let sandbox = container.pod_sandbox_id.clone();
            by_sandbox.entry(sandbox).or_default().push(container);
        }
        let pods = sandboxes.into_iter().map(|sandbox| {
            let containers = by_sandbox.remove(&sandbox.id).unwrap_or_default();
            (sandbox, containers)
        });
        Ok(pods.collect())
    }

    pub async fn status(&self, id: &str) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let response = self.0.runtime.clone().container_status(request).await?;
        let status = response.into_inner().status;
        status.ok_or_else(|| Status::internal("container status is nil"))
    }

    pub fn cri(&self) -> &Cri {
        &self.0
    }
}

/// A container whose log is followed.
pub struct Followed {
    pub containers: Containers,
    pub id: String,
}

#[async_trait]
impl Liveness for Followed {
    async fn is_running(&self) -> bool {
        match self.containers.status(&self.id).await {
            Ok(status) => status.state() == ContainerState::ContainerRunning,
            // Containers outlive a runtime that is restarted.
            Err(status) => status.code() == Code::Unavailable,
        }
    }
}
