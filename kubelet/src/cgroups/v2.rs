//! cgroup v2: one hierarchy, whose groups hand controllers down to those below them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Limits, QUOTA_PERIOD, below, limits::shares_to_weight, processes, set};

/// The controllers that pods are limited by.
const WANTED: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

pub fn ensure(root: &Path, group: &Path, limits: &Limits) -> io::Result<()> {
    let mut directory = root.to_owned();
    for name in group.strip_prefix("/").unwrap_or(group) {
        delegate(root, &directory)?;
        directory.push(name);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("{}: {error}", directory.display()),
                ));
            }
            _ => {}
        }
    }
    // The groups of containers need the controllers too.
    delegate(root, &directory)?;
    apply(&below(root, group), limits)
}

fn apply(directory: &Path, limits: &Limits) -> io::Result<()> {
    let write = |name: &str, value: Option<String>| match value {
        // A controller that the kernel lacks limits nothing.
        Some(value) if directory.join(name).exists() => set(&directory.join(name), &value),
        _ => Ok(()),
    };
    let or_max = |value: i64| match value {
        -1 => "max".to_owned(),
        value => value.to_string(),
    };
    write(
        "cpu.weight",
        limits
            .cpu_shares
            .map(|shares| shares_to_weight(shares).to_string()),
    )?;
    write(
        "cpu.max",
        limits
            .cpu_quota
            .map(|quota| format!("{} {QUOTA_PERIOD}", or_max(quota))),
    )?;
    write("memory.max", limits.memory.map(or_max))?;
    write("pids.max", limits.pids.map(or_max))
}

/// Hands the controllers that a group has down to the groups below it.
fn delegate(root: &Path, directory: &Path) -> io::Result<()> {
    let words = |name: &str| -> Vec<String> {
        fs::read_to_string(directory.join(name))
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let delegated = words("cgroup.subtree_control");
    let missing: Vec<String> = words("cgroup.controllers")
        .into_iter()
        .filter(|controller| WANTED.contains(&controller.as_str()))
        .filter(|controller| !delegated.contains(controller))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let file = directory.join("cgroup.subtree_control");
    let line = missing
        .iter()
        .map(|controller| format!("+{controller}"))
        .collect::<Vec<_>>()
        .join(" ");
    match set(&file, &line) {
        // A group that is not the machine's root may not have both processes and controlled
        // groups: in a container, where it seems to be the root, the processes have to move.
        Err(error) if directory == root && error.kind() == io::ErrorKind::ResourceBusy => {
            evacuate(root)?;
            set(&file, &line)
        }
        result => result,
    }
}

fn evacuate(root: &Path) -> io::Result<()> {
    let refuge: PathBuf = root.join("init");
    fs::create_dir_all(&refuge)?;
    for pid in processes(root) {
        // Processes that end meanwhile cannot be moved.
        let _ = set(&refuge.join("cgroup.procs"), &pid);
    }
    Ok(())
}
