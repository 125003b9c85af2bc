//! What metrics ask for, case by case as upstream documents them in
//! `pkg/controller/podautoscaler/replica_calculator_test.go`.

use serde_json::{Value, json};

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

/// A case for CPU: `levels` is what each container of the first pods uses, in thousandths.
#[derive(Debug)]
struct Case<'a> {
    name: &'a str,
    current: i32,
    pods: &'a [Like],
    requests: &'a [i64],
    levels: &'a [i64],
    target: i32,
    tolerance: Tolerance,
    /// Replicas, utilization and the average usage of a container.
    expected: (i32, i32, i64),
}

const CASE: Case<'_> = Case {
    name: "",
    current: 3,
    pods: &[RUNNING; 3],
    requests: &[1000; 10],
    levels: &[],
    target: 50,
    tolerance: TEN_PERCENT,
    expected: (0, 0, 0),
};

impl Case<'_> {
    /// By all containers, which use the same, or by one of them.
    fn proposal(&self, container: Option<&str>) -> Result<Proposal, String> {
        let pods = self.pods.iter().zip(self.requests).enumerate();
        let pods: Vec<_> = pods
            .map(|(number, (like, request))| pod(number, *like, *request))
            .collect();
        let containers = if container.is_some() { 1 } else { 2 };
        let levels: Vec<_> = self.levels.iter().map(|level| level * containers).collect();
        let goal = Goal::Utilization {
            percent: self.target,
            resource: "cpu",
            container,
        };
        by_pods(
            self.current,
            &pods,
            &samples(&levels),
            Some(Starting::new(&Autoscaling::default())),
            &goal,
            self.tolerance,
            now(),
        )
    }

    fn check(&self) {
        for (container, containers) in [(None, 2), (Some("c2"), 1)] {
            let found = self.proposal(container).expect(self.name);
            let utilization = found.utilization.expect("a utilization");
            let (replicas, percent, usage) = self.expected;
            assert_eq!(
                (found.replicas, utilization, found.usage / containers),
                (replicas, percent, usage),
                "{} by {container:?}",
                self.name
            );
        }
    }
}

#[test]
fn replicas_follow_the_ratio_within_the_tolerance() {
    const UNEVEN: &[i64] = &[900, 1000, 1100];
    let percent = |down: i32, up: i32| Tolerance {
        down: f64::from(down) / 100.0,
        up: f64::from(up) / 100.0,
    };
    for case in [
        Case {
            name: "up",
            levels: &[300, 500, 700],
            target: 30,
            expected: (5, 50, 500),
            ..CASE
        },
        Case {
            name: "down",
            current: 5,
            pods: &[RUNNING; 5],
            levels: &[100, 300, 500, 250, 250],
            expected: (3, 28, 280),
            ..CASE
        },
        Case {
            name: "near enough",
            requests: UNEVEN,
            levels: &[1010, 1030, 1020],
            target: 100,
            expected: (3, 102, 1020),
            ..CASE
        },
        Case {
            name: "at the edge",
            levels: &[1100; 3],
            target: 100,
            expected: (3, 110, 1100),
            ..CASE
        },
        Case {
            name: "outside of none",
            requests: UNEVEN,
            levels: &[909, 1010, 1111],
            target: 100,
            tolerance: percent(0, 0),
            expected: (4, 101, 1010),
            ..CASE
        },
        Case {
            name: "within 200 percent up",
            requests: UNEVEN,
            levels: &[1890, 1910, 1900],
            target: 100,
            tolerance: percent(10, 200),
            expected: (3, 190, 1900),
            ..CASE
        },
        Case {
            name: "outside of 8 percent up",
            requests: UNEVEN,
            levels: &[1100, 1080, 1090],
            target: 100,
            tolerance: percent(200, 8),
            expected: (4, 109, 1090),
            ..CASE
        },
        Case {
            name: "within 36 percent down",
            requests: UNEVEN,
            levels: &[660, 640, 650],
            target: 100,
            tolerance: percent(36, 10),
            expected: (3, 65, 650),
            ..CASE
        },
        Case {
            name: "outside of 34 percent down",
            requests: UNEVEN,
            levels: &[660, 640, 650],
            target: 100,
            tolerance: percent(34, 10),
            expected: (2, 65, 650),
            ..CASE
        },
        Case {
            name: "metrics of pods that are not there",
            current: 4,
            pods: &[RUNNING; 4],
            levels: &[4000, 9500, 3000, 7000, 3200, 2000],
            target: 100,
            expected: (24, 587, 5875),
            ..CASE
        },
    ] {
        case.check();
    }
}

