//! Processes that are not our children: finding them by their command line, waiting for their
//! end, ending them.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::io::unix::AsyncFd;

/// A process that can be waited for although another one started it.
pub struct Pidfd {
    pid: i32,
    fd: AsyncFd<OwnedFd>,
}

impl Pidfd {
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: `OwnedFd` keeps its descriptor open as long as it is registered.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Pidfd { pid, fd })
    }

    /// Returns once the process has ended.
    pub async fn ended(&self) -> io::Result<()> {
        self.fd.readable().await?.retain_ready();
        Ok(())
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }
}

/// The command line of a process; empty for kernel threads and processes that are gone.
pub fn command_line(pid: i32) -> Vec<String> {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .unwrap_or_default()
        .split(|&byte| byte == 0)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// Every process whose command line `matches`.
pub fn find(matches: impl Fn(&[String]) -> bool) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| matches(&command_line(pid)))
        .collect()
}

/// Whether a command line is a containerd's that reads `settings`.
pub fn is_containerd_with(command_line: &[String], settings: &Path) -> bool {
    command_line
        .windows(2)
        .any(|pair| pair[0] == "--config" && Path::new(&pair[1]) == settings)
}

/// Whether a command line is a containerd shim's that reports to `socket`.
pub fn is_shim_of(command_line: &[String], socket: &Path) -> bool {
    command_line
        .windows(2)
        .any(|pair| pair[0] == "-address" && Path::new(&pair[1]) == socket)
}

/// Sends a signal; that the process is already gone is no error.
pub fn signal(pid: i32, signal: Signal) -> io::Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Ends a process: SIGTERM, and SIGKILL when it is still there after `patience`.
pub async fn end(pid: i32, patience: Duration) -> io::Result<()> {
    let process = match Pidfd::open(pid) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        Err(error) => return Err(error),
    };
    signal(pid, Signal::SIGTERM)?;
    if let Ok(ended) = tokio::time::timeout(patience, process.ended()).await {
        return ended;
    }
    signal(pid, Signal::SIGKILL)?;
    tokio::time::timeout(patience, process.ended())
        .await
        .unwrap_or_else(|_| Err(io::Error::other(format!("process {pid} does not end"))))
}

/// The full path of a program: looked up in `PATH` unless it has a slash.
pub fn resolve(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(usual.split(':'))
        .filter(|directory| !directory.is_empty())
        .map(|directory| Path::new(directory).join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| program.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed() {
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; read -r line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut ready = [0; 6];
        let output = child.stdout.as_mut().expect("stdout is piped");
        tokio::io::AsyncReadExt::read_exact(output, &mut ready)
            .await
            .expect("sh speaks");
        let pid = child.id().expect("sh runs") as i32;
        end(pid, Duration::from_millis(500)).await.expect("it ends");
        let status = child.wait().await.expect("it is reaped");
        assert!(!status.success());
    }

    #[test]
    fn command_lines_are_matched_by_their_arguments() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let containerd = words("/usr/bin/containerd --config /d/etc/config.toml");
        assert!(is_containerd_with(
            &containerd,
            Path::new("/d/etc/config.toml")
        ));
        assert!(!is_containerd_with(
            &containerd,
            Path::new("/other/config.toml")
        ));
        let shim = words("/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id x -address /d/s");
        assert!(is_shim_of(&shim, Path::new("/d/s")));
        assert!(!is_shim_of(&shim, Path::new("/e/s")));
    }
}
