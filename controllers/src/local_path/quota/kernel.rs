//! Project quotas as Linux has them: ext4 and XFS (and others) speak the same interface.
//!
//! The numbers and layouts are those of `linux/fs.h`, `linux/quota.h` and `linux/dqblk_xfs.h`.
//! Only here does this crate speak to the kernel past the standard library.

use std::{
    ffi::{CString, c_int, c_long, c_void},
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use super::Projects;

const PROJECTS: u32 = 2;
const GET_STATE: u32 = 0x5808;
const GET_QUOTA: u32 = 0x5803;
const SET_LIMITS: u32 = 0x5804;

/// Limits of projects are not only counted but enforced.
const PROJECTS_ENFORCED: u16 = 1 << 5;
/// What is made in the folder is of its project.
const INHERIT: u32 = 0x200;
/// Sizes are counted in these blocks, whatever those of the file system are.
const BLOCK: u64 = 512;

/// The system call's number, which is the same on all architectures that this is built for.
const QUOTACTL_FD: c_long = 443;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct FileAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_on_write_extent_size: u32,
    padding: [u8; 8],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct QuotaFile {
    inode: u64,
    blocks: u64,
    extents: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct State {
    version: i8,
    padding1: u8,
    flags: u16,
    in_core: u32,
    files: [QuotaFile; 3],
    time_limits: [i32; 3],
    warning_limits: [u16; 3],
    padding2: u16,
    padding3: u32,
    padding4: [u64; 7],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Quota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    hard_limit: u64,
    soft_limit: u64,
    hard_inode_limit: u64,
    soft_inode_limit: u64,
    blocks: u64,
    inodes: u64,
    timers: [i32; 2],
    warnings: [u16; 2],
    timers_high: [i8; 4],
    realtime_limits: [u64; 2],
    realtime_blocks: u64,
    realtime_timer: i32,
    realtime_warnings: u16,
    padding1: i16,
    padding2: [u8; 8],
}

const QUOTA_VERSION: i8 = 1;
const OF_PROJECT: i8 = 2;
/// The soft and the hard limit of blocks are to be set.
const LIMITS: u16 = 1 << 2 | 1 << 3;

const GET_ATTRIBUTES: libc::Ioctl = libc::_IOR::<FileAttributes>(b'X' as u32, 31);
const SET_ATTRIBUTES: libc::Ioctl = libc::_IOW::<FileAttributes>(b'X' as u32, 32);

/// The kernel of this machine.
pub struct Kernel;

impl Projects for Kernel {
    fn are_enforced(&self, folder: &Path) -> io::Result<bool> {
        let mut state = State {
            version: 1,
            ..State::default()
        };
        // SAFETY: the kernel writes a state of version 1, which this is the layout of.
        unsafe { quotactl(folder, GET_STATE, 0, (&raw mut state).cast())? };
        Ok(state.flags & PROJECTS_ENFORCED != 0)
    }

    fn project(&self, folder: &Path) -> io::Result<u32> {
        Ok(attributes(open(folder)?.as_fd())?.project)
    }

    fn assign(&self, folder: &Path, project: u32) -> io::Result<()> {
        let folder = open(folder)?;
        let mut attributes = attributes(folder.as_fd())?;
        attributes.project = project;
        attributes.flags |= INHERIT;
        let fd = folder.as_raw_fd();
        // SAFETY: the kernel reads attributes of the layout whose size the request names.
        check(unsafe { libc::ioctl(fd, SET_ATTRIBUTES, &raw const attributes) })
    }

    fn is_used(&self, folder: &Path, project: u32) -> io::Result<bool> {
        let mut quota = Quota::default();
        // SAFETY: the kernel writes a quota, which this is the layout of.
        let got = unsafe { quotactl(folder, GET_QUOTA, project, (&raw mut quota).cast()) };
        match got {
            // XFS keeps nothing for a project that never was.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok([
                quota.inodes,
                quota.blocks,
                quota.hard_limit,
                quota.soft_limit,
                quota.hard_inode_limit,
                quota.soft_inode_limit,
            ] != [0; 6]),
        }
    }

    fn limit(&self, folder: &Path, project: u32, bytes: u64) -> io::Result<()> {
        let mut quota = Quota {
            version: QUOTA_VERSION,
            flags: OF_PROJECT,
            fields: LIMITS,
            id: project,
            hard_limit: bytes.div_ceil(BLOCK),
            ..Quota::default()
        };
        // SAFETY: the kernel reads a quota, which this is the layout of.
        unsafe { quotactl(folder, SET_LIMITS, project, (&raw mut quota).cast()) }
    }
}

/// The folder itself, not what a link leads to.
fn open(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(folder)
}