#[test]
fn pods_that_are_not_ready_count_for_nothing_upwards_and_not_at_all_downwards() {
    for case in [
        Case {
            name: "less up, unready",
            pods: &[UNREADY, RUNNING, RUNNING],
            levels: &[300, 500, 700],
            target: 30,
            expected: (4, 60, 600),
            ..CASE
        },
        Case {
            name: "less up, starting",
            pods: &[STARTING, RUNNING, RUNNING],
            levels: &[300, 500, 700],
            target: 30,
            expected: (4, 60, 600),
            ..CASE
        },
        Case {
            name: "not up, unready",
            pods: &[RUNNING, UNREADY, UNREADY],
            levels: &[400, 500, 700],
            target: 30,
            expected: (3, 40, 400),
            ..CASE
        },
        Case {
            name: "not up, starting",
            pods: &[RUNNING, STARTING, STARTING],
            levels: &[400, 500, 700],
            target: 30,
            expected: (3, 40, 400),
            ..CASE
        },
        Case {
            name: "down, unready",
            current: 5,
            pods: &[RUNNING, RUNNING, RUNNING, UNREADY, UNREADY],
            levels: &[100, 300, 500, 250, 250],
            expected: (2, 30, 300),
            ..CASE
        },
        Case {
            name: "down, starting",
            current: 5,
            pods: &[RUNNING, RUNNING, RUNNING, STARTING, STARTING],
            levels: &[100, 300, 500, 1000, 1000],
            expected: (2, 30, 300),
            ..CASE
        },
        Case {
            name: "down, unscheduled",
            current: 5,
            pods: &[RUNNING, PENDING, PENDING, PENDING, PENDING],
            levels: &[100],
            expected: (1, 10, 100),
            ..CASE
        },
        Case {
            name: "up, failed",
            current: 2,
            pods: &[RUNNING, RUNNING, FAILED, FAILED],
            levels: &[500, 700],
            target: 30,
            expected: (4, 60, 600),
            ..CASE
        },
        Case {
            name: "up, deleted",
            current: 2,
            pods: &[RUNNING, RUNNING, DELETED, DELETED],
            levels: &[500, 700],
            target: 30,
            expected: (4, 60, 600),
            ..CASE
        },
        Case {
            name: "down, failed",
            current: 5,
            pods: &[RUNNING, RUNNING, RUNNING, RUNNING, RUNNING, FAILED, FAILED],
            levels: &[100, 300, 500, 250, 250],
            expected: (3, 28, 280),
            ..CASE
        },
        Case {
            name: "down, deleted and still telling",
            current: 5,
            pods: &[
                RUNNING, RUNNING, RUNNING, RUNNING, RUNNING, DELETED, DELETED,
            ],
            levels: &[100, 300, 500, 250, 250, 900, 900],
            expected: (3, 28, 280),
            ..CASE
        },
    ] {
        case.check();
    }
}

#[test]
fn pods_that_tell_nothing_speak_against_a_change() {
    for case in [
        Case {
            name: "less down",
            current: 4,
            pods: &[RUNNING; 4],
            levels: &[400, 95],
            target: 100,
            expected: (3, 24, 247),
            ..CASE
        },
        Case {
            name: "exactly right",
            current: 2,
            pods: &[RUNNING; 2],
            levels: &[1000],
            target: 100,
            expected: (2, 100, 1000),
            ..CASE
        },
        Case {
            name: "not up",
            current: 2,
            pods: &[RUNNING; 2],
            levels: &[1900],
            target: 100,
            expected: (2, 190, 1900),
            ..CASE
        },
        Case {
            name: "not down",
            current: 2,
            pods: &[RUNNING; 2],
            levels: &[600],
            target: 100,
            expected: (2, 60, 600),
            ..CASE
        },
        Case {
            name: "unready and missing, no change",
            pods: &[UNREADY, RUNNING, RUNNING],
            levels: &[100, 450],
            expected: (3, 45, 450),
            ..CASE
        },
        Case {
            name: "starting and missing, no change",
            pods: &[STARTING, RUNNING, RUNNING],
            levels: &[100, 450],
            expected: (3, 45, 450),
            ..CASE
        },
        Case {
            name: "unready and missing, up",
            pods: &[UNREADY, RUNNING, RUNNING],
            levels: &[100, 2000],
            expected: (4, 200, 2000),
            ..CASE
        },
        Case {
            name: "unready and missing, down",
            current: 4,
            pods: &[UNREADY, RUNNING, RUNNING, RUNNING],
            levels: &[100, 100, 100],
            expected: (3, 10, 100),
            ..CASE
        },
        Case {
            name: "a target above what is requested",
            current: 4,
            pods: &[UNREADY, RUNNING, RUNNING, RUNNING],
            requests: &[1000, 1000, 2000, 2000],
            levels: &[200, 100, 100],
            target: 300,
            expected: (2, 6, 100),
            ..CASE
        },
        Case {
            name: "a rollout with a pod more than wanted",
            current: 2,
            levels: &[100, 100],
            expected: (2, 10, 100),
            ..CASE
        },
    ] {
        case.check();
    }
}

