//! `coracle stop`: ends the server of a data directory, its pods and its containerd, and undoes
//! every change that they made to the host.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    data_dir::{self, Layout},
    server::node,
};

/// How long the server may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Stops everything; with `remove_data`, removes the data too. Goes on after a failure and
/// reports all of them at the end. Does nothing where nothing runs.
pub async fn run(layout: &Layout, remove_data: bool) -> anyhow::Result<()> {
    if !layout.root.exists() {
        println!("there is no cluster in {}", layout.root.display());
        return Ok(());
    }
    stop_server(layout).await?;
    let mut failures = Vec::new();
    if layout.node().exists() {
        failures = node::stop_all(layout).await;
    }
    if remove_data && failures.is_empty() {
        for folder in [layout.kubelet(), layout.pod_logs(), layout.root.clone()] {
            remove(&folder, &mut failures);
        }
        if layout.is_default() {
            remove_file(&layout.kubeconfig(), &mut failures);
        }
    }
    if failures.is_empty() {
        println!("stopped {}", layout.root.display());
        Ok(())
    } else {
        bail!(
            "not everything could be taken down:\n  {}",
            failures.join("\n  ")
        )
    }
}

async fn stop_server(layout: &Layout) -> anyhow::Result<()> {
    let Some(process) = data_dir::holder(layout)? else {
        return Ok(());
    };
    let pid = Pid::from_raw(i32::try_from(process).context("the server has no valid process id")?);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => bail!("cannot end the server (process {process}): {error}"),
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if data_dir::holder(layout)?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    bail!("the server (process {process}) does not end")
}

fn remove(folder: &Path, failures: &mut Vec<String>) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            failures.push(format!("cannot remove {}: {error}", folder.display()));
        }
        _ => {}
    }
}

fn remove_file(file: &Path, failures: &mut Vec<String>) {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            failures.push(format!("cannot remove {}: {error}", file.display()));
        }
        _ => {}
    }
}
