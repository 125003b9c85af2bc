//! How much node, pods and containers use: read from the control groups when somebody asks.
//!
//! Enter at [`Statistics::summary`]. Nothing runs between two questions; what CPU is used at
//! the moment is told from the second question on, as an average since the one before.

mod disk;
pub(crate) mod network;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use parking_lot::Mutex;

use crate::{
    Config,
    cgroups::{Cgroups, Usage},
    pods::resources::pod_group,
    server::summary::{
        ContainerStats, CpuStats, FsStats, MemoryStats, NodeStats, PodReference, PodStats,
        PvcReference, RuntimeStats, Summary, VolumeStats,
    },
};
use network::Interface;

/// Between two readings from which a rate is made, in nanoseconds: nearer ones tell little.
const SHORTEST: i128 = 1_000_000_000;

/// Where the figures come from.
pub struct Statistics {
    pub node_name: String,
    pub cgroups: Cgroups,
    /// The group of all pods.
    pub kubepods: PathBuf,
    /// On the file system that pods and images live on.
    pub root_dir: PathBuf,
    /// Where the logs of pods are.
    pub pod_logs_dir: PathBuf,
    rates: Mutex<HashMap<PathBuf, Reading>>,
}

/// What is known of disks beside what can be read: by whom it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Disks {
    /// Where the volumes of each pod are, by the pod's uid and their names.
    pub volumes: HashMap<String, BTreeMap<String, PathBuf>>,
    /// Bytes and files of the writable layers of containers, by their ids.
    pub layers: HashMap<String, (u64, u64)>,
}

/// What a container uses, or a pod as a whole, which has no container's name.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub container: String,
    /// Its group.
    pub id: String,
    pub image: String,
    /// The runtime's.
    pub name: String,
    pub namespace: String,
    pub pod: String,
    pub usage: Usage,
    pub interfaces: Vec<Interface>,
    /// Seconds since the epoch.
    pub started: Option<f64>,
}

impl Measured {
    /// Container, id, image, name, namespace and pod.
    pub fn labels(&self) -> [&str; 6] {
        [
            &self.container,
            &self.id,
            &self.image,
            &self.name,
            &self.namespace,
            &self.pod,
        ]
    }
}

/// What a group had used at some time, and the rate that was told then.
#[derive(Clone, Copy)]
struct Reading {
    at: Timestamp,
    cpu_nanos: u64,
    rate: Option<u64>,
}

impl Statistics {
    pub fn new(config: &Config, cgroups: Cgroups, kubepods: PathBuf) -> Self {
        Statistics {
            node_name: config.node_name.clone(),
            cgroups,
            kubepods,
            root_dir: config.root_dir.clone(),
            pod_logs_dir: config.pod_logs_dir.clone(),
            rates: Mutex::default(),
        }
    }

    /// Reads the figures of the node and of `pods`. Blocks for as long as it takes to read some
    /// files for each container. Without `disks`, only CPU and memory are looked at.
    pub fn summary(&self, pods: &[Arc<Pod>], disks: Option<&Disks>) -> Summary {
        let mut rates = HashMap::new();
        let capacity = machine_memory();
        let (cpu, mut memory) = self.read(Path::new("/"), &mut rates);
        if let Some(memory) = &mut memory {
            let used = memory.working_set_bytes.unwrap_or(0);
            memory.available_bytes = capacity.map(|capacity| capacity.saturating_sub(used));
        }
        let mut node = NodeStats {
            node_name: self.node_name.clone(),
            start_time: boot_time(),
            cpu,
            memory,
            ..NodeStats::default()
        };
        let (cpu, memory) = self.read(&self.kubepods, &mut rates);
        node.system_containers.push(ContainerStats {
            name: "pods".to_owned(),
            start_time: node.start_time,
            cpu,
            memory,
            ..ContainerStats::default()
        });
        if disks.is_some() {
            node.network = network::stats(&network::of_process(1));
            node.fs = disk::file_system(&self.root_dir);
            node.runtime = Some(RuntimeStats {
                image_fs: node.fs.clone(),
                container_fs: node.fs.clone(),
            });
        }
        let disks = disks.zip(node.fs.clone());
        let pods = pods.iter().filter_map(|pod| {
            let mut stats = self.pod(pod, &mut rates)?;
            if let Some((disks, fs)) = &disks {
                self.add_disks(pod, &mut stats, disks, fs);
            }
            Some(stats)
        });
        let summary = Summary {
            pods: pods.collect(),
            node,
        };
        // Groups that are gone are forgotten with the readings before.
        *self.rates.lock() = rates;
        summary
    }

