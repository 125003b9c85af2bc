//! cgroup v1: one hierarchy per controller, or per set of controllers.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Limits, QUOTA_PERIOD, below, set};

/// The mounted hierarchies.
#[derive(Clone, Debug, Default)]
pub struct Hierarchies {
    controlled: Vec<Hierarchy>,
    /// Without controllers: systemd's own and the unified one beside those of v1.
    bare: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
struct Hierarchy {
    mount: PathBuf,
    controllers: Vec<String>,
}

const CONTROLLERS: [&str; 13] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
];

impl Hierarchies {
    /// Reads what is mounted.
    pub fn read() -> Self {
        parse(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
    }

    pub fn directory(&self, controller: &str, group: &Path) -> Option<PathBuf> {
        self.controlled
            .iter()
            .find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
            .map(|hierarchy| below(&hierarchy.mount, group))
    }

    pub fn directories(&self, group: &Path) -> Vec<PathBuf> {
        self.controlled
            .iter()
            .map(|hierarchy| below(&hierarchy.mount, group))
            .collect()
    }

    pub fn all_directories(&self, group: &Path) -> Vec<PathBuf> {
        self.controlled
            .iter()
            .map(|hierarchy| &hierarchy.mount)
            .chain(&self.bare)
            .map(|mount| below(mount, group))
            .collect()
    }

    pub fn ensure(&self, group: &Path, limits: &Limits) -> io::Result<()> {
        for directory in self.directories(group) {
            fs::create_dir_all(&directory).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
            })?;
        }
        if let Some(directory) = self.directory("cpuset", group) {
            inherit_cpuset(&directory)?;
        }
        self.set("cpu", group, "cpu.shares", limits.cpu_shares)?;
        if limits.cpu_quota.is_some() {
            self.set("cpu", group, "cpu.cfs_period_us", Some(QUOTA_PERIOD))?;
            self.set("cpu", group, "cpu.cfs_quota_us", limits.cpu_quota)?;
        }
        self.set("memory", group, "memory.limit_in_bytes", limits.memory)?;
        let pids = limits.pids.map(|pids| match pids {
            -1 => "max".to_owned(),
            pids => pids.to_string(),
        });
        self.set("pids", group, "pids.max", pids)
    }

    fn set(
        &self,
        controller: &str,
        group: &Path,
        file: &str,
        value: Option<impl ToString>,
    ) -> io::Result<()> {
        match (value, self.directory(controller, group)) {
            (Some(value), Some(directory)) => set(&directory.join(file), &value),
            _ => Ok(()),
        }
    }
}

/// A group made by hand has no CPUs and no memory nodes until it is given its parent's.
fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = directory.join(name);
        if !fs::read_to_string(&file)?.trim().is_empty() {
            continue;
        }
        let Some(parent) = directory.parent() else {
            return Ok(());
        };
        if fs::read_to_string(parent.join(name))?.trim().is_empty() {
            inherit_cpuset(parent)?;
        }
        set(&file, &fs::read_to_string(parent.join(name))?.trim())?;
    }
    Ok(())
}

fn parse(mounts: &str) -> Hierarchies {
    let mut hierarchies = Hierarchies::default();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(mount), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let mount = PathBuf::from(mount);
        let controllers: Vec<String> = options
            .split(',')
            .filter(|option| CONTROLLERS.contains(option))
            .map(str::to_owned)
            .collect();
        match kind {
            "cgroup" if controllers.is_empty() => hierarchies.bare.push(mount),
            "cgroup" => hierarchies
                .controlled
                .push(Hierarchy { mount, controllers }),
            "cgroup2" => hierarchies.bare.push(mount),
            _ => {}
        }
    }
    hierarchies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_with_several_controllers_are_found_by_each() {
        let hierarchies = parse(
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
             cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
             cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
        );
        let group = Path::new("/kubepods");
        for controller in ["cpu", "cpuacct"] {
            assert_eq!(
                hierarchies.directory(controller, group),
                Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/kubepods"))
            );
        }
        assert_eq!(hierarchies.directory("memory", group), None);
        assert_eq!(hierarchies.all_directories(group).len(), 3);
    }
}
