//! What metrics ask for, case by case as upstream documents them in
//! `pkg/controller/podautoscaler/replica_calculator_test.go`.

mod amounts;
mod utilization;

use serde_json::json;

use super::*;

const TEN_PERCENT: Tolerance = Tolerance { down: 0.1, up: 0.1 };
/// Its start is over.
const COOL: &str = "2026-01-01T00:00:00Z";
/// It may still be busy starting.
const HOT: &str = "2026-01-01T00:58:00Z";

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("a time")
}

/// What a pod is like besides its request.
#[derive(Clone, Copy, Debug)]
struct Like {
    phase: &'static str,
    ready: bool,
    started: &'static str,
    deleted: bool,
}

const RUNNING: Like = Like {
    phase: "Running",
    ready: true,
    started: COOL,
    deleted: false,
};
const UNREADY: Like = Like {
    ready: false,
    ..RUNNING
};
const STARTING: Like = Like {
    started: HOT,
    ..RUNNING
};
const PENDING: Like = Like {
    phase: "Pending",
    ..UNREADY
};
const FAILED: Like = Like {
    phase: "Failed",
    ..UNREADY
};
const DELETED: Like = Like {
    deleted: true,
    ..UNREADY
};

/// A pod of two containers that request the same of CPU.
fn pod(number: usize, like: Like, milli: i64) -> Arc<Pod> {
    let container = |name: &str| json!({ "name": name, "resources": { "requests": { "cpu": format!("{milli}m") } } });
    // A pod that has started lately has become ready just now.
    let since = if like.started == HOT {
        "2026-01-01T00:59:59Z"
    } else {
        like.started
    };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": format!("p{number}"),
                "deletionTimestamp": like.deleted.then_some(COOL) },
            "spec": { "containers": [container("c1"), container("c2")] },
            "status": { "phase": like.phase, "startTime": like.started, "conditions": [{
                "type": "Ready", "status": if like.ready { "True" } else { "False" },
                "lastTransitionTime": since }] },
        }))
        .expect("a pod"),
    )
}

fn running(count: usize) -> Vec<Arc<Pod>> {
    (0..count)
        .map(|number| pod(number, RUNNING, 1000))
        .collect()
}

/// The first pods' samples.
fn samples(values: &[i64]) -> Samples {
    let sample = |value| Sample {
        value,
        at: now(),
        window: Duration::from_secs(60),
    };
    let named = values.iter().enumerate();
    named
        .map(|(number, value)| (format!("p{number}"), sample(*value)))
        .collect()
}
