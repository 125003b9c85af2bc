//! `coracle images`: the images of the node, through the containerd that the server runs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::data_dir::Layout;

/// The namespace in which containerd keeps what the CRI works with.
const NAMESPACE: &str = "k8s.io";

/// Loads the images of OCI archives and `docker save` files and prints their names.
pub fn import(layout: &Layout, files: &[PathBuf]) -> anyhow::Result<()> {
    let socket = socket(layout)?;
    for file in files {
        let shown = file.display();
        if file != Path::new("-") && !file.is_file() {
            bail!("cannot import {shown}: there is no such file");
        }
        // containerd's own client knows every archive format that containerd takes.
        let output = ctr(&socket)
            .args(["images", "import", "--all-platforms", "--digests=false"])
            .arg(file)
            .stdin(Stdio::inherit())
            .output()
            .context("cannot run ctr: apt-get install containerd")?;
        if !output.status.success() {
            bail!(
                "cannot import {shown}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// Prints a line per image.
pub fn list(layout: &Layout) -> anyhow::Result<()> {
    let socket = socket(layout)?;
    let status = ctr(&socket)
        .args(["images", "list"])
        .status()
        .context("cannot run ctr: apt-get install containerd")?;
    if !status.success() {
        bail!("cannot list the images");
    }
    Ok(())
}

fn socket(layout: &Layout) -> anyhow::Result<PathBuf> {
    let socket = layout.containerd_socket();
    if !socket.exists() {
        bail!(
            "no containerd runs for {}: start the server first, or name its --data-dir",
            layout.root.display()
        );
    }
    Ok(socket)
}

fn ctr(socket: &Path) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(socket)
        .args(["--namespace", NAMESPACE]);
    command
}
