//! The volumes of pods: what they hold, where they are on the host, and how they are taken down.
//!
//! Enter at [`Volumes`], one for the node, whose [`Volumes::of_pod`] gives a [`PodVolumes`] to
//! each pod. Setting up can be asked for again at any time: what is in place stays, what has
//! changed at its source is written anew, in one step for readers.

mod atomic;
mod claims;
mod directories;
mod nested;
mod objects;
mod ownership;
mod payload;
mod pod;
mod subpath;
mod teardown;
mod tokens;

use std::path::PathBuf;

pub use atomic::File;
pub use objects::Interested;
pub use objects::{Objects, Watched};
pub use pod::{Around, Failure, MountedVolume, PodVolumes, Volumes};
pub use subpath::{Part, prepare as prepare_part};
pub use teardown::{mounts_below, take_down};

/// Why a volume cannot be used (yet), in upstream's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What a volume refers to is not there or not as it should be.
    #[error("{0}")]
    Source(String),
    #[error("{path}: {source}", path = path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Error {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
