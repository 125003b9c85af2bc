//! What is compared with what pods request.

use serde_json::Value;

use super::*;

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
