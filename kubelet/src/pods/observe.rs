//! Asking the runtime about a pod.

use std::collections::HashMap;

use futures::{StreamExt as _, stream};
use k8s_cri::v1::{
    ContainerFilter, ContainerStatusRequest, ListContainersRequest, ListPodSandboxRequest,
    PodSandboxFilter, PodSandboxStatusRequest,
};
use tonic::Status;

use super::{
    errors::is_not_found,
    labels, last_words,
    observed::{Observed, Sandbox, Seen},
};
use crate::cri::Cri;

/// Questions asked at the same time.
const AT_ONCE: usize = 16;

/// Everything that the runtime knows of a pod.
pub async fn all(cri: &Cri, pod_uid: &str) -> Result<Observed, Status> {
    let selector: HashMap<String, String> =
        [(labels::POD_UID.to_owned(), pod_uid.to_owned())].into();
    let (mut sandboxes, mut containers) = (cri.runtime.clone(), cri.runtime.clone());
    let (sandboxes, containers) = tokio::try_join!(
        sandboxes.list_pod_sandbox(ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                label_selector: selector.clone(),
                ..PodSandboxFilter::default()
            }),
        }),
        containers.list_containers(ListContainersRequest {
            filter: Some(ContainerFilter {
                label_selector: selector.clone(),
                ..ContainerFilter::default()
            }),
        }),
    )?;
    let mut observed = Observed::default();
    for item in sandboxes.into_inner().items {
        if let Some(sandbox) = sandbox(cri, &item.id).await? {
            observed.put_sandbox(sandbox);
        }
    }
    let containers = containers.into_inner().containers;
    let mut statuses = stream::iter(
        containers
            .into_iter()
            .map(|item| async move { container(cri, &item.id, &item.pod_sandbox_id).await }),
    )
    .buffer_unordered(AT_ONCE);
    while let Some(seen) = statuses.next().await {
        if let Some(seen) = seen? {
            observed.put_container(seen);
        }
    }
    Ok(observed)
}

/// A sandbox, if the runtime has it.
pub async fn sandbox(cri: &Cri, id: &str) -> Result<Option<Sandbox>, Status> {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: id.to_owned(),
        verbose: false,
    };
    match cri.runtime.clone().pod_sandbox_status(request).await {
        Ok(response) => Ok(response.into_inner().status.and_then(Sandbox::new)),
        Err(status) if is_not_found(&status) => Ok(None),
        Err(status) => Err(status),
    }
}

/// A container, if the runtime has it.
pub async fn container(cri: &Cri, id: &str, sandbox_id: &str) -> Result<Option<Seen>, Status> {
    let request = ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: false,
    };
    match cri.runtime.clone().container_status(request).await {
        Ok(response) => Ok(response
            .into_inner()
            .status
            .map(|status| Seen::new(status, sandbox_id, last_words::read))),
        Err(status) if is_not_found(&status) => Ok(None),
        Err(status) => Err(status),
    }
}
