//! How far wishes are followed, case by case as upstream documents them in
//! `pkg/controller/podautoscaler/horizontal_test.go`.

use serde_json::{Value, json};

use super::*;

const WINDOW: Duration = Duration::from_secs(300);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("a time")
}

fn sizes(current: i32, desired: i32) -> Sizes {
    Sizes {
        current,
        desired,
        min: 1,
        max: 100,
    }
}

fn behavior(value: Value) -> HorizontalPodAutoscalerBehavior {
    serde_json::from_value(value).expect("a behavior")
}

#[test]
fn sizes_double_at_most_and_stay_within_their_bounds() {
    let of = |current, desired, max| {
        let sizes = Sizes {
            max,
            ..sizes(current, desired)
        };
        let outcome = History::default().normalize(None, WINDOW, sizes, at(0));
        (outcome.replicas, outcome.limited, outcome.limit.0)
    };
    assert_eq!(of(3, 5, 100), (5, false, "DesiredWithinRange"));
    assert_eq!(of(3, 50, 100), (6, true, "ScaleUpLimit"));
    assert_eq!(of(1, 50, 100), (4, true, "ScaleUpLimit"));
    assert_eq!(of(3, 50, 5), (5, true, "TooManyReplicas"));
    assert_eq!(of(3, 0, 5), (1, true, "TooFewReplicas"));
}

#[test]
fn a_higher_recommendation_holds_for_five_minutes() {
    let mut history = History::default();
    history.start(8, at(0));
    let first = history.normalize(None, WINDOW, sizes(8, 3), at(10));
    assert_eq!((first.replicas, first.able.0), (8, "ScaleDownStabilized"));
    let second = history.normalize(None, WINDOW, sizes(8, 5), at(200));
    assert_eq!(second.replicas, 8);
    let later = history.normalize(None, WINDOW, sizes(8, 3), at(301));
    assert_eq!(later.replicas, 5);
    let last = history.normalize(None, WINDOW, sizes(5, 3), at(501));
    assert_eq!((last.replicas, last.able.0), (3, "ReadyForNewScale"));
}

#[test]
fn rules_limit_the_change_in_a_period() {
    let rules = behavior(json!({
        "scaleUp": { "stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            { "type": "Pods", "value": 4, "periodSeconds": 60 },
            { "type": "Percent", "value": 50, "periodSeconds": 60 }] },
        "scaleDown": { "stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
            { "type": "Pods", "value": 4, "periodSeconds": 60 },
            { "type": "Percent", "value": 10, "periodSeconds": 60 }] },
    }));
    let mut history = History::default();
    let up = history.normalize(Some(&rules), WINDOW, sizes(11, 50), at(0));
    assert_eq!((up.replicas, up.limit.0), (17, "ScaleUpLimit"));
    history.scaled(Some(&rules), 11, 17, at(0));
    // Nothing more in this minute.
    let more = history.normalize(Some(&rules), WINDOW, sizes(17, 50), at(30));
    assert_eq!(more.replicas, 17);
    let next = history.normalize(Some(&rules), WINDOW, sizes(17, 50), at(61));
    assert_eq!(next.replicas, 26);
    let down = History::default().normalize(Some(&rules), WINDOW, sizes(30, 1), at(0));
    assert_eq!((down.replicas, down.limit.0), (27, "ScaleDownLimit"));
}

#[test]
fn windows_hold_in_both_directions_and_rules_can_forbid() {
    let rules = behavior(json!({
        "scaleUp": { "stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [
            { "type": "Percent", "value": 900, "periodSeconds": 15 }] },
        "scaleDown": { "stabilizationWindowSeconds": 0, "selectPolicy": "Disabled" },
    }));
    let mut history = History::default();
    history.start(2, at(0));
    let up = history.normalize(Some(&rules), WINDOW, sizes(2, 5), at(10));
    assert_eq!((up.replicas, up.able.0), (2, "ScaleUpStabilized"));
    let up = history.normalize(Some(&rules), WINDOW, sizes(2, 6), at(65));
    assert_eq!(up.replicas, 5);
    let down = History::default().normalize(Some(&rules), WINDOW, sizes(5, 1), at(0));
    assert_eq!((down.replicas, down.limited), (5, true));
}

/// Rules of one direction as upstream's cases write them: pods, percent and the window; a period
/// of nothing is no policy.
fn rules(pods: (i32, i32), percent: (i32, i32), select: &str) -> Value {
    let policy = |type_: &str, (value, period): (i32, i32)| {
        (period > 0).then(|| json!({ "type": type_, "value": value, "periodSeconds": period }))
    };
    let policies: Vec<Value> = [policy("Pods", pods), policy("Percent", percent)]
        .into_iter()
        .flatten()
        .collect();
    json!({ "stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": policies })
}