#[test]
fn without_pods_metrics_or_requests_there_is_no_proposal() {
    let goal = Goal::Average(1);
    let ask = |pods: &[Arc<Pod>], samples: &Samples| {
        by_pods(1, pods, samples, None, &goal, TEN_PERCENT, now()).expect_err("none")
    };
    assert_eq!(
        ask(&[], &Samples::new()),
        "no pods returned by selector while calculating replica count"
    );
    let silent = "did not receive metrics for targeted pods (pods might be unready)";
    assert_eq!(ask(&running(1), &Samples::new()), silent);
    let stranger = Case { pods: &[], ..CASE };
    assert_eq!(
        stranger.proposal(None).expect_err("none"),
        "no pods returned by selector while calculating replica count"
    );
    // Which pods are silent is found before what they request.
    let memory = |samples: &Samples, container| {
        let goal = Goal::Utilization {
            percent: 50,
            resource: "memory",
            container,
        };
        by_pods(1, &running(1), samples, None, &goal, TEN_PERCENT, now()).expect_err("none")
    };
    assert_eq!(memory(&Samples::new(), None), silent);
    assert_eq!(
        memory(&samples(&[1]), None),
        "missing request for memory in container c1 of Pod p0"
    );
    assert_eq!(
        memory(&samples(&[1]), Some("x")),
        "container x not found in Pod p0"
    );
    let mut other = samples(&[]);
    other.insert("older".to_owned(), samples(&[100])["p0"]);
    let goal = Goal::Utilization {
        percent: 100,
        resource: "cpu",
        container: None,
    };
    assert_eq!(
        by_pods(1, &running(1), &other, None, &goal, TEN_PERCENT, now()),
        Err("no metrics returned matched known pods".to_owned())
    );
}

#[test]
fn requests_are_those_of_the_pod_or_the_sum_of_its_containers() {
    let request_of = |spec: Value, container| {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec }))
            .expect("a pod");
        request(&pod, container, "cpu")
    };
    let one = |name: &str, cpu: &str| {
        json!({ "name": name,
        "resources": { "requests": { "cpu": cpu } } })
    };
    let sidecar = json!({ "name": "s", "restartPolicy": "Always",
        "resources": { "requests": { "cpu": "50m" } } });
    let whole = json!({ "requests": { "cpu": "2" } });
    let containers = json!([one("a", "100m"), one("b", "200m")]);
    let inits = json!([one("i", "9"), sidecar]);
    let plain = json!({ "containers": containers, "initContainers": inits });
    assert_eq!(request_of(plain.clone(), None), Ok(350));
    assert_eq!(request_of(plain.clone(), Some("b")), Ok(200));
    assert_eq!(request_of(plain, Some("s")), Ok(50));
    let with_whole = json!({ "containers": containers, "resources": whole });
    assert_eq!(request_of(with_whole.clone(), None), Ok(2000));
    assert_eq!(request_of(with_whole, Some("a")), Ok(100));
    let other = json!({ "containers": containers, "resources": { "requests": { "memory": "1" } } });
    assert_eq!(
        request_of(other, None),
        Err("missing pod-level request for cpu in Pod p".to_owned())
    );
}

/// Whether a pod's readiness matters is a question for CPU alone.
#[test]
fn averages_of_pods() {
    let of = |current, pods: &[Like], values: &[i64], target, tolerance| {
        let pods = pods.iter().enumerate();
        let pods: Vec<_> = pods.map(|(number, like)| pod(number, *like, 1)).collect();
        let goal = Goal::Average(target);
        let found = by_pods(
            current,
            &pods,
            &samples(values),
            None,
            &goal,
            tolerance,
            now(),
        );
        let found = found.expect("a proposal");
        (found.replicas, found.usage)
    };
    let ten = TEN_PERCENT;
    let three = &[RUNNING; 3];
    let five = &[RUNNING; 5];
    let hot = Like {
        started: HOT,
        ..UNREADY
    };
    let one_up = Tolerance {
        down: 0.1,
        up: 0.01,
    };
    assert_eq!(
        of(3, three, &[20_000, 10_000, 30_000], 15_000, ten),
        (4, 20_000)
    );
    assert_eq!(
        of(
            3,
            &[RUNNING, RUNNING, hot],
            &[50_000, 10_000, 30_000],
            15_000,
            ten
        ),
        (6, 30_000)
    );
    assert_eq!(
        of(
            3,
            &[hot, RUNNING, hot],
            &[50_000, 15_000, 30_000],
            15_000,
            ten
        ),
        (7, 31_666)
    );
    assert_eq!(of(1, &[RUNNING], &[8_600], 4_400, ten), (2, 8_600));
    assert_eq!(of(5, five, &[12_000; 5], 20_000, ten), (3, 12_000));
    let near = &[20_000, 21_000, 21_000];
    assert_eq!(of(3, three, near, 20_000, ten), (3, 20_666));
    assert_eq!(of(3, three, near, 20_000, one_up), (4, 20_666));
    // Two say nothing.
    assert_eq!(
        of(5, five, &[20_000, 19_000, 21_000], 20_000, ten),
        (5, 20_000)
    );
    assert_eq!(of(2, three, &[10_000, 10_000], 17_000, ten), (2, 10_000));
}

