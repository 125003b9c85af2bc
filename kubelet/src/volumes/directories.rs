//! Volumes that are directories: `emptyDir` on disk, in memory or on huge pages, and paths of the
//! host.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
};

use nix::mount::{MsFlags, mount};

use super::Error;

/// Makes a directory that everybody may write to.
pub fn make(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o777)))
        .map_err(Error::io(path))
}

/// Makes a directory in memory, unless it is one. `size` is in bytes.
pub fn make_in_memory(path: &Path, size: Option<i64>) -> Result<(), Error> {
    if is_mount_point(path) {
        return Ok(());
    }
    make(path)?;
    let size = size.filter(|&size| size > 0);
    let options = size.map(|size| format!("size={size}")).unwrap_or_default();
    mount_at(path, "tmpfs", &options)
}

/// Makes a directory of huge pages, unless it is one. `page_size` is in bytes.
pub fn make_of_huge_pages(path: &Path, page_size: i64) -> Result<(), Error> {
    if is_mount_point(path) {
        return Ok(());
    }
    make(path)?;
    mount_at(path, "hugetlbfs", &format!("pagesize={page_size}"))
}

fn mount_at(path: &Path, kind: &str, options: &str) -> Result<(), Error> {
    let mounted = mount(
        Some(kind),
        path,
        Some(kind),
        MsFlags::empty(),
        Some(options),
    );
    mounted.map_err(|errno| Error::io(path)(errno.into()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(Error::io(path))
}

/// Whether something is mounted on the directory.
pub fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(own), Some(Ok(parent))) = (
        fs::symlink_metadata(path),
        path.parent().map(fs::symlink_metadata),
    ) else {
        return false;
    };
    own.dev() != parent.dev()
}

/// Binds a directory of the host to a place in the pod's directory, unless it is.
pub fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    fs::create_dir_all(target).map_err(Error::io(target))?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(Error::io(target))?;
    let bound = super::mounts_below(&mountinfo, target)
        .iter()
        .any(|mount| mount == target);
    if bound {
        return Ok(());
    }
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(|errno| Error::io(target)(errno.into()))
}

/// Checks that a path of the host is what the pod says it is, and makes it if it may.
pub fn check_host_path(path: &str, kind: &str) -> Result<(), Error> {
    if path.split('/').any(|part| part == "..") {
        return Err(Error::Source(format!(
            "invalid HostPath `{path}`: must not contain '..'"
        )));
    }
    let path = Path::new(path);
    let found = match fs::metadata(path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(path)(error)),
    };
    let wrong = |what: &str| {
        Err(Error::Source(format!(
            "hostPath type check failed: {} is not {what}",
            path.display()
        )))
    };
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(test);
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_none() => {
            fs::create_dir_all(path).map_err(Error::io(path))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::io(path))
        }
        "FileOrCreate" if found.is_none() => {
            fs::write(path, "").map_err(Error::io(path))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(Error::io(path))
        }
        "DirectoryOrCreate" | "Directory" if !is(fs::FileType::is_dir) => wrong("a directory"),
        "FileOrCreate" | "File" if !is(fs::FileType::is_file) => wrong("a file"),
        "Socket" if !is(fs::FileType::is_socket) => wrong("a socket file"),
        "CharDevice" if !is(fs::FileType::is_char_device) => wrong("a character device"),
        "BlockDevice" if !is(fs::FileType::is_block_device) => wrong("a block device"),
        "DirectoryOrCreate" | "Directory" | "FileOrCreate" | "File" | "Socket" | "CharDevice"
        | "BlockDevice" => Ok(()),
        other => Err(Error::Source(format!("{other} is an invalid volume type"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_made_or_checked() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let cases = [
            ("none", "", None),
            ("none", "Directory", Some("is not a directory")),
            ("dir", "DirectoryOrCreate", None),
            ("dir", "Directory", None),
            ("dir", "File", Some("is not a file")),
            ("file", "FileOrCreate", None),
            ("file", "File", None),
            ("file", "Socket", Some("is not a socket file")),
            (
                "file",
                "Nonsense",
                Some("Nonsense is an invalid volume type"),
            ),
            ("../x", "", Some("must not contain '..'")),
        ];
        for (name, kind, expected) in cases {
            let result = check_host_path(&path(name), kind);
            match expected {
                None => assert!(result.is_ok(), "{name} {kind}: {result:?}"),
                Some(part) => {
                    let text = result.expect_err("it is refused").to_string();
                    assert!(text.contains(part), "{text}");
                }
            }
        }
        assert!(check_host_path("/dev/null", "CharDevice").is_ok());
    }
}
