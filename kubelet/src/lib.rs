//! The node agent: makes the pods bound to this node run on a CRI runtime.

pub mod cgroups;
pub mod config;
pub mod cri;
mod host;
mod kubelet;
mod metrics;
pub mod node;
mod pages;
mod patch;
pub mod pause;
pub mod pods;
pub mod probes;
pub mod runtime;
pub mod server;
mod stats;
pub mod volumes;

pub use config::Config;
pub use kubelet::{Error, Kubelet};
