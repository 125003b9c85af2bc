//! The data directory: one server at a time holds it, and its layout is written down here.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};

/// Where things are below the data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    pub root: PathBuf,
}

impl Layout {
    pub fn new(root: &Path) -> anyhow::Result<Self> {
        // Mounts and sockets are found again by this path, so it must not depend on the
        // working directory.
        let root = std::path::absolute(root)
            .with_context(|| format!("cannot make {} an absolute path", root.display()))?;
        Ok(Layout { root })
    }

    /// Whether this is the machine's own cluster, which uses upstream's well-known paths.
    pub fn is_default(&self) -> bool {
        self.root == Path::new(crate::cli::DEFAULT_DATA_DIR)
    }

    pub fn database(&self) -> PathBuf {
        self.root.join("server/db/state.db")
    }

    /// The keys that Secrets are encrypted with at rest.
    pub fn encryption_keys(&self) -> PathBuf {
        self.root.join("server/cred/encryption-config.json")
    }

    /// What servers of one cluster prove to each other by.
    pub fn token(&self) -> PathBuf {
        self.root.join("server/token")
    }

    pub fn tls(&self) -> PathBuf {
        self.root.join("server/tls")
    }

    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// The volumes of the class `local-path`.
    pub fn storage(&self) -> PathBuf {
        self.root.join("storage")
    }

    /// Names the runtime's socket, when somebody else's runtime is used.
    pub fn runtime_endpoint(&self) -> PathBuf {
        self.node().join("runtime-endpoint")
    }

    /// The control group below which this cluster's pods are: upstream's place for the machine's
    /// own cluster, one named after the data directory for any other.
    pub fn cgroup_root(&self) -> PathBuf {
        if self.is_default() {
            return PathBuf::from("/");
        }
        let name = self.root.to_string_lossy();
        Path::new("/").join(name.trim_matches('/').replace(['/', ' '], "-"))
    }

    /// Where our containerd listens.
    pub fn containerd_socket(&self) -> PathBuf {
        self.root.join("node/run/containerd/containerd.sock")
    }

    /// The administrator's kubeconfig that our own subcommands use.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.root.join("server/admin.kubeconfig")
    }

    /// The administrator's kubeconfig, where users find it.
    pub fn kubeconfig(&self) -> PathBuf {
        if self.is_default() {
            PathBuf::from("/etc/coracle/kubeconfig.yaml")
        } else {
            self.root.join("kubeconfig.yaml")
        }
    }

    /// Upstream's kubelet directory, which storage drivers expect at its usual place.
    pub fn kubelet(&self) -> PathBuf {
        if self.is_default() {
            PathBuf::from("/var/lib/kubelet")
        } else {
            self.root.join("kubelet")
        }
    }

    /// Upstream's directory of pod logs, which log collectors expect at its usual place.
    pub fn pod_logs(&self) -> PathBuf {
        if self.is_default() {
            PathBuf::from("/var/log/pods")
        } else {
            self.root.join("log/pods")
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("coracle.pid")
    }
}

/// The hold on a data directory; let go when dropped or when the process ends in any way.
pub struct Hold {
    _lock: Flock<File>,
}

/// Takes hold of the data directory for this process.
///
/// # Errors
/// When another process holds it, or it cannot be written.
pub fn hold(layout: &Layout) -> anyhow::Result<Hold> {
    create_private(&layout.root)?;
    let path = layout.lock_file();
    let file = open(&path)?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, _)) => {
            let holder =
                read_pid(&mut file).map_or_else(String::new, |pid| format!(" (process {pid})"));
            bail!(
                "another coracle{holder} is running on {}: stop it first, or choose another --data-dir",
                layout.root.display()
            );
        }
    };
    lock.set_len(0)?;
    lock.rewind()?;
    write!(lock, "{}", std::process::id())?;
    Ok(Hold { _lock: lock })
}

/// The process that holds the data directory, if one does.
pub fn holder(layout: &Layout) -> anyhow::Result<Option<u32>> {
    let path = layout.lock_file();
    if !path.exists() {
        return Ok(None);
    }
    match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
        Ok(_) => Ok(None),
        Err((mut file, _)) => Ok(read_pid(&mut file)),
    }
}

/// Creates a directory that only its owner can enter.
pub fn create_private(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        let first = hold(&layout).unwrap();
        let refusal = hold(&layout).err().unwrap().to_string();
        assert!(
            refusal.contains(&format!("process {}", std::process::id())),
            "{refusal}"
        );
        assert_eq!(holder(&layout).unwrap(), Some(std::process::id()));
        drop(first);
        assert_eq!(holder(&layout).unwrap(), None);
        hold(&layout).unwrap();
    }
}
