//! Space on the device that is kept for the writes which free space.
//!
//! Deleting an object writes to the log first, and many objects are marked before they are
//! deleted, so on a device that is full to the last block nothing could be deleted any more. A [`Spare`] is a file beside the store that has blocks and
//! no content: it is given up to let such a write through, and taken again before anything is
//! added. A file system that cannot allocate blocks ahead works without one.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};

/// More than the log is long when it is copied into the file, so that this copy finds room.
const SPARE_BYTES: i64 = 4 << 20;

pub(super) struct Spare {
    path: PathBuf,
    held: bool,
}

impl Spare {
    /// Of the store at `store`; takes the space, if there is so much.
    pub fn of(store: &Path) -> Self {
        let mut path = store.to_owned().into_os_string();
        path.push("-spare");
        let mut spare = Spare {
            path: path.into(),
            held: false,
        };
        spare.take();
        spare
    }

    /// Whether something may be added to the store: the space is held, or was just taken again.
    pub fn take(&mut self) -> bool {
        if !self.held {
            self.held = match allocate(&self.path) {
                Ok(()) => true,
                Err(error) if is_full(&error) => {
                    self.give_up();
                    false
                }
                Err(error) => {
                    tracing::debug!(%error, "no space can be kept for deletes on a full device");
                    let _ = std::fs::remove_file(&self.path);
                    true
                }
            };
        }
        self.held
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Lets the next write have the space.
    pub fn give_up(&mut self) {
        self.held = false;
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot give up the kept space");
        }
    }
}

/// Costs no write of content, and nothing when the file has its blocks already.
fn allocate(path: &Path) -> io::Result<()> {
    let file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, SPARE_BYTES)?;
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    let full = [Errno::ENOSPC, Errno::EDQUOT];
    error
        .raw_os_error()
        .is_some_and(|code| full.contains(&Errno::from_raw(code)))
}
