//! How components speak to the API: a `kube::Client` straight into the in-process router or
//! from a kubeconfig, informers shared by the whole process, work queues, events, leader election.
//!
//! Enter at [`in_process`] or `kube::Client`, then [`Informers`].

mod correlator;
mod ensure;
mod in_process;
mod informer;
mod leader;
mod metrics;
mod queue;
mod recorder;
mod zero_times;

pub use ensure::ensure;
pub use in_process::in_process;
pub use informer::{Cached, Change, Changes, Informer, Informers};
pub use leader::{Candidate, Leadership, Timing};
pub use metrics::metrics;
pub use queue::{Backoff, Queue};
pub use recorder::{EventRecorder, EventType, InvolvedObject};
