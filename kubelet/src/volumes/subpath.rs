//! Mounting a part of a volume without ever leaving it, whatever links a container has put there.
//!
//! The part is opened by the kernel with resolution confined to the volume, and what was opened,
//! not its path, is bound to a place that no container reaches. The runtime mounts that place.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    mount::{MsFlags, mount},
    sys::stat::{Mode, mkdirat},
};

use super::Error;

/// One mount of a part of a volume.
pub struct Part<'a> {
    pub pod_dir: &'a Path,
    pub volume: &'a str,
    pub volume_path: &'a Path,
    pub container: &'a str,
    /// The position of the mount in the container's list.
    pub index: usize,
    /// Relative to the volume.
    pub path: &'a str,
}

/// Makes the part if it does not exist and binds it; returns what the container is to mount.
///
/// # Errors
/// When the part lies outside of the volume or cannot be made.
pub fn prepare(part: &Part<'_>) -> Result<PathBuf, Error> {
    check(part.path)?;
    let root = open(
        part.volume_path,
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| Error::io(part.volume_path)(errno.into()))?;
    let opened = match open_beneath(&root, part.path) {
        Err(Errno::ENOENT) => make_beneath(&root, part),
        result => result,
    };
    let opened = opened.map_err(|errno| {
        let path = part.volume_path.join(part.path);
        match errno {
            Errno::EXDEV | Errno::ELOOP => Error::Source(format!(
                "failed to prepare subPath for volumeMount {:?} of container {:?}",
                part.volume, part.container
            )),
            errno => Error::io(path)(errno.into()),
        }
    })?;
    let target = part
        .pod_dir
        .join("volume-subpaths")
        .join(part.volume)
        .join(part.container)
        .join(part.index.to_string());
    bind(&opened, &target).map_err(Error::io(&target))?;
    Ok(target)
}

fn check(path: &str) -> Result<(), Error> {
    if path.starts_with('/') {
        return Err(Error::Source(format!(
            "error SubPath `{path}` must not be an absolute path"
        )));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(Error::Source(format!(
            "unable to provision SubPath `{path}`: must not contain '..'"
        )));
    }
    Ok(())
}

fn open_beneath(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // A rename meanwhile makes the kernel ask for another try.
    loop {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Makes what is missing of the path, with the mode of the volume.
fn make_beneath(root: &OwnedFd, part: &Part<'_>) -> Result<OwnedFd, Errno> {
    let mode = fs::metadata(part.volume_path).map_or(0o750, |it| it.permissions().mode() & 0o7777);
    let mut directory = open_beneath(root, "")?;
    for component in Path::new(part.path).components() {
        let Component::Normal(name) = component else {
            continue;
        };
        let name = name.to_str().ok_or(Errno::EINVAL)?;
        directory = match open_beneath(&directory, name) {
            Err(Errno::ENOENT) => {
                match mkdirat(&directory, name, Mode::from_bits_truncate(mode)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                let made = open_beneath(&directory, name)?;
                // The mode at creation is cut by the process's mask.
                let path = format!("/proc/self/fd/{}", made.as_raw_fd());
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
                    .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
                made
            }
            result => result?,
        };
    }
    // Links on the way may lead elsewhere in the volume: the whole path decides.
    open_beneath(root, part.path)
}

fn bind(opened: &OwnedFd, target: &Path) -> io::Result<()> {
    let source = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let metadata = fs::metadata(&source)?;
    if let Ok(existing) = fs::metadata(target) {
        if is_same(&existing, &metadata) {
            return Ok(());
        }
        unbind(target)?;
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if metadata.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        fs::write(target, "")?;
    }
    mount(
        Some(&source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(io::Error::from)
}

fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn unbind(target: &Path) -> io::Result<()> {
    match nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH) {
        // Nothing is mounted there.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::metadata(target) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(target),
        Ok(_) => fs::remove_file(target),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn parts_are_bound_and_never_lead_out_of_the_volume() {
        let directory = tempfile::tempdir().expect("a directory");
        let volume = directory.path().join("volume");
        fs::create_dir_all(volume.join("real")).expect("it is made");
        fs::write(volume.join("real/file"), "inside").expect("it is written");
        fs::write(directory.path().join("secret"), "outside").expect("it is written");
        symlink("real", volume.join("link")).expect("it is linked");
        symlink("../secret", volume.join("escape")).expect("it is linked");
        symlink("/etc", volume.join("absolute")).expect("it is linked");
        let prepare = |path: &str| {
            prepare(&Part {
                pod_dir: directory.path(),
                volume: "v",
                volume_path: &volume,
                container: "c",
                index: 0,
                path,
            })
        };
        for path in ["../secret", "/etc", "escape", "absolute", "absolute/passwd"] {
            let result = prepare(path);
            assert!(
                matches!(result, Err(Error::Source(_))),
                "{path}: {result:?}"
            );
        }
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        for path in ["link/file", "made/here"] {
            let target = prepare(path).expect("it lies in the volume");
            let again = prepare(path).expect("it may be asked for again");
            assert_eq!(target, again);
            if path == "link/file" {
                assert_eq!(fs::read_to_string(&target).ok().as_deref(), Some("inside"));
            }
            unbind(&target).expect("it is taken down");
        }
        assert!(volume.join("made/here").is_dir());
    }
}