/// Changes spread evenly over the last two minutes.
fn spread(changes: &[i32]) -> Vec<Event> {
    let count = i64::try_from(changes.len()).expect("few");
    let segment = 120 / count.max(1);
    let events = changes.iter().zip(0..).map(|(replicas, index)| Event {
        replicas: *replicas,
        at: at(-(120 - segment * (index + 1) + segment / 2)),
    });
    events.collect()
}

/// Upstream's defaults: up, four pods or doubling in 15 seconds; down, everything.
fn default_up() -> Value {
    rules((4, 15), (100, 15), "Max")
}

fn default_down() -> Value {
    rules((0, 0), (100, 15), "Max")
}

#[test]
fn rules_limit_changes_case_by_case() {
    struct Row<'a> {
        up: Value,
        down: Value,
        added: &'a [i32],
        removed: &'a [i32],
        min: i32,
        max: i32,
        /// From what to what it is wished, and to what it is let.
        sizes: [i32; 3],
        reason: &'a str,
    }
    let none = (0, 0);
    let row = |sizes, reason| Row {
        up: default_up(),
        down: default_down(),
        added: &[],
        removed: &[],
        min: 1,
        max: 1000,
        sizes,
        reason,
    };
    let up = |pods, percent, sizes, reason| Row {
        up: rules(pods, percent, "Max"),
        ..row(sizes, reason)
    };
    let down = |pods, percent, sizes, reason| Row {
        down: rules(pods, percent, "Max"),
        ..row(sizes, reason)
    };
    let least = |pods, percent| rules(pods, percent, "Min");
    let (within, few, many) = ("DesiredWithinRange", "TooFewReplicas", "TooManyReplicas");
    let (fast, slow) = ("ScaleUpLimit", "ScaleDownLimit");
    let rows = [
        Row {
            min: 3,
            max: 8,
            ..row([5, 7, 7], within)
        },
        Row {
            min: 2,
            max: 8,
            ..row([3, 1, 2], few)
        },
        Row {
            min: 0,
            max: 10,
            ..row([1, 0, 0], within)
        },
        Row {
            max: 10,
            ..row([20, 1000, 10], many)
        },
        Row {
            min: 100,
            max: 150,
            ..row([100, 1000, 150], many)
        },
        Row {
            max: 2000,
            ..up(none, (1, 60), [3, 1000, 4], fast)
        },
        Row {
            min: 3,
            max: 2000,
            ..down((20, 60), none, [1000, 3, 980], slow)
        },
        row([10, 50, 20], fast),
        up((100, 60), (100, 60), [10, 500, 110], fast),
        up((2, 60), (100, 60), [10, 500, 20], fast),
        up((100, 60), none, [10, 50, 50], within),
        up((30, 60), none, [10, 50, 40], fast),
        up(none, (200, 60), [10, 50, 30], fast),
        down((20, 60), (1, 60), [100, 2, 80], slow),
        down((2, 60), (1, 60), [100, 2, 98], slow),
        down((100, 60), none, [10, 0, 1], few),
        Row {
            min: 5,
            ..down(none, (100, 60), [10, 2, 5], few)
        },
        down((5, 60), none, [10, 2, 5], slow),
        down(none, (50, 60), [10, 5, 5], within),
        // What has changed in the period counts.
        Row {
            added: &[1, 5, 9],
            max: 200,
            ..up((300, 60), none, [100, 500, 200], many)
        },
        Row {
            added: &[1, 5, 9],
            max: 200,
            ..up(none, (10_000, 60), [100, 500, 200], many)
        },
        Row {
            added: &[1, 5, 9],
            ..up((5, 120), none, [100, 500, 100], fast)
        },
        Row {
            added: &[1, 5, 9],
            ..up((150, 120), none, [100, 500, 235], fast)
        },
        Row {
            added: &[1, 5, 9],
            ..up(none, (200, 120), [100, 500, 255], fast)
        },
        Row {
            added: &[4],
            removed: &[2],
            ..up(none, (300, 300), [6, 24, 16], fast)
        },
        Row {
            removed: &[1, 5, 9],
            ..row([10, 5, 5], within)
        },
        Row {
            removed: &[1, 5, 9],
            ..down((115, 120), none, [100, 0, 1], few)
        },
        Row {
            removed: &[1, 5, 9],
            min: 5,
            ..down((130, 120), none, [100, 0, 5], few)
        },
        Row {
            removed: &[1, 5, 9],
            min: 5,
            ..down(none, (100, 120), [100, 2, 5], few)
        },
        Row {
            removed: &[1, 5, 9],
            ..down((5, 120), none, [100, 2, 100], slow)
        },
        Row {
            removed: &[2, 4, 6],
            ..down(none, (50, 120), [100, 0, 56], slow)
        },
        Row {
            added: &[2],
            removed: &[4],
            ..down(none, (50, 180), [10, 1, 6], slow)
        },
        Row {
            removed: &[10, 10, 10],
            ..down(none, (10, 120), [100, 0, 100], slow)
        },
        Row {
            removed: &[10, 10, 10],
            ..down(none, (1000, 120), [100, 5, 5], within)
        },
        // Older changes count for longer periods only.
        Row {
            added: &[8, 12, 9, 11],
            ..up((1000, 60), none, [100, 200, 200], within)
        },
        Row {
            removed: &[8, 12, 9, 11],
            ..down((1000, 30), (100, 60), [100, 5, 5], within)
        },
        // The least change of several, and none at all.
        Row {
            up: least((2, 60), (50, 60)),
            ..row([1, 9, 2], fast)
        },
        Row {
            down: least((2, 60), (50, 60)),
            ..row([5, 1, 3], slow)
        },
        Row {
            up: rules((2, 60), none, "Disabled"),
            ..row([5, 9, 5], fast)
        },
        Row {
            down: rules((2, 60), none, "Disabled"),
            ..row([5, 1, 5], slow)
        },
        // Upstream's arithmetic is not exact: a tenth of ten that are left are none.
        down(none, (90, 60), [10, 0, 1], few),
        Row {
            min: 0,
            ..down(none, (90, 60), [10, 0, 0], within)
        },
    ];
    for row in rows {
        let history = History {
            up: spread(row.added),
            down: spread(row.removed),
            ..History::default()
        };
        let behavior = behavior(json!({ "scaleUp": row.up, "scaleDown": row.down }));
        let [current, desired, expected] = row.sizes;
        let sizes = Sizes {
            current,
            desired,
            min: row.min,
            max: row.max,
        };
        let (replicas, why) = history.limit_by_rules(&behavior, sizes, at(0));
        assert_eq!(
            (replicas, why.0),
            (expected, row.reason),
            "{sizes:?} {behavior:?}"
        );
    }
}

