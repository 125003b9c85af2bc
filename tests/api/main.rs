//! API tests: the real binary, without a node, mostly with its store in memory.

mod lifecycle;
mod objects;
mod server;
