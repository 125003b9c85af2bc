//! What is compared with an amount: averages over pods, and figures of other things.

use super::*;

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
