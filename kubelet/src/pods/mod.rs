//! The pods of the node.

pub mod actions;
pub mod dns;
pub mod env;
pub mod hostname;
pub mod labels;
pub mod observed;
pub mod probe_results;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod spec;
pub mod status;
