//! What the node agent is told: every field has upstream's default in [`Config::new`], so a
//! caller names only what differs.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Taint;

/// Renders the CNI configuration list for a pod CIDR.
pub type CniConflist = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Where the container runtime comes from.
#[derive(Clone, Debug)]
pub enum RuntimeSource {
    /// A containerd that the kubelet starts and supervises.
    Managed(Managed),
    /// A CRI v1 socket that somebody else serves, as a path without a scheme.
    Endpoint(PathBuf),
}

/// The programs of a managed containerd; names without a slash are looked up in `PATH`.
#[derive(Clone, Debug)]
pub struct Managed {
    pub containerd: PathBuf,
    pub ctr: PathBuf,
    /// The image that sandboxes run; imported from `sandbox_archive` when it is not there.
    pub sandbox_image: String,
    /// Makes the OCI archive that holds `sandbox_image`.
    pub sandbox_archive: fn() -> Vec<u8>,
}

/// Limits by which the kubelet frees the node's disk of images (upstream's defaults).
#[derive(Clone, Copy, Debug)]
pub struct ImageGc {
    /// Percent of the image file system's use above which images are removed.
    pub high_threshold_percent: u8,
    /// Percent of use down to which they are removed.
    pub low_threshold_percent: u8,
    /// An image that was unused for a shorter time is kept.
    pub minimum_age: Duration,
}

/// Everything the node agent is told.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// The first is the node's primary address.
    pub node_ips: Vec<IpAddr>,
    /// The runtime's data and sockets, the CNI configuration.
    pub data_dir: PathBuf,
    /// Upstream's `--root-dir`: `pods/<uid>/volumes/…` and so on.
    pub root_dir: PathBuf,
    /// Upstream's `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// Upstream's `/var/log/containers`, links to logs for log collectors; none when `None`.
    pub container_logs_dir: Option<PathBuf>,
    pub runtime: RuntimeSource,
    pub cluster_dns: Vec<IpAddr>,
    /// For example `cluster.local`.
    pub cluster_domain: String,
    /// The resolver configuration of the host, which pods inherit by their DNS policy.
    pub resolv_conf: PathBuf,
    /// The program that `bin/coracle-cni` in the CNI directory links to; none is linked when
    /// `None`.
    pub cni_plugin: Option<PathBuf>,
    /// None leaves the CNI configuration alone, as for a runtime that is not managed.
    pub cni_conflist: Option<CniConflist>,
    pub node_labels: BTreeMap<String, String>,
    pub node_taints: Vec<Taint>,
    pub max_pods: u32,
    /// The cgroup under which `kubepods` is made, `/` unless nodes share one machine.
    pub cgroup_root: PathBuf,
    /// What the node reports as `nodeInfo.kubeletVersion`.
    pub version: String,
    /// The port that the node reports for its HTTPS endpoints.
    pub port: u16,
    pub serialize_image_pulls: bool,
    /// Most image pulls at once when they are not serialised; `None` is no limit.
    pub max_parallel_image_pulls: Option<usize>,
    pub image_gc: ImageGc,
    /// Size in bytes at which a container's log is rotated.
    pub container_log_max_size: u64,
    /// Most log files kept of a container, the current one included.
    pub container_log_max_files: usize,
    /// Use the runtime's default seccomp profile where a pod names none.
    pub seccomp_default: bool,
    /// Processes in a pod at most; `None` is no limit.
    pub pod_pids_limit: Option<i64>,
    /// Sysctls outside upstream's safe set that pods may use; a trailing `*` matches a prefix.
    pub allowed_unsafe_sysctls: Vec<String>,
    pub node_status_update_frequency: Duration,
    pub node_lease_duration: Duration,
}

impl Config {
    /// A node of that name with everything below `data_dir`, and upstream's defaults.
    pub fn new(node_name: &str, node_ip: IpAddr, data_dir: &Path, runtime: RuntimeSource) -> Self {
        Config {
            node_name: node_name.to_owned(),
            node_ips: vec![node_ip],
            data_dir: data_dir.to_owned(),
            root_dir: data_dir.join("kubelet"),
            pod_logs_dir: data_dir.join("log/pods"),
            container_logs_dir: None,
            runtime,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            cni_plugin: None,
            cni_conflist: None,
            node_labels: BTreeMap::new(),
            node_taints: Vec::new(),
            max_pods: 110,
            cgroup_root: PathBuf::from("/"),
            version: coracle_api::VERSION.to_owned(),
            port: 10250,
            serialize_image_pulls: false,
            max_parallel_image_pulls: Some(5),
            image_gc: ImageGc {
                high_threshold_percent: 85,
                low_threshold_percent: 80,
                minimum_age: Duration::from_secs(120),
            },
            container_log_max_size: 10 << 20,
            container_log_max_files: 5,
            seccomp_default: true,
            pod_pids_limit: None,
            allowed_unsafe_sysctls: Vec::new(),
            node_status_update_frequency: Duration::from_secs(300),
            node_lease_duration: Duration::from_secs(40),
        }
    }

    /// The socket of the runtime's CRI services.
    pub fn runtime_socket(&self) -> PathBuf {
        match &self.runtime {
            RuntimeSource::Managed(_) => crate::runtime::Paths::new(&self.data_dir).socket(),
            RuntimeSource::Endpoint(path) => path.clone(),
        }
    }

    /// `pods/<uid>` below the root directory.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// Upstream's directory of a pod's logs: `<namespace>_<name>_<uid>`.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
