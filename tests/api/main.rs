//! API tests: the real binary, without a node, mostly with its store in memory; and the controllers
//! killed over and over.

mod access;
mod claims;
mod crash;
mod devices;
mod encryption;
mod etcd;
#[path = "../fakes/nodes.rs"]
mod fakes;
mod leader;
mod lifecycle;
mod metrics;
mod objects;
mod scheduling;
mod server;
