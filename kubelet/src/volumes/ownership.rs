//! Giving a volume to the group that the pod's processes belong to (`fsGroup`; upstream's
//! pkg/volume/volume_linux.go).

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
};

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const SEARCH: u32 = 0o110;
const SET_GROUP: u32 = 0o2000;

/// Whose a volume becomes.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub id: u32,
    /// Whether a volume whose root is right already is left alone (`OnRootMismatch`).
    pub only_on_mismatch: bool,
}

/// Gives everything at and below `root` to the group.
pub fn give(root: &Path, group: Group, read_only: bool) -> io::Result<()> {
    let metadata = fs::symlink_metadata(root)?;
    if group.only_on_mismatch && is_right(&metadata, group, read_only) {
        return Ok(());
    }
    walk(root, &metadata, group, read_only)
}

fn is_right(metadata: &fs::Metadata, group: Group, read_only: bool) -> bool {
    let wanted = bits(true, read_only);
    metadata.is_dir() && metadata.gid() == group.id && metadata.mode() & wanted == wanted
}

fn bits(is_directory: bool, read_only: bool) -> u32 {
    let access = if read_only { READ_ONLY } else { READ_WRITE };
    match is_directory {
        true => access | SEARCH | SET_GROUP,
        false => access,
    }
}

/// The root comes last: it tells that all below it is done.
fn walk(path: &Path, metadata: &fs::Metadata, group: Group, read_only: bool) -> io::Result<()> {
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => walk(&entry.path(), &metadata, group, read_only)?,
                // Programs may remove files meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    lchown(path, None, Some(group.id))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.mode() & 0o7777 | bits(metadata.is_dir(), read_only);
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_the_groups() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("volume");
        fs::create_dir_all(root.join("sub")).expect("it is made");
        fs::write(root.join("sub/file"), "x").expect("it is written");
        fs::set_permissions(root.join("sub/file"), fs::Permissions::from_mode(0o600))
            .expect("it is changed");
        let own = fs::metadata(&root).expect("it is there").gid();
        let group = Group {
            id: own,
            only_on_mismatch: false,
        };
        give(&root, group, false).expect("it is given");
        let mode = |path: &str| fs::metadata(root.join(path)).expect("there").mode() & 0o7777;
        assert_eq!(mode("sub/file"), 0o660);
        assert_eq!(mode("sub") & 0o2770, 0o2770);
        fs::set_permissions(root.join("sub/file"), fs::Permissions::from_mode(0o600))
            .expect("it is changed");
        let only = Group {
            only_on_mismatch: true,
            ..group
        };
        give(&root, only, false).expect("it is given");
        assert_eq!(mode("sub/file"), 0o600, "the root was right already");
    }
}
