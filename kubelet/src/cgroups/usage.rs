//! What the processes of a group have used, as the kernel counts it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Cgroups;

/// Usage of a group and all groups below it; `None` is what the host does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since the group was made, in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Only of a group whose CPU time is limited.
    pub bandwidth: Option<Bandwidth>,
    pub memory: Option<Memory>,
}

/// How a limit of CPU time bears on a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// CPU time that the group may use in a period, in microseconds.
    pub quota: u64,
    /// In microseconds.
    pub period: u64,
    /// Periods in which the group wanted to run.
    pub periods: u64,
    /// Those of them in which it had to wait.
    pub throttled: u64,
    /// How long it had to wait in all, in nanoseconds.
    pub throttled_nanos: u64,
}

/// In bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// With the page cache.
    pub usage: u64,
    /// Without the part of the page cache that can be dropped at once.
    pub working_set: u64,
    /// Anonymous memory and swap cache.
    pub rss: u64,
    pub cache: u64,
    pub swap: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// `None`: there is none.
    pub limit: Option<u64>,
}

/// What cgroup v1 says where nothing limits memory, rounded down to pages.
const UNLIMITED_V1: u64 = 1 << 62;

impl Cgroups {
    /// Reads what a group has used; everything is `None` for a group that is gone.
    pub fn usage(&self, group: &Path) -> Usage {
        match self {
            Cgroups::V1(_) => Usage {
                cpu_nanos: self
                    .directory("cpuacct", group)
                    .and_then(|directory| number(&directory.join("cpuacct.usage"))),
                bandwidth: self
                    .directory("cpu", group)
                    .and_then(|directory| bandwidth_v1(&directory)),
                memory: self
                    .directory("memory", group)
                    .and_then(|directory| memory_v1(&directory)),
            },
            Cgroups::V2(root) => {
                let directory = super::below(root, group);
                let stat = read(&directory.join("cpu.stat"));
                Usage {
                    cpu_nanos: counter(&stat, "usage_usec").map(|micros| micros * 1000),
                    bandwidth: bandwidth_v2(&directory, &stat),
                    memory: memory_v2(&directory),
                }
            }
        }
    }
}

fn read(file: &PathBuf) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn number(file: &PathBuf) -> Option<u64> {
    read(file).trim().parse().ok()
}

/// A line `name value`, or `name: value kB` as in `/proc/meminfo`.
fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        let mut words = rest.strip_prefix(' ')?.split_whitespace();
        let value: u64 = words.next()?.parse().ok()?;
        Some(match words.next() {
            Some("kB") => value * 1024,
            _ => value,
        })
    })
}

fn bandwidth_v1(directory: &Path) -> Option<Bandwidth> {
    // Without a limit this is -1.
    let quota = number(&directory.join("cpu.cfs_quota_us"))?;
    let stat = read(&directory.join("cpu.stat"));
    let of = |name: &str| counter(&stat, name).unwrap_or(0);
    Some(Bandwidth {
        quota,
        period: number(&directory.join("cpu.cfs_period_us"))?,
        periods: of("nr_periods"),
        throttled: of("nr_throttled"),
        throttled_nanos: of("throttled_time"),
    })
}

fn bandwidth_v2(directory: &Path, stat: &str) -> Option<Bandwidth> {
    let limit = read(&directory.join("cpu.max"));
    let (quota, period) = limit.trim().split_once(' ')?;
    let of = |name: &str| counter(stat, name).unwrap_or(0);
    Some(Bandwidth {
        // Without a limit this is `max`.
        quota: quota.parse().ok()?,
        period: period.parse().ok()?,
        periods: of("nr_periods"),
        throttled: of("nr_throttled"),
        throttled_nanos: of("throttled_usec") * 1000,
    })
}

fn memory_v1(directory: &Path) -> Option<Memory> {
    let usage = number(&directory.join("memory.usage_in_bytes"))?;
    let stat = read(&directory.join("memory.stat"));
    let of = |name: &str| counter(&stat, name).unwrap_or(0);
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(of("total_inactive_file")),
        rss: of("total_rss"),
        cache: of("total_cache"),
        swap: of("total_swap"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        limit: number(&directory.join("memory.limit_in_bytes")).filter(|it| *it < UNLIMITED_V1),
    })
}