#[test]
fn windows_hold_recommendations_case_by_case() {
    /// Recommendations and how many minutes ago they were made, the windows up and down in
    /// seconds, from what to what it is wished, and to what it is held.
    type Row<'a> = (&'a [(i32, i64)], [i32; 2], [i32; 3]);
    let rows: &[Row<'_>] = &[
        (&[], [0, 0], [100, 5, 5]),
        (&[(4, 2), (5, 1)], [0, 180], [100, 3, 5]),
        (&[(4, 2), (5, 1)], [300, 0], [1, 7, 4]),
        (&[(1, 2), (2, 1)], [300, 0], [100, 3, 3]),
        (&[(4, 2), (5, 1)], [0, 300], [1, 3, 3]),
        (&[(10, 10), (9, 9)], [0, 0], [100, 3, 3]),
        (&[(10, 10), (9, 9)], [0, 0], [1, 100, 100]),
        (&[(10, 10), (4, 1), (5, 2), (9, 9)], [0, 180], [100, 3, 5]),
        (&[(10, 100), (6, 1), (5, 2), (9, 3)], [300, 0], [1, 100, 5]),
        // Neither way against what was recommended lately.
        (&[(2, 100), (3, 3)], [300, 300], [2, 1, 2]),
        (&[(2, 100), (1, 3)], [300, 300], [2, 3, 2]),
    ];
    for (recommendations, [up, down], [current, desired, expected]) in rows {
        let event = |(replicas, minutes): &(i32, i64)| Event {
            replicas: *replicas,
            at: at(-60 * minutes),
        };
        let mut history = History {
            recommendations: recommendations.iter().map(event).collect(),
            ..History::default()
        };
        let behavior = behavior(json!({
            "scaleUp": { "stabilizationWindowSeconds": up },
            "scaleDown": { "stabilizationWindowSeconds": down },
        }));
        let sizes = sizes(*current, *desired);
        let (held, _) = history.stabilize(Some(&behavior), WINDOW, sizes, at(0));
        assert_eq!(held, *expected, "{recommendations:?} {up} {down} {sizes:?}");
    }
}

#[test]
fn without_rules_only_shrinking_is_held_back() {
    for (recommendations, desired, expected) in [
        (&[][..], 5, 5),
        (&[(4, 120), (5, 60)], 3, 5),
        (&[(1, 120), (2, 60)], 3, 3),
        (&[(10, 600), (9, 540)], 3, 3),
        (&[(10, 600), (4, 60), (5, 120), (9, 540)], 3, 5),
    ] {
        let event = |(replicas, seconds): &(i32, i64)| Event {
            replicas: *replicas,
            at: at(-seconds),
        };
        let mut history = History {
            recommendations: recommendations.iter().map(event).collect(),
            ..History::default()
        };
        let (held, _) = history.stabilize(None, WINDOW, sizes(5, desired), at(0));
        assert_eq!(held, expected, "{recommendations:?}");
    }
}
