//! What is used per second, out of two readings of counters that only grow.

use std::collections::BTreeMap;

use coracle_api::metrics::{Interval, Usage};
use jiff::SignedDuration;

use super::page::{Page, Point};

/// A container that runs for less has no rate yet, in seconds.
const SHORTEST: f64 = 1.0;

/// The answers until the kubelets are asked again.
#[derive(Debug, Default)]
pub struct Figures {
    pub nodes: BTreeMap<String, (Interval, Usage)>,
    /// By namespace and name.
    pub pods: BTreeMap<(String, String), PodFigure>,
}

#[derive(Debug, PartialEq)]
pub struct PodFigure {
    pub interval: Interval,
    pub containers: BTreeMap<String, Usage>,
}

impl Figures {
    /// Adds what a node told `before`, if that is known, and tells now.
    pub fn add(&mut self, node: &str, before: Option<&Page>, now: &Page) {
        if let Some(figure) = rate(before.map(|page| &page.node), &now.node) {
            self.nodes.insert(node.to_owned(), figure);
        }
        for (name, containers) in &now.pods {
            let before = before.and_then(|page| page.pods.get(name));
            if let Some(pod) = pod(before, containers) {
                self.pods.insert(name.clone(), pod);
            }
        }
    }
}

/// `None` unless there is a figure for each container: half a pod would mislead.
fn pod(
    before: Option<&BTreeMap<String, Point>>,
    now: &BTreeMap<String, Point>,
) -> Option<PodFigure> {
    let mut earliest: Option<Interval> = None;
    let mut containers = BTreeMap::new();
    for (name, point) in now {
        let before = before.and_then(|points| points.get(name));
        let (interval, usage) = rate(before, point)?;
        containers.insert(name.clone(), usage);
        if earliest.is_none_or(|earliest| interval.timestamp < earliest.timestamp) {
            earliest = Some(interval);
        }
    }
    Some(PodFigure {
        interval: earliest?,
        containers,
    })
}

fn rate(before: Option<&Point>, now: &Point) -> Option<(Interval, Usage)> {
    let (cpu, memory) = (now.cpu_seconds?, now.memory?);
    let at = seconds(now);
    // What was started since has used all that it ever used.
    let restarted = |before: &&Point| {
        now.started.is_some_and(|started| started > seconds(before))
            || before.cpu_seconds.is_none_or(|before| before > cpu)
    };
    let (used, window) = match before.filter(|before| !restarted(before)) {
        Some(before) => (
            cpu - before.cpu_seconds.unwrap_or(0.0),
            at - seconds(before),
        ),
        None => (cpu, at - now.started?),
    };
    if window < SHORTEST {
        return None;
    }
    let interval = Interval {
        timestamp: now.at,
        window: SignedDuration::from_millis((window * 1e3).round() as i64),
    };
    let usage = Usage {
        cpu_nanos: (used / window * 1e9).round() as u64,
        memory: memory as u64,
    };
    Some((interval, usage))
}

fn seconds(point: &Point) -> f64 {
    point.at.as_millisecond() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn point(at: i64, cpu_seconds: f64, started: Option<f64>) -> Point {
        Point {
            at: Timestamp::from_second(at).unwrap(),
            cpu_seconds: Some(cpu_seconds),
            memory: Some(4096.0),
            started,
        }
    }

    fn cpu(before: Option<Point>, now: Point) -> Option<(u64, i64)> {
        let (interval, usage) = rate(before.as_ref(), &now)?;
        Some((usage.cpu_nanos, interval.window.as_secs()))
    }

    #[test]
    fn rates_are_of_the_time_between_or_since_the_start() {
        let half = Some((500_000_000, 10));
        assert_eq!(
            cpu(Some(point(100, 5.0, None)), point(110, 10.0, None)),
            half
        );
        // Fresh: since it was started.
        assert_eq!(cpu(None, point(110, 5.0, Some(100.0))), half);
        // Restarted between the two, seen by its start or by its counter.
        let before = Some(point(90, 1.0, Some(10.0)));
        assert_eq!(cpu(before, point(110, 5.0, Some(100.0))), half);
        let before = Some(point(99, 50.0, None));
        assert_eq!(cpu(before, point(110, 5.0, Some(100.0))), half);
        // Too little time, or nothing to compare with.
        assert_eq!(cpu(None, point(100, 5.0, Some(99.5))), None);
        assert_eq!(cpu(None, point(100, 5.0, None)), None);
    }

    #[test]
    fn a_pod_is_told_of_as_a_whole() {
        let known = point(110, 5.0, Some(100.0));
        let fresh = point(110, 5.0, Some(109.9));
        let of = |points: &[(&str, Point)]| {
            let points = points
                .iter()
                .map(|(name, point)| ((*name).to_owned(), *point));
            pod(None, &points.collect())
        };
        assert_eq!(of(&[("a", known), ("b", fresh)]), None);
        let found = of(&[("a", known), ("b", known)]).unwrap();
        assert_eq!(found.containers.len(), 2);
        assert_eq!(of(&[]), None);
    }
}
