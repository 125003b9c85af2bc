//! Waits for changes of a log file, by inotify on its directory.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::Path,
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::unix::AsyncFd;

/// Without inotify (the host's limit of instances is reached) the file is looked at this often.
const FALLBACK_PERIOD: Duration = Duration::from_secs(1);

/// What happened to the file. Several changes may come as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileChange {
    /// Something was written.
    pub modified: bool,
    /// A new file of the name was made, or moved to it.
    pub replaced: bool,
    /// Who wrote it has closed it, or it was deleted: its container may have ended.
    pub closed: bool,
    /// Another file of the directory was closed: perhaps the one that was rotated away.
    pub other_closed: bool,
}

struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Watches one file of a directory.
pub struct FileWatch {
    inotify: Option<AsyncFd<Instance>>,
    name: OsString,
}

impl FileWatch {
    /// Starts watching: whatever happens from now on is seen by [`FileWatch::changed`].
    pub fn new(path: &Path) -> Self {
        let inotify = watch_directory(path)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "cannot watch the log, polling it");
            })
            .ok();
        FileWatch {
            inotify,
            name: path.file_name().map(OsStr::to_owned).unwrap_or_default(),
        }
    }

    /// The next changes. Safe to cancel.
    pub async fn changed(&mut self) -> FileChange {
        let polled = FileChange {
            modified: true,
            closed: true,
            ..FileChange::default()
        };
        let Some(inotify) = &self.inotify else {
            tokio::time::sleep(FALLBACK_PERIOD).await;
            return polled;
        };
        loop {
            let Ok(mut ready) = inotify.readable().await else {
                break;
            };
            match ready.try_io(|inotify| Ok(inotify.get_ref().0.read_events()?)) {
                Ok(Ok(events)) => {
                    let change = summarize(&events, &self.name);
                    if change != FileChange::default() {
                        return change;
                    }
                }
                Ok(Err(_)) => break,
                Err(_not_ready) => {}
            }
        }
        self.inotify = None;
        polled
    }
}

fn watch_directory(path: &Path) -> io::Result<AsyncFd<Instance>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(
        directory,
        AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF,
    )?;
    // SAFETY: the instance owns its descriptor, never changes it and closes it only when it is
    // dropped itself.
    Ok(unsafe { AsyncFd::register(Instance(inotify)) }?)
}

fn summarize(events: &[InotifyEvent], name: &OsStr) -> FileChange {
    let mut change = FileChange::default();
    for event in events {
        let has = |flags| event.mask.intersects(flags);
        // Events were lost, or the directory is gone: look at everything.
        let unknown = AddWatchFlags::IN_Q_OVERFLOW
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_IGNORED;
        if has(unknown) {
            change.modified = true;
            change.closed = true;
        } else if event.name.as_deref() == Some(name) {
            change.modified |= has(AddWatchFlags::IN_MODIFY);
            change.replaced |= has(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
            change.closed |= has(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE);
        } else {
            change.other_closed |= has(AddWatchFlags::IN_CLOSE_WRITE);
        }
    }
    change
}
