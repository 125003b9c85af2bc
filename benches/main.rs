//! The project's benchmarks, run by `make bench`: start-up, memory, size, pod start, and the
//! API's throughput, each beside a figure of the machine itself.
//!
//! Machines are noisy: compare figures of one run with each other, not with another day's.

#[path = "../tests/e2e/cluster.rs"]
#[allow(dead_code)]
mod cluster;
#[path = "../tests/fakes/nodes.rs"]
#[allow(dead_code)]
mod fakes;

mod api;
mod cri;
mod limits;
mod node;
mod process;
mod report;
mod workloads;

fn main() {
    // `cargo bench` passes flags of its own; the first word that is none selects benchmarks.
    let only = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| name.contains(only));
    report::machine();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    if wanted("size") {
        report::binary_size();
    }
    if wanted("api") {
        runtime.block_on(api::run());
    }
    if wanted("limits") {
        runtime.block_on(limits::run());
    }
    if wanted("workloads") {
        runtime.block_on(workloads::run());
    }
    if wanted("node") {
        if nix::unistd::geteuid().is_root() {
            node::run(&runtime);
        } else {
            println!("the benchmarks of a node need root");
        }
    }
}
