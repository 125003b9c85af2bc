//! A small file that is read again when it changes.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Without inotify (the host's limit of instances is reached) the file is looked at this often,
/// as upstream does.
const FALLBACK_PERIOD: Duration = Duration::from_secs(60);

struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Watches a file. It may be written in place, replaced, or be a link that comes to point
/// elsewhere within the directory, as those of mounted ConfigMaps do.
pub struct FileWatch {
    path: PathBuf,
    inotify: Option<AsyncFd<Instance>>,
    seen: String,
}

impl FileWatch {
    /// Starts watching. `seen` is the content that is known already.
    pub fn new(path: &Path, seen: String) -> Self {
        let inotify = watch_directory(path)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "cannot watch the file, polling it");
            })
            .ok();
        FileWatch {
            path: path.to_owned(),
            inotify,
            seen,
        }
    }

    /// The content, when it is another than before. A file that cannot be read is taken for one
    /// that is about to be.
    pub async fn changed(&mut self) -> String {
        loop {
            if let Ok(text) = std::fs::read_to_string(&self.path)
                && text != self.seen
                && !text.is_empty()
            {
                self.seen.clone_from(&text);
                return text;
            }
            self.something_happened().await;
        }
    }

    async fn something_happened(&self) {
        let Some(inotify) = &self.inotify else {
            return tokio::time::sleep(FALLBACK_PERIOD).await;
        };
        loop {
            let Ok(mut ready) = inotify.readable().await else {
                return tokio::time::sleep(FALLBACK_PERIOD).await;
            };
            match inotify.get_ref().0.read_events() {
                Ok(_) => return,
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                Err(_) => return tokio::time::sleep(FALLBACK_PERIOD).await,
            }
        }
    }
}

fn watch_directory(path: &Path) -> io::Result<AsyncFd<Instance>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let changes =
        AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
    inotify.add_watch(folder, changes)?;
    // SAFETY: the instance owns its descriptor, never changes it and closes it only when it is
    // dropped itself.
    Ok(unsafe { AsyncFd::register(Instance(inotify)) }?)
}

/// Reads a file that a flag names.
pub fn read(flag: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {flag} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_seen_however_they_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(&path, "one".to_owned());
        let patience = Duration::from_secs(10);
        let mut next = async || {
            tokio::time::timeout(patience, watch.changed())
                .await
                .unwrap()
        };
        std::fs::write(&path, "two").unwrap();
        assert_eq!(next().await, "two");
        std::fs::write(folder.path().join("new"), "three").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(next().await, "three");
        std::fs::write(folder.path().join("aside"), "four").unwrap();
        std::os::unix::fs::symlink("aside", folder.path().join("link")).unwrap();
        std::fs::rename(folder.path().join("link"), &path).unwrap();
        assert_eq!(next().await, "four");
    }
}
