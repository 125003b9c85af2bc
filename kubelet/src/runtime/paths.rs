//! Where a managed containerd keeps its things, below the node's data directory.

use std::path::{Path, PathBuf};

/// The places of a managed containerd.
#[derive(Clone, Debug)]
pub struct Paths {
    base: PathBuf,
}

impl Paths {
    /// `data_dir` is the kubelet's, as in [`crate::Config`].
    pub fn new(data_dir: &Path) -> Self {
        Paths {
            base: data_dir.to_owned(),
        }
    }

    /// Images and snapshots; outlives everything.
    pub fn root(&self) -> PathBuf {
        self.base.join("containerd")
    }

    /// Sockets, bundles and mounts; worth nothing after a reboot.
    pub fn state(&self) -> PathBuf {
        self.base.join("run/containerd")
    }

    /// The gRPC socket that CRI is served on.
    pub fn socket(&self) -> PathBuf {
        self.state().join("containerd.sock")
    }

    /// The identity of the boot in which [`Paths::state`] was made.
    pub fn boot_id(&self) -> PathBuf {
        self.base.join("run/boot-id")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.base.join("run/containerd.pid")
    }

    pub fn log(&self) -> PathBuf {
        self.base.join("log/containerd.log")
    }

    pub fn settings(&self) -> PathBuf {
        self.base.join("etc/containerd/config.toml")
    }

    /// Registry hosts, one directory each (containerd's `config_path`).
    pub fn registries(&self) -> PathBuf {
        self.base.join("etc/containerd/certs.d")
    }

    /// CNI plugins.
    pub fn cni_bin(&self) -> PathBuf {
        self.base.join("cni/bin")
    }

    /// CNI configuration.
    pub fn cni_conf(&self) -> PathBuf {
        self.base.join("cni/net.d")
    }
}
