//! The container runtime of the node: a containerd of our own, started and supervised here, and
//! what is needed to stop it and everything it runs.
//!
//! Enter at [`Supervisor`], which keeps the runtime up, [`Health`], what is known of it, and
//! [`stop_all`], which takes everything down. With a runtime that somebody else runs, only
//! [`Health`] is kept.

mod containerd;
mod events;
mod health;
mod paths;
mod process;
mod settings;
mod stop;

pub use containerd::Supervisor;
pub use events::{Hint, Hints};
pub use health::{Condition, Handler, Health, HealthWatch};
pub use paths::Paths;
pub use stop::stop_all;

/// Kills a process at once; that it is already gone is no error.
pub(crate) fn kill(pid: i32) -> std::io::Result<()> {
    process::signal(pid, nix::sys::signal::Signal::SIGKILL)
}

use std::path::PathBuf;

/// Why the runtime cannot be kept up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot start {program}: {source}", program = program.display())]
    Start {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot import {image}: {reason}")]
    Import { image: String, reason: String },
}
