//! What the machine is and has.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::{api::core::v1::NodeSystemInfo, apimachinery::pkg::api::resource::Quantity};

/// A list of resources, as the API has it.
pub type Resources = BTreeMap<String, Quantity>;

/// Memory in bytes that upstream keeps free by its hard eviction threshold.
const MEMORY_RESERVE: u64 = 100 << 20;
/// Percent of the disk that upstream keeps free by its hard eviction threshold.
const DISK_RESERVE_PERCENT: u64 = 10;

/// The machine, read once.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes of the file system that holds the pods' directories.
    pub disk: u64,
    /// Bytes by page size, for example `2Mi`.
    pub huge_pages: BTreeMap<String, u64>,
    machine_id: String,
    system_uuid: String,
    boot_id: String,
    kernel: String,
    os_image: String,
}

impl Machine {
    /// What cannot be read is zero or empty.
    pub fn read(root_dir: &Path) -> Self {
        let uname = nix::sys::utsname::uname().ok();
        let release = read("/etc/os-release");
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
            memory: memory(&read("/proc/meminfo")),
            disk: disk(root_dir),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            machine_id: read("/etc/machine-id").trim().to_owned(),
            system_uuid: read("/sys/class/dmi/id/product_uuid").trim().to_owned(),
            boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            kernel: uname.map_or_else(String::new, |uname| {
                uname.release().to_string_lossy().into_owned()
            }),
            os_image: os_name(&release),
        }
    }

    /// Everything there is, with room for this many pods.
    pub fn capacity(&self, max_pods: u32) -> Resources {
        let mut resources = Resources::from([
            ("cpu".to_owned(), Quantity(self.cpus.to_string())),
            ("memory".to_owned(), kibibytes(self.memory)),
            ("ephemeral-storage".to_owned(), kibibytes(self.disk)),
            ("pods".to_owned(), Quantity(max_pods.to_string())),
        ]);
        for (size, bytes) in &self.huge_pages {
            resources.insert(format!("hugepages-{size}"), kibibytes(*bytes));
        }
        resources
    }

    /// What pods may use: without what eviction keeps free and what huge pages hold.
    pub fn allocatable(&self, max_pods: u32) -> Resources {
        let mut resources = self.capacity(max_pods);
        let reserved = MEMORY_RESERVE + self.huge_pages.values().sum::<u64>();
        resources.insert(
            "memory".to_owned(),
            kibibytes(self.memory.saturating_sub(reserved)),
        );
        let disk = self.disk - self.disk * DISK_RESERVE_PERCENT / 100;
        resources.insert("ephemeral-storage".to_owned(), Quantity(disk.to_string()));
        resources
    }

    /// `status.nodeInfo`, but for the versions.
    pub fn info(&self) -> NodeSystemInfo {
        NodeSystemInfo {
            architecture: architecture().to_owned(),
            boot_id: self.boot_id.clone(),
            kernel_version: self.kernel.clone(),
            machine_id: self.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: self.os_image.clone(),
            system_uuid: if self.system_uuid.is_empty() {
                self.machine_id.clone()
            } else {
                self.system_uuid.clone()
            },
            ..NodeSystemInfo::default()
        }
    }
}

/// The architecture by Go's name for it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn kibibytes(bytes: u64) -> Quantity {
    Quantity(if bytes == 0 {
        "0".to_owned()
    } else {
        format!("{}Ki", bytes / 1024)
    })
}

fn memory(meminfo: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn disk(root_dir: &Path) -> u64 {
    // The directory itself may not be made yet.
    let existing = root_dir.ancestors().find(|path| path.exists());
    existing
        .and_then(|path| nix::sys::statvfs::statvfs(path).ok())
        .map_or(0, |found| found.blocks() * found.fragment_size())
}

fn huge_pages(folder: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut pages = BTreeMap::new();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name
            .strip_prefix("hugepages-")
            .and_then(|rest| rest.strip_suffix("kB")?.parse::<u64>().ok());
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages"));
        let count = count
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(0);
        if let Some(kilobytes) = size {
            let shown = match kilobytes {
                size if size % (1 << 20) == 0 => format!("{}Gi", size >> 20),
                size if size % (1 << 10) == 0 => format!("{}Mi", size >> 10),
                size => format!("{size}Ki"),
            };
            pages.insert(shown, count * kilobytes * 1024);
        }
    }
    pages
}

fn os_name(release: &str) -> String {
    let line = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(
        || "Unknown".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_may_use_what_eviction_does_not_keep() {
        let machine = Machine {
            cpus: 4,
            memory: 8 << 30,
            disk: 1000 << 20,
            huge_pages: BTreeMap::from([("2Mi".to_owned(), 64 << 20)]),
            ..Machine::default()
        };
        let capacity = machine.capacity(110);
        let allocatable = machine.allocatable(110);
        let of = |resources: &Resources, name: &str| resources[name].0.clone();
        assert_eq!(of(&capacity, "cpu"), "4");
        assert_eq!(of(&capacity, "memory"), "8388608Ki");
        assert_eq!(
            of(&allocatable, "memory"),
            format!("{}Ki", 8388608 - 164 * 1024)
        );
        assert_eq!(
            of(&allocatable, "ephemeral-storage"),
            (900 << 20).to_string()
        );
        assert_eq!(of(&allocatable, "hugepages-2Mi"), "65536Ki");
        assert_eq!(of(&allocatable, "pods"), "110");
    }

    #[test]
    fn the_systems_files_are_read() {
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:       2048 kB\n"), 2 << 20);
        assert_eq!(
            os_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
    }
}
