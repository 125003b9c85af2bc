//! Control groups: the tree `kubepods` with one group per pod, on hosts with cgroup v1 and v2.
//!
//! Enter at [`Cgroups`]. Paths of groups are as the runtime gets them, absolute from the root of
//! the hierarchy, for example `/kubepods/burstable/pod1234`. The runtime makes the groups of
//! containers below those of pods; here they are only read and removed.

mod limits;
mod usage;
mod v1;
mod v2;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use limits::{
    Limits, MIN_QUOTA, MIN_SHARES, QUOTA_PERIOD, milli_cpu_to_quota, milli_cpu_to_shares,
};
pub use usage::{Bandwidth, Memory, Usage};

/// Where the hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// For processes that were killed to be gone, and the kernel to let go of their group.
const REMOVAL: Duration = Duration::from_secs(10);
const REMOVAL_LOOK: Duration = Duration::from_millis(10);

/// The control groups of this host. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Cgroups {
    V1(v1::Hierarchies),
    V2(PathBuf),
}

impl Cgroups {
    /// What this host has mounted.
    pub fn detect() -> Self {
        let root = Path::new(MOUNT);
        if root.join("cgroup.controllers").exists() {
            return Cgroups::V2(root.to_owned());
        }
        Cgroups::V1(v1::Hierarchies::read())
    }

    pub fn is_v2(&self) -> bool {
        matches!(self, Cgroups::V2(_))
    }

    /// One of the group's own processes.
    pub fn first_process(&self, group: &Path) -> Option<i32> {
        let directories = self.directories(group);
        directories.iter().find_map(|directory| {
            let processes = std::fs::read_to_string(directory.join("cgroup.procs")).ok()?;
            processes.lines().next()?.parse().ok()
        })
    }

    /// Whether the group exists in every hierarchy that matters.
    pub fn exists(&self, group: &Path) -> bool {
        self.directories(group)
            .iter()
            .all(|directory| directory.is_dir())
    }

    /// Makes a group, and those above it, unless they exist, and sets its limits.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn ensure(&self, group: &Path, limits: &Limits) -> io::Result<()> {
        match self {
            Cgroups::V1(hierarchies) => hierarchies.ensure(group, limits),
            Cgroups::V2(root) => v2::ensure(root, group, limits),
        }
    }

    /// The groups directly below one.
    pub fn children(&self, group: &Path) -> Vec<PathBuf> {
        let mut children: Vec<PathBuf> = self
            .directories(group)
            .iter()
            .flat_map(|directory| subdirectories(directory))
            .filter_map(|path| Some(group.join(path.file_name()?)))
            .collect();
        children.sort();
        children.dedup();
        children
    }

    /// Kills what runs in a group and below it, and removes them. That there is none is no error.
    pub async fn remove(&self, group: &Path) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + REMOVAL;
        loop {
            let removed = self
                .all_directories(group)
                .iter()
                .map(|directory| remove_once(directory))
                .fold(Ok(()), Result::and);
            match removed {
                Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(REMOVAL_LOOK).await;
                }
                result => return result,
            }
        }
    }

    /// The directory of a group in the hierarchy of one controller.
    pub fn directory(&self, controller: &str, group: &Path) -> Option<PathBuf> {
        match self {
            Cgroups::V1(hierarchies) => hierarchies.directory(controller, group),
            Cgroups::V2(root) => Some(below(root, group)),
        }
    }

    fn directories(&self, group: &Path) -> Vec<PathBuf> {
        match self {
            Cgroups::V1(hierarchies) => hierarchies.directories(group),
            Cgroups::V2(root) => vec![below(root, group)],
        }
    }

    /// Also those in hierarchies without controllers, where runtimes leave groups behind.
    fn all_directories(&self, group: &Path) -> Vec<PathBuf> {
        match self {
            Cgroups::V1(hierarchies) => hierarchies.all_directories(group),
            Cgroups::V2(root) => vec![below(root, group)],
        }
    }
}

/// Removes a whole tree of groups with all that runs in it. Returns what could not be removed.
pub async fn remove_tree(group: &Path) -> Vec<String> {
    match Cgroups::detect().remove(group).await {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!(
            "cannot remove the cgroup {}: {error}",
            group.display()
        )],
    }
}

fn below(root: &Path, group: &Path) -> PathBuf {
    root.join(group.strip_prefix("/").unwrap_or(group))
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Kills and removes as far as possible; an error tells that something is left.
fn remove_once(directory: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for child in subdirectories(directory) {
        result = result.and(remove_once(&child));
    }
    for pid in processes(directory) {
        crate::runtime::kill(pid)?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => result.and(Err(error)),
        _ => result,
    }
}

fn processes(directory: &Path) -> Vec<i32> {
    fs::read_to_string(directory.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        // Processes of another PID namespace are listed as 0.
        .filter(|&pid| pid > 0)
        .collect()
}

/// Writes a value, and names the file when that fails.
fn set(file: &Path, value: &impl ToString) -> io::Result<()> {
    fs::write(file, value.to_string())
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_is_made_with_limits_and_removed_with_what_runs_in_it() {
        let cgroups = Cgroups::detect();
        let root = PathBuf::from(format!("/coracle-test-{}", std::process::id()));
        let group = root.join("kubepods/burstable/pod1");
        let limits = Limits {
            cpu_shares: Some(102),
            cpu_quota: Some(50_000),
            memory: Some(64 << 20),
            pids: Some(100),
        };
        if let Err(error) = cgroups.ensure(&group, &limits) {
            // Only root may make groups.
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            return;
        }
        assert!(cgroups.exists(&group));
        let mut child = tokio::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("sleep starts");
        let directory = cgroups
            .directory("pids", &group)
            .expect("pids are controlled");
        set(
            &directory.join("cgroup.procs"),
            &child.id().expect("sleep runs"),
        )
        .expect("it moves into the group");
        assert_eq!(
            cgroups.children(&root.join("kubepods/burstable")),
            std::slice::from_ref(&group)
        );
        let (removed, _) = tokio::join!(cgroups.remove(&root), child.wait());
        removed.expect("the tree is removed");
        assert!(!cgroups.exists(&group));
    }
}
