//! The scheduler, as a client of the API: it gives every pod a node and writes the binding.
//!
//! Enter at [`Scheduler`]. Inside, a decision is a pure function of what is known
//! (`schedule::schedule`, `preemption::find`); the rules are plugins behind one trait
//! (`framework::Plugin`, listed in `plugins::table`); `scheduler::Loop` is all that reads and
//! writes. Names, weights, texts and defaults are those of kube-scheduler.

mod actions;
mod binding;
mod cache;
mod cluster;
mod devices;
mod event;
mod framework;
mod metrics;
mod node;
mod nominator;
mod plugins;
mod pod;
mod preemption;
#[cfg(test)]
mod preemption_cases;
mod queue;
mod resources;
mod schedule;
mod scheduler;
mod selector;
mod storage;
mod surroundings;
mod taints;
#[cfg(test)]
mod testing;

pub use metrics::metrics;
pub use scheduler::{Config, Error, Scheduler};
