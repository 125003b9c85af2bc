//! The CNI plugin: a bridge, a virtual cable for each pod, addresses from the node's pod CIDR,
//! host ports, and masquerading of what leaves the cluster.
//!
//! The container runtime runs it as a program of its own: enter at [`main`], which is called when
//! the binary is run under the name [`PLUGIN`] or [`LOOPBACK`]. [`conflist`] renders the
//! configuration that makes a runtime do so; [`cleanup`] undoes all that the plugin ever did to
//! the host. It follows the CNI specification 1.1 and its predecessors down to 0.3.1.
//!
//! How a pod is connected: its address stands alone on its interface (no neighbours), and
//! everything it sends goes to the gateway, which is the bridge. So traffic between two pods of a
//! node is routed, not switched: the packet filter and connection tracking see every packet,
//! whether or not the host has the `br_netfilter` module at work.
//!
//! What it promises: an `ADD` that fails leaves nothing behind; `DEL` may be repeated and goes on
//! past errors; being killed at any moment leaks at most an address, which is taken back when
//! addresses run out, by `GC`, or by `DEL`.

mod addresses;
mod config;
mod error;
mod host;
mod invocation;
mod links;
mod loopback;
mod plan;
mod report;
mod rules;
mod verbs;

pub use config::{Config, conflist};
pub use verbs::cleanup;

use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
};

/// The name of the plugin's program and its `type` in a configuration.
pub const PLUGIN: &str = "coracle-cni";

/// The second name: containerd runs a plugin so named to bring up each pod's loopback device.
pub const LOOPBACK: &str = "loopback";

/// Runs the plugin: parameters from the environment and standard input, the answer on standard
/// output.
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    let answer = match std::io::stdin().read_to_end(&mut input) {
        Ok(_) => run(|name| std::env::var(name).ok(), &input),
        Err(error) => Err(error::Error::io("read standard input", error).report("")),
    };
    let (text, code) = match &answer {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(text) => (text, ExitCode::FAILURE),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// One invocation: `variable` looks up the environment, `input` is standard input. The answer is for
/// standard output; `Err` when it is an error report.
pub fn run(variable: impl Fn(&str) -> Option<String>, input: &[u8]) -> Result<String, String> {
    let request = invocation::Request::new(variable, input)
        .map_err(|(version, error)| error.report(&version))?;
    let version = request.version.clone();
    verbs::run(&request).map_err(|error| error.report(&version))
}
