//! Taking a pod's directory down: what is mounted in it is unmounted first, and nothing is
//! removed as long as anything is, for it may be somebody else's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};

/// The mount points at and below a directory, in the order in which they can be undone.
pub fn mounts_below(mountinfo: &str, directory: &Path) -> Vec<PathBuf> {
    let mut mounts: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|mount| mount.starts_with(directory))
        .collect();
    mounts.reverse();
    mounts
}

/// The kernel writes blanks and backslashes in mount points as octal numbers.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn mounted(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts_below(&mountinfo, directory))
}

/// Unmounts everything at and below a directory.
///
/// # Errors
/// Names the first mount that cannot be undone; the others are.
pub fn unmount_all(directory: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for mount in mounted(directory)? {
        let undone = umount2(&mount, MntFlags::UMOUNT_NOFOLLOW)
            .or_else(|_| umount2(&mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW));
        if let Err(errno) = undone {
            let error = io::Error::from(errno);
            let text = format!("cannot unmount {}: {error}", mount.display());
            result = result.and(Err(io::Error::new(error.kind(), text)));
        }
    }
    result
}

/// Unmounts and removes a directory with all that is in it. That there is none is no error.
pub fn take_down(directory: &Path) -> io::Result<()> {
    unmount_all(directory)?;
    if let Some(left) = mounted(directory)?.first() {
        let text = format!("{} is still mounted", left.display());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_come_innermost_first_and_unescaped() {
        let mountinfo = "\
22 1 0:2 / /data rw - ext4 /dev/vda rw
30 22 0:3 / /data/a rw - tmpfs tmpfs rw
31 30 0:4 / /data/a/b\\040c rw - tmpfs tmpfs rw
32 22 0:5 / /database rw - tmpfs tmpfs rw
";
        assert_eq!(
            mounts_below(mountinfo, Path::new("/data/a")),
            [PathBuf::from("/data/a/b c"), PathBuf::from("/data/a")]
        );
    }

    #[test]
    fn a_directory_goes_with_what_is_mounted_in_it() {
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("kept"), "x").expect("it is written");
        let inside = tempfile::tempdir().expect("a directory");
        let pod = inside.path().join("pod");
        let mount_point = pod.join("volumes/a b");
        fs::create_dir_all(&mount_point).expect("it is made");
        nix::mount::mount(
            Some(outside.path()),
            &mount_point,
            None::<&str>,
            nix::mount::MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("it is bound");
        take_down(&pod).expect("it is taken down");
        assert!(!pod.exists());
        assert!(outside.path().join("kept").exists());
    }
}
