//! What is counted of admission: the time that plugins take, and what Pod Security decides.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use coracle_metrics::{Collect, Counters, Histogram, Histograms, Stability};

use crate::admission::Operation;

const DURATIONS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

static PLUGINS: Histograms<4> = Histograms::with_buckets(
    "apiserver_admission_controller_admission_duration_seconds",
    Stability::Stable,
    "Seconds in one admission plugin, by step (admit or validate) and whether it rejected the request.",
    ["name", "operation", "rejected", "type"],
    &DURATIONS,
);
static STEPS: Histograms<3> = Histograms::with_buckets(
    "apiserver_admission_step_admission_duration_seconds",
    Stability::Stable,
    "Seconds in one step of admission (admit or validate) with all its plugins.",
    ["operation", "rejected", "type"],
    &DURATIONS,
);
static EVALUATIONS: Counters<7> = Counters::new(
    "pod_security_evaluations_total",
    Stability::Alpha,
    "Pods and controllers of pods held against a Pod Security level; those that are exempt are left out.",
    [
        "decision",
        "mode",
        "policy_level",
        "policy_version",
        "request_operation",
        "resource",
        "subresource",
    ],
);

pub(super) static ALL: &[&dyn Collect] = &[&PLUGINS, &STEPS, &EVALUATIONS];

/// Half of admission.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Admit,
    Validate,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Admit => "admit",
            Step::Validate => "validate",
        }
    }

    /// The step has ended. `refused`: it let the request go no further.
    pub fn done(self, operation: Operation, refused: bool, since: Instant) {
        let labels = [name(operation), text(refused), self.name()];
        STEPS.with(labels).observe(seconds(since.elapsed()));
    }
}

/// How long a plugin takes. Many look at every write, so their series are kept.
pub struct Plugin {
    name: &'static str,
    /// By step, operation and whether the request was refused.
    took: [[[OnceLock<Arc<Histogram>>; 2]; 4]; 2],
}

impl Plugin {
    pub fn new(name: &'static str) -> Self {
        Plugin {
            name,
            took: Default::default(),
        }
    }

    /// The plugin has ended its part of the step.
    pub fn done(&self, step: Step, operation: Operation, refused: bool, since: Instant) {
        let kept = &self.took[step as usize][operation as usize][usize::from(refused)];
        let labels = [self.name, name(operation), text(refused), step.name()];
        let took = kept.get_or_init(|| PLUGINS.with(labels));
        took.observe(seconds(since.elapsed()));
    }
}

fn seconds(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64()
}

fn text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// A pod, or what makes pods, was held against a standard.
pub struct Evaluation<'a> {
    /// `enforce`, `audit` or `warn`.
    pub mode: &'static str,
    pub level: &'static str,
    /// `latest` or for example `v1.30`.
    pub version: &'a str,
    pub operation: Operation,
    /// Of a pod; otherwise of a controller of pods.
    pub pod: bool,
    pub subresource: &'a str,
    pub violated: bool,
}

impl Evaluation<'_> {
    pub fn count(&self) {
        let operation = match self.operation {
            Operation::Update => "update",
            _ => "create",
        };
        let series = EVALUATIONS.with([
            if self.violated { "deny" } else { "allow" },
            self.mode,
            self.level,
            self.version,
            operation,
            if self.pod { "pod" } else { "controller" },
            self.subresource,
        ]);
        series.inc();
    }
}