fn check(outcome: c_int) -> io::Result<()> {
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn attributes(folder: BorrowedFd<'_>) -> io::Result<FileAttributes> {
    let mut attributes = FileAttributes::default();
    let fd = folder.as_raw_fd();
    // SAFETY: the kernel writes attributes of the layout whose size the request names.
    check(unsafe { libc::ioctl(fd, GET_ATTRIBUTES, &raw mut attributes) })?;
    Ok(attributes)
}

/// Asks the file system that the folder is in.
///
/// # Safety
/// `data` points to what the command reads or writes.
unsafe fn quotactl(folder: &Path, command: u32, project: u32, data: *mut c_void) -> io::Result<()> {
    let command = command << 8 | PROJECTS;
    let opened = open(folder)?;
    let fd = c_long::from(opened.as_raw_fd());
    // SAFETY: the descriptor is open; for the data, the caller vouches.
    let outcome = unsafe { libc::syscall(QUOTACTL_FD, fd, command, project, data) };
    if outcome == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Before Linux 5.14, the device had to be named; some sandboxes do not know the call.
    let unknown = matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM));
    let Some(device) = device(folder)?.filter(|_| unknown) else {
        return Err(error);
    };
    let (command, project) = (command.cast_signed(), project.cast_signed());
    // SAFETY: the path ends with a null; for the data, the caller vouches.
    check(unsafe { libc::quotactl(command, device.as_ptr(), project, data.cast()) })
}

/// The block device that the folder's file system is on.
fn device(folder: &Path) -> io::Result<Option<CString>> {
    let number = fs::metadata(folder)?.dev();
    let number = format!("{}:{}", libc::major(number), libc::minor(number));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let source = mounts.lines().find_map(|line| source_of(line, &number));
    Ok(source.and_then(|source| CString::new(source).ok()))
}

/// The device of a line of `mountinfo`, if it is that of this number.
fn source_of<'a>(line: &'a str, number: &str) -> Option<&'a str> {
    let (place, source) = line.split_once(" - ")?;
    let is_it = place.split(' ').nth(2) == Some(number);
    source
        .split(' ')
        .nth(1)
        .filter(|source| is_it && source.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn layouts_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<FileAttributes>(), 28);
        assert_eq!(size_of::<State>(), 160);
        assert_eq!(size_of::<Quota>(), 112);
    }

    #[test]
    fn a_device_is_found_by_its_number() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(source_of(line, "98:0"), Some("/dev/root"));
        assert_eq!(source_of(line, "98:1"), None);
        let none = "22 1 0:21 / /proc rw - proc proc rw";
        assert_eq!(source_of(none, "0:21"), None);
    }

    /// Whatever the file system of the tests is, it can be asked.
    #[test]
    fn a_file_system_says_that_it_has_no_quotas() {
        let folder = tempfile::tempdir().expect("a folder");
        let enforced = Kernel.are_enforced(folder.path());
        assert!(!enforced.unwrap_or(false));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).expect("a link");
        assert!(Kernel.project(&link).is_err());
    }

    struct Mounted<'a>(&'a Path);

    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0).status();
        }
    }

    /// Says why not where it cannot be tried: it needs root, loop devices, `mkfs.ext4` and a
    /// kernel with project quotas.
    #[test]
    fn a_project_is_held_to_its_limit_by_the_kernel() {
        let folder = tempfile::tempdir().expect("a folder");
        let (image, root) = (folder.path().join("image"), folder.path().join("root"));
        let file = File::create(&image).expect("an image");
        file.set_len(64 << 20).expect("room");
        fs::create_dir(&root).expect("a folder");
        let run = |program: &str, args: &[&str], last: &[&Path]| {
            let output = Command::new(program).args(args).args(last).output();
            let output = output.map_err(|error| format!("{program}: {error}"))?;
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        };
        let options = ["-q", "-O", "quota,project", "-E", "quotatype=prjquota"];
        let made = run("mkfs.ext4", &options, &[&image])
            .and_then(|()| run("mount", &["-o", "loop,prjquota"], &[&image, &root]));
        if let Err(why) = made {
            eprintln!("skipped, as no file system with project quotas can be had here: {why}");
            return;
        }
        let _mounted = Mounted(&root);
        assert!(Kernel.are_enforced(&root).expect("a state"));
        let volume = root.join("volume");
        fs::create_dir(&volume).expect("a folder");
        assert!(!Kernel.is_used(&root, 77).expect("a quota"));
        Kernel.assign(&volume, 77).expect("assigned");
        Kernel.limit(&volume, 77, 1 << 20).expect("limited");
        assert_eq!(Kernel.project(&volume).expect("a project"), 77);
        assert!(Kernel.is_used(&root, 77).expect("a quota"));
        let write = |megabytes: usize| fs::write(volume.join("file"), vec![1; megabytes << 20]);
        let error = write(2).expect_err("too much");
        assert_eq!(error.raw_os_error(), Some(libc::EDQUOT));
        Kernel.limit(&volume, 77, 4 << 20).expect("raised");
        write(2).expect("there is room");
        fs::remove_dir_all(&volume).expect("removed");
        Kernel.limit(&root, 77, 0).expect("freed");
        assert!(!Kernel.is_used(&root, 77).expect("a quota"));
    }
}
