//! The node agent: makes the pods bound to this node run on a CRI runtime.

pub mod cri;