    /// `None` for a pod of which nothing runs.
    fn pod(&self, pod: &Pod, rates: &mut HashMap<PathBuf, Reading>) -> Option<PodStats> {
        let status = pod.status.as_ref()?;
        let group = pod_group(&self.kubepods, pod);
        let (cpu, memory) = self.read(&group, rates);
        cpu.as_ref()?;
        let containers = running(status).map(|(container, id, start_time)| {
            let (cpu, memory) = self.read(&group.join(id), rates);
            ContainerStats {
                name: container.name.clone(),
                start_time,
                cpu,
                memory,
                ..ContainerStats::default()
            }
        });
        let metadata = &pod.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Some(PodStats {
            pod_ref: PodReference {
                name: text(&metadata.name),
                namespace: text(&metadata.namespace),
                uid: text(&metadata.uid),
            },
            start_time: status
                .start_time
                .as_ref()
                .map(|time| time.0)
                .unwrap_or_default(),
            containers: containers.filter(|it| it.cpu.is_some()).collect(),
            cpu,
            memory,
            ..PodStats::default()
        })
    }

    /// What the pod takes of disks, and what went over its network.
    fn add_disks(&self, pod: &Pod, stats: &mut PodStats, disks: &Disks, fs: &FsStats) {
        let PodReference {
            name,
            namespace,
            uid,
        } = &stats.pod_ref;
        stats.network = network::stats(&self.interfaces(pod));
        let empty = BTreeMap::new();
        let mounted = disks.volumes.get(uid).unwrap_or(&empty);
        let volumes = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let (mut used, mut inodes) = (0, 0);
        for volume in volumes {
            let path = mounted.get(&volume.name);
            let Some(found) = path.and_then(|path| disk::volume(path)) else {
                continue;
            };
            let claim = volume.persistent_volume_claim.as_ref();
            let generated = volume.ephemeral.as_ref();
            let claim = claim.map(|claim| claim.claim_name.clone());
            let claim = claim.or_else(|| generated.map(|_| format!("{name}-{}", volume.name)));
            if claim.is_none() && volume.empty_dir.is_some() {
                used += found.used_bytes.unwrap_or(0);
                inodes += found.inodes_used.unwrap_or(0);
            }
            stats.volume.push(VolumeStats {
                fs: found,
                name: volume.name.clone(),
                pvc_ref: claim.map(|name| PvcReference {
                    name,
                    namespace: namespace.clone(),
                }),
            });
        }
        let logs = self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"));
        let status = pod.status.as_ref();
        for container in &mut stats.containers {
            let (bytes, files) = disk::add_up(&logs.join(&container.name));
            container.logs = Some(disk::part(fs, bytes, Some(files)));
            let found = status.into_iter().flat_map(running);
            let id = found
                .filter(|(known, ..)| known.name == container.name)
                .map(|(_, id, _)| id);
            let layer = id.last().and_then(|id| disks.layers.get(id));
            let (layer_bytes, layer_files) = layer.copied().unwrap_or_default();
            container.rootfs = Some(disk::part(fs, layer_bytes, Some(layer_files)));
            used += bytes + layer_bytes;
            inodes += files + layer_files;
        }
        stats.ephemeral_storage = Some(disk::part(fs, used, Some(inodes)));
    }