fn memory_v2(directory: &Path) -> Option<Memory> {
    let stat = read(&directory.join("memory.stat"));
    if stat.is_empty() {
        return None;
    }
    // The root group has no file of its own for this.
    let usage = number(&directory.join("memory.current")).or_else(|| {
        let machine = read(&PathBuf::from("/proc/meminfo"));
        Some(counter(&machine, "MemTotal")? - counter(&machine, "MemFree")?)
    })?;
    let of = |name: &str| counter(&stat, name).unwrap_or(0);
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(of("inactive_file")),
        rss: of("anon"),
        cache: of("file"),
        swap: number(&directory.join("memory.swap.current")).unwrap_or(0),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        limit: number(&directory.join("memory.max")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let stat = "usage_usec 1500\nusage 7\nanon_thp 3\nanon 12\n";
        assert_eq!(counter(stat, "usage_usec"), Some(1500));
        assert_eq!(counter(stat, "usage"), Some(7));
        assert_eq!(counter(stat, "anon"), Some(12));
        assert_eq!(counter(stat, "file"), None);
        let machine = "MemTotal:       16 kB\nMemFree: 4 kB\n";
        assert_eq!(counter(machine, "MemTotal"), Some(16 << 10));
    }

    #[test]
    fn usage_is_read_from_either_version() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let stat = "usage_usec 2000\nuser_usec 1\nnr_periods 9\nnr_throttled 4\nthrottled_usec 7\n";
        put("pod/cpu.stat", stat);
        put("pod/cpu.max", "50000 100000\n");
        put("pod/memory.current", "10000\n");
        put("pod/memory.stat", "anon 4000\ninactive_file 3000\n");
        put("pod/memory.max", "max\n");
        let v2 = Cgroups::V2(folder.path().to_owned());
        let usage = v2.usage(Path::new("/pod"));
        assert_eq!(usage.cpu_nanos, Some(2_000_000));
        let limited = Bandwidth {
            quota: 50_000,
            period: 100_000,
            periods: 9,
            throttled: 4,
            throttled_nanos: 7000,
        };
        assert_eq!(usage.bandwidth, Some(limited));
        put("pod/cpu.max", "max 100000\n");
        assert_eq!(v2.usage(Path::new("/pod")).bandwidth, None);
        put("v1/cpu.cfs_period_us", "100000\n");
        put("v1/cpu.cfs_quota_us", "-1\n");
        assert_eq!(bandwidth_v1(&folder.path().join("v1")), None);
        put("v1/cpu.cfs_quota_us", "20000\n");
        put(
            "v1/cpu.stat",
            "nr_periods 2\nnr_throttled 1\nthrottled_time 5\n",
        );
        let limited = bandwidth_v1(&folder.path().join("v1")).unwrap();
        assert_eq!((limited.quota, limited.throttled_nanos), (20_000, 5));
        let memory = usage.memory.unwrap();
        assert_eq!((memory.working_set, memory.rss), (7000, 4000));
        assert_eq!(memory.limit, None);
        assert_eq!(v2.usage(Path::new("/gone")), Usage::default());

        put("v1/memory.usage_in_bytes", "9000");
        put("v1/memory.stat", "total_inactive_file 1000\ntotal_rss 5\n");
        put("v1/memory.limit_in_bytes", "9223372036854771712");
        let memory = memory_v1(&folder.path().join("v1")).unwrap();
        assert_eq!((memory.working_set, memory.limit), (8000, None));
    }

    #[test]
    fn the_whole_machine_has_used_something() {
        let usage = Cgroups::detect().usage(Path::new("/"));
        assert!(usage.cpu_nanos.is_some_and(|nanos| nanos > 0), "{usage:?}");
        assert!(usage.memory.is_some_and(|memory| memory.working_set > 0));
    }
}
