//! End-to-end tests: the real binary, a real containerd and stock kubectl.
//!
//! All run against one shared cluster, each in a namespace of its own, except those that break
//! things, which start a cluster for themselves. See [`cluster::Cluster`].

mod attach;
mod autoscale;
mod cluster;
mod delete;
mod describe;
mod hello;
mod pods;
mod read;
mod recovery;
mod rollout;
mod storage;
mod web_app;
mod workloads;
mod write;