    /// The interfaces of a pod that has a network of its own: those that any of its processes
    /// sees.
    fn interfaces(&self, pod: &Pod) -> Vec<Interface> {
        let spec = pod.spec.as_ref();
        if spec.is_some_and(|spec| spec.host_network == Some(true)) {
            return Vec::new();
        }
        let group = pod_group(&self.kubepods, pod);
        let status = pod.status.iter();
        let pid = status
            .flat_map(running)
            .find_map(|(_, id, _)| self.cgroups.first_process(&group.join(id)));
        pid.map(network::of_process).unwrap_or_default()
    }

    /// What every running container uses, and each pod as a whole.
    pub fn measure(&self, pods: &[Arc<Pod>]) -> Vec<Measured> {
        let mut measured = Vec::new();
        for pod in pods {
            let group = pod_group(&self.kubepods, pod);
            if !self.cgroups.exists(&group) {
                continue;
            }
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let whole = Measured {
                id: group.display().to_string(),
                namespace: text(&pod.metadata.namespace),
                pod: text(&pod.metadata.name),
                usage: self.cgroups.usage(&group),
                interfaces: self.interfaces(pod),
                ..Measured::default()
            };
            for (container, id, started) in pod.status.iter().flat_map(running) {
                let group = group.join(id);
                measured.push(Measured {
                    container: container.name.clone(),
                    id: group.display().to_string(),
                    image: container.image.clone(),
                    name: id.to_owned(),
                    usage: self.cgroups.usage(&group),
                    interfaces: Vec::new(),
                    started: Some(started.as_second() as f64),
                    ..whole.clone()
                });
            }
            measured.push(whole);
        }
        measured
    }

    fn read(
        &self,
        group: &Path,
        rates: &mut HashMap<PathBuf, Reading>,
    ) -> (Option<CpuStats>, Option<MemoryStats>) {
        let time = Timestamp::now();
        let Usage {
            cpu_nanos, memory, ..
        } = self.cgroups.usage(group);
        let cpu = cpu_nanos.map(|cpu_nanos| {
            let before = self.rates.lock().get(group).copied();
            let reading = next(before, time, cpu_nanos);
            rates.insert(group.to_owned(), reading);
            CpuStats {
                time,
                usage_nano_cores: reading.rate,
                usage_core_nano_seconds: Some(cpu_nanos),
            }
        });
        let memory = memory.map(|memory| MemoryStats {
            time,
            available_bytes: memory
                .limit
                .map(|limit| limit.saturating_sub(memory.working_set)),
            usage_bytes: Some(memory.usage),
            working_set_bytes: Some(memory.working_set),
            rss_bytes: Some(memory.rss),
            page_faults: Some(memory.page_faults),
            major_page_faults: Some(memory.major_page_faults),
        });
        (cpu, memory)
    }
}

/// The reading from which the next rate is made.
fn next(before: Option<Reading>, at: Timestamp, cpu_nanos: u64) -> Reading {
    let Some(before) = before.filter(|before| before.cpu_nanos <= cpu_nanos) else {
        return Reading {
            at,
            cpu_nanos,
            rate: None,
        };
    };
    let elapsed = at.as_nanosecond() - before.at.as_nanosecond();
    if elapsed < SHORTEST {
        return before;
    }
    let rate = i128::from(cpu_nanos - before.cpu_nanos) * 1_000_000_000 / elapsed;
    Reading {
        at,
        cpu_nanos,
        rate: u64::try_from(rate).ok(),
    }
}

/// The containers that run, with the runtime's name for them and since when.
fn running(status: &PodStatus) -> impl Iterator<Item = (&ContainerStatus, &str, Timestamp)> {
    let lists = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    lists.into_iter().flatten().flatten().filter_map(|status| {
        let running = status.state.as_ref()?.running.as_ref()?;
        let (_, id) = status.container_id.as_deref()?.split_once("://")?;
        let since = running.started_at.as_ref().map(|time| time.0);
        Some((status, id, since.unwrap_or_default()))
    })
}

