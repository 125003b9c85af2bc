//! What the container runtime alone takes for a pod of one container.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use coracle_kubelet::cri::Cri;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig,
    LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
};

use crate::{
    cluster::IMAGE,
    node::PODS,
    report::{line, percentile, seconds},
};

/// The median time from asking for a sandbox until its container runs. Prints it.
///
/// The sandbox gets its network from the node's CNI plugin, for any client of CRI waits for that.
pub async fn alone(socket: &Path) -> Duration {
    let cri = Cri::new(socket);
    let mut times = Vec::new();
    for number in 0..PODS {
        let begun = Instant::now();
        let sandbox = Box::pin(start(&cri, &format!("alone-{number}"))).await;
        times.push(begun.elapsed());
        remove(&cri, sandbox).await;
    }
    let median = percentile(&mut times, 50);
    line("runtime alone: sandbox and container, p50", seconds(median));
    line(
        "runtime alone: sandbox and container, p95",
        seconds(percentile(&mut times, 95)),
    );
    median
}

async fn start(cri: &Cri, name: &str) -> String {
    let mut runtime = cri.runtime.clone();
    let pod = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: name.to_owned(),
            namespace: "bench".to_owned(),
            attempt: 0,
        }),
        linux: Some(LinuxPodSandboxConfig::default()),
        ..PodSandboxConfig::default()
    };
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: "main".to_owned(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: IMAGE.to_owned(),
            ..ImageSpec::default()
        }),
        command: vec!["sleep".to_owned(), "3600".to_owned()],
        linux: Some(LinuxContainerConfig::default()),
        ..ContainerConfig::default()
    };
    let sandbox = runtime.run_pod_sandbox(RunPodSandboxRequest {
        config: Some(pod.clone()),
        runtime_handler: String::new(),
    });
    let sandbox = sandbox.await.expect("a sandbox").into_inner();
    let container = runtime.create_container(CreateContainerRequest {
        pod_sandbox_id: sandbox.pod_sandbox_id.clone(),
        config: Some(container),
        sandbox_config: Some(pod),
    });
    let container_id = container
        .await
        .expect("a container")
        .into_inner()
        .container_id;
    let started = runtime.start_container(StartContainerRequest { container_id });
    started.await.expect("the container starts");
    sandbox.pod_sandbox_id
}

async fn remove(cri: &Cri, pod_sandbox_id: String) {
    let mut runtime = cri.runtime.clone();
    let stopped = runtime.stop_pod_sandbox(StopPodSandboxRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
    });
    stopped.await.expect("the sandbox stops");
    let removed = runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id });
    removed.await.expect("the sandbox goes");
}
