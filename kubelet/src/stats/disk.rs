//! How much of the disk volumes, logs and writable layers take.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use jiff::Timestamp;

use crate::server::summary::FsStats;

/// Files that are looked at to add up one volume: more make an answer too slow.
const MOST_FILES: u64 = 100_000;

/// The file system that the path is on.
pub fn file_system(path: &Path) -> Option<FsStats> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let block = stat.fragment_size();
    Some(FsStats {
        time: Timestamp::now(),
        available_bytes: Some(stat.blocks_available() * block),
        capacity_bytes: Some(stat.blocks() * block),
        used_bytes: Some((stat.blocks() - stat.blocks_free()) * block),
        inodes_free: Some(stat.files_free()),
        inodes: Some(stat.files()),
        inodes_used: Some(stat.files() - stat.files_free()),
    })
}

/// What is below the path, on the file system that it is on: a volume without one of its own is as
/// large as its files.
pub fn volume(path: &Path) -> Option<FsStats> {
    let of = file_system(path)?;
    if is_mount(path) {
        return Some(of);
    }
    let (used_bytes, inodes_used) = add_up(path);
    Some(FsStats {
        used_bytes: Some(used_bytes),
        inodes_used: Some(inodes_used),
        ..of
    })
}

/// The same file system, with what a part of it takes.
pub fn part(of: &FsStats, used_bytes: u64, inodes_used: Option<u64>) -> FsStats {
    FsStats {
        time: Timestamp::now(),
        used_bytes: Some(used_bytes),
        inodes_used,
        ..of.clone()
    }
}

fn is_mount(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|it| it.dev()).ok();
    path.parent()
        .is_some_and(|parent| device(path) != device(parent))
}

/// Bytes and files below the path, other file systems left out.
pub fn add_up(path: &Path) -> (u64, u64) {
    let Ok(top) = fs::symlink_metadata(path) else {
        return (0, 0);
    };
    let (mut bytes, mut files) = (top.blocks() * 512, 1);
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.dev() != top.dev() {
                continue;
            }
            bytes += metadata.blocks() * 512;
            files += 1;
            if files >= MOST_FILES {
                return (bytes, files);
            }
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    (bytes, files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_without_a_file_system_of_its_own_is_as_large_as_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let before = volume(folder.path()).unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/file"), vec![1; 1 << 16]).unwrap();
        let after = volume(folder.path()).unwrap();
        let grown = after.used_bytes.unwrap() - before.used_bytes.unwrap();
        assert!((1 << 16..1 << 18).contains(&grown), "{grown}");
        assert_eq!(after.inodes_used.unwrap() - before.inodes_used.unwrap(), 2);
        assert!(after.capacity_bytes.unwrap() > 1 << 20);
    }
}