/// In bytes.
pub(crate) fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn boot_time() -> Timestamp {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    let seconds = line.and_then(|seconds| seconds.trim().parse().ok());
    Timestamp::from_second(seconds.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_run_are_told_of_with_their_containers() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        for group in [
            "",
            "kubepods/besteffort/podu/",
            "kubepods/besteffort/podu/id/",
        ] {
            put(&format!("{group}cpu.stat"), "usage_usec 5\n");
            put(&format!("{group}memory.current"), "4096\n");
            put(&format!("{group}memory.stat"), "anon 1\n");
        }
        let pod = |name: &str, uid: &str| -> Arc<Pod> {
            let status = json!({ "name": "c", "ready": true, "restartCount": 0, "image": "i",
                "imageID": "", "containerID": "containerd://id",
                "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } });
            let ended = json!({ "name": "i", "ready": true, "restartCount": 0, "image": "i",
                "imageID": "", "containerID": "containerd://old",
                "state": { "terminated": { "exitCode": 0 } } });
            let pod = json!({ "metadata": { "name": name, "namespace": "n", "uid": uid },
                "spec": { "containers": [{ "name": "c" }] },
                "status": { "containerStatuses": [status], "initContainerStatuses": [ended] } });
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let statistics = Statistics {
            node_name: "node".to_owned(),
            cgroups: Cgroups::V2(folder.path().to_owned()),
            kubepods: "/kubepods".into(),
            root_dir: folder.path().to_owned(),
            pod_logs_dir: folder.path().join("logs"),
            rates: Mutex::default(),
        };
        put("logs/n_web_u/c/0.log", "a line\n");
        let disks = Disks {
            layers: [("id".to_owned(), (8192, 3))].into(),
            ..Disks::default()
        };
        let pods = [pod("web", "u"), pod("gone", "v")];
        let summary = statistics.summary(&pods, Some(&disks));
        assert_eq!(summary.pods.len(), 1);
        let containers = &summary.pods[0].containers;
        assert_eq!(containers.len(), 1);
        let memory = containers[0].memory.as_ref().unwrap();
        assert_eq!(memory.working_set_bytes, Some(4096));
        let cpu = containers[0].cpu.as_ref().unwrap();
        assert_eq!(cpu.usage_core_nano_seconds, Some(5000));
        assert!(summary.node.cpu.is_some() && summary.node.fs.is_some());
        let used = |fs: &Option<FsStats>| fs.as_ref().unwrap().used_bytes.unwrap();
        assert_eq!(used(&containers[0].rootfs), 8192);
        assert!(used(&containers[0].logs) > 0);
        let both = used(&containers[0].logs) + 8192;
        assert_eq!(used(&summary.pods[0].ephemeral_storage), both);
        let measured = statistics.measure(&pods);
        assert_eq!(measured.len(), 2);
        let labels = ["c", "/kubepods/besteffort/podu/id", "i", "id", "n", "web"];
        assert_eq!(measured[0].labels(), labels);
    }

    #[test]
    fn rates_are_made_from_readings_that_are_apart() {
        let at = |text: &str| text.parse().unwrap();
        let first = next(None, at("2026-01-01T00:00:00Z"), 1_000);
        assert_eq!(first.rate, None);
        let near = next(Some(first), at("2026-01-01T00:00:00.5Z"), 9_000);
        assert_eq!((near.cpu_nanos, near.rate), (1_000, None));
        let later = next(Some(first), at("2026-01-01T00:00:10Z"), 5_000_001_000);
        assert_eq!(later.rate, Some(500_000_000));
        // A group that was made anew begins at zero.
        assert_eq!(next(Some(later), at("2026-01-01T00:00:20Z"), 7).rate, None);
    }
}
