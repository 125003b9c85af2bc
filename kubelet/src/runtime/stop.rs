//! Takes everything of a node down: pods, sandboxes, containerd, its shims, mounts and cgroups.
//!
//! Nothing stops at its first error: what cannot be taken down is told, and the rest goes on.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use k8s_cri::v1::{
    ListPodSandboxRequest, RemovePodSandboxRequest, StopPodSandboxRequest, VersionRequest,
};
use nix::mount::{MntFlags, umount2};

use super::{Paths, process};
use crate::{
    cgroups,
    config::{Config, RuntimeSource},
    cri::Cri,
    volumes::mounts_below,
};

/// For a runtime to answer whether it is there.
const ANSWER: Duration = Duration::from_secs(2);
/// For one sandbox to stop; its containers are killed.
const SANDBOX: Duration = Duration::from_secs(30);
/// For a process to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to remove a sandbox.
const AGAIN: Duration = Duration::from_millis(100);
/// Sandboxes taken down at once.
const AT_ONCE: usize = 16;

/// Stops everything that the kubelet of `config` runs or has left behind, and leaves the data.
/// Returns what could not be taken down.
pub async fn stop_all(config: &Config) -> Vec<String> {
    let mut errors = Vec::new();
    let cri = Cri::new(&config.runtime_socket());
    let mut runtime = cri.runtime.clone();
    let answers = runtime.version(VersionRequest::default());
    if matches!(tokio::time::timeout(ANSWER, answers).await, Ok(Ok(_))) {
        remove_sandboxes(&cri, &mut errors).await;
    }
    if matches!(config.runtime, RuntimeSource::Managed(_)) {
        end_processes(&Paths::new(&config.data_dir), &mut errors).await;
    }
    let kubepods = config.cgroup_root.join("kubepods");
    errors.extend(cgroups::remove_tree(&kubepods).await);
    for directory in [&config.root_dir, &config.data_dir] {
        unmount_below(directory, &mut errors);
    }
    errors
}

async fn remove_sandboxes(cri: &Cri, errors: &mut Vec<String>) {
    let listed = cri
        .runtime
        .clone()
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await;
    let sandboxes = match listed {
        Ok(listed) => listed.into_inner().items,
        Err(status) => {
            errors.push(format!("cannot list the sandboxes: {}", status.message()));
            return;
        }
    };
    let removals = sandboxes
        .into_iter()
        .map(|sandbox| remove_sandbox(cri, sandbox.id));
    let mut removals = futures::stream::iter(removals).buffer_unordered(AT_ONCE);
    while let Some(error) = removals.next().await {
        errors.extend(error);
    }
}

/// Returns what went wrong. A removal that a kubelet asked for just before it ended may still be
/// under way; the runtime lets ours fail over it, so that counts only if the sandbox stays.
async fn remove_sandbox(cri: &Cri, id: String) -> Option<String> {
    let mut runtime = cri.runtime.clone();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stop = runtime.stop_pod_sandbox(StopPodSandboxRequest {
            pod_sandbox_id: id.clone(),
        });
        // A sandbox that cannot be stopped cannot be removed either, which tells why.
        let _ = tokio::time::timeout(SANDBOX, stop).await;
        let remove = runtime.remove_pod_sandbox(RemovePodSandboxRequest {
            pod_sandbox_id: id.clone(),
        });
        match tokio::time::timeout(SANDBOX, remove).await {
            Ok(Ok(_)) => return None,
            Ok(Err(status)) if Instant::now() >= deadline => {
                return Some(format!("cannot remove sandbox {id}: {}", status.message()));
            }
            Ok(Err(_)) => tokio::time::sleep(AGAIN).await,
            Err(_) => return Some(format!("cannot remove sandbox {id}: it takes too long")),
        }
    }
}

/// containerd first: it would start shims again that we end.
async fn end_processes(paths: &Paths, errors: &mut Vec<String>) {
    let settings = paths.settings();
    let socket = paths.socket();
    let containerds = process::find(|line| process::is_containerd_with(line, &settings));
    for pid in containerds {
        if let Err(error) = process::end(pid, PATIENCE).await {
            errors.push(format!("cannot end containerd {pid}: {error}"));
        }
    }
    for pid in process::find(|line| process::is_shim_of(line, &socket)) {
        if let Err(error) = process::end(pid, PATIENCE).await {
            errors.push(format!("cannot end shim {pid}: {error}"));
        }
    }
    for file in [paths.pid_file(), socket] {
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            errors.push(format!("cannot remove {}: {error}", file.display()));
        }
    }
}

/// Unmounts everything below a directory, the innermost first.
fn unmount_below(directory: &Path, errors: &mut Vec<String>) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts_below(&mounts, directory) {
        if mount == directory {
            continue;
        }
        let undone =
            umount2(&mount, MntFlags::empty()).or_else(|_| umount2(&mount, MntFlags::MNT_DETACH));
        if let Err(errno) = undone {
            errors.push(format!("cannot unmount {}: {errno}", mount.display()));
        }
    }
}