#[test]
fn values_of_other_things() {
    let by = |current, pods: &[Like], usage, target, tolerance| {
        let pods = pods.iter().enumerate();
        let pods: Vec<_> = pods.map(|(number, like)| pod(number, *like, 1)).collect();
        let found = by_value(current, &pods, usage, target, tolerance);
        found.expect("a proposal").replicas
    };
    let ten = TEN_PERCENT;
    let one_up = Tolerance {
        down: 0.1,
        up: 0.01,
    };
    let one_of_three = &[UNREADY, RUNNING, UNREADY];
    assert_eq!(by(3, &[RUNNING; 3], 20_000, 15_000, ten), 4);
    assert_eq!(by(3, &[RUNNING; 3], 5_000, 15_000, ten), 1);
    assert_eq!(by(5, &[RUNNING; 5], 12_000, 20_000, ten), 3);
    assert_eq!(by(3, &[RUNNING; 3], 20_666, 20_000, ten), 3);
    assert_eq!(by(3, &[RUNNING; 3], 20_666, 20_000, one_up), 4);
    assert_eq!(by(3, &[RUNNING; 3], 8_600, 8_888, ten), 3);
    // Only the ready ones are what the ratio is of.
    assert_eq!(by(3, one_of_three, 50_000, 10_000, ten), 5);
    assert_eq!(by(3, one_of_three, 8_600, 4_400, ten), 2);
    assert_eq!(by(3, &[RUNNING; 3], i64::MAX, 1, ten), i32::MAX);
    // From nothing, neither pods nor the tolerance count.
    assert_eq!(by(0, &[], 1_050, 1_000, ten), 2);
    assert_eq!(
        by_value(3, &[], 5_000, 1_000, ten),
        Err(
            "unable to calculate ready pods: no pods returned by selector while calculating \
             replica count"
                .to_owned()
        )
    );
}

#[test]
fn shares_of_other_things() {
    let by = |current, usage, target, tolerance| {
        let found = by_average(current, usage, target, tolerance);
        (found.replicas, found.usage)
    };
    let ten = TEN_PERCENT;
    let one_up = Tolerance {
        down: 0.1,
        up: 0.01,
    };
    assert_eq!(by(3, 20_000, 5_000, ten), (4, 6_667));
    assert_eq!(by(3, 8_600, 2_150, ten), (4, 2_867));
    assert_eq!(by(5, 6_000, 2_000, ten), (3, 1_200));
    assert_eq!(by(4, 20_166, 5_000, ten), (4, 5_042));
    assert_eq!(by(4, 20_208, 5_000, one_up), (5, 5_052));
    assert_eq!(by(3, 8_600, 2_900, ten), (3, 2_867));
    assert_eq!(by(3, 8_600, 2_800, one_up), (4, 2_867));
    assert_eq!(by(1, i64::MAX, 1, ten), (i32::MAX, i64::MAX));
    assert_eq!(by(1, i64::MAX, i64::MAX, ten), (1, i64::MAX));
    assert_eq!(by(0, 5_000, 1_000, ten), (5, 5_000));
}

/// Ten pods that use half of what they request, at a target that the tolerance just does not
/// reach, and at one that it does.
#[test]
fn a_target_just_outside_of_the_tolerance_scales_down() {
    let requests = &[400, 200, 310, 290, 302, 298, 301, 299, 300, 300];
    let at = |target, expected| {
        Case {
            name: "by a hair",
            current: 10,
            pods: &[RUNNING; 10],
            requests,
            levels: &[150; 10],
            target,
            expected,
            ..CASE
        }
        .check();
    };
    at(56, (9, 50, 150));
    at(55, (10, 50, 150));
}
