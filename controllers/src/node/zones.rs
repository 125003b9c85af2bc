//! How fast nodes that have failed lose their pods: slower when many of a zone fail together, and
//! not at all when every node does, because then it is rather us who are cut off.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::Ready;

/// Nodes a second that are tainted in a zone.
const NORMAL_RATE: f64 = 0.1;
/// The same, in a large zone of which most nodes have failed.
const REDUCED_RATE: f64 = 0.01;
/// A zone is large with more nodes than this.
const LARGE: usize = 50;
/// The share of failed nodes from which a zone counts as disrupted.
const UNHEALTHY: f64 = 0.55;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Initial,
    Normal,
    /// Most nodes have failed.
    Partial,
    /// All have.
    Full,
}

impl State {
    fn of(nodes: &[Option<Ready>]) -> Self {
        let ready = nodes
            .iter()
            .filter(|node| **node == Some(Ready::True))
            .count();
        let failed = nodes.len() - ready;
        let share = failed as f64 / nodes.len().max(1) as f64;
        if ready == 0 && failed > 0 {
            State::Full
        } else if failed > 2 && share >= UNHEALTHY {
            State::Partial
        } else {
            State::Normal
        }
    }

    fn rate(self, size: usize) -> f64 {
        match self {
            State::Partial if size > LARGE => REDUCED_RATE,
            State::Partial => 0.0,
            State::Initial | State::Normal | State::Full => NORMAL_RATE,
        }
    }
}

#[derive(Debug)]
struct Zone {
    state: State,
    rate: f64,
    /// At most one.
    tokens: f64,
    filled: Instant,
    /// Nodes to taint, in the order in which they failed.
    waiting: VecDeque<String>,
}

impl Zone {
    fn new(now: Instant) -> Self {
        Zone {
            state: State::Initial,
            rate: NORMAL_RATE,
            tokens: 1.0,
            filled: now,
            waiting: VecDeque::new(),
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(1.0);
        self.filled = now;
    }
}

/// What a change of the zones' states asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disruption {
    None,
    /// Every node has failed: take the taints back.
    Entered,
    /// Some node is back: the others get a full grace period again.
    Left,
}

/// All zones, by key.
#[derive(Debug, Default)]
pub(super) struct Zones(BTreeMap<String, Zone>);

impl Zones {
    /// Puts the node among those to taint.
    pub fn wait(&mut self, zone: &str, node: &str, now: Instant) {
        let zone = self
            .0
            .entry(zone.to_owned())
            .or_insert_with(|| Zone::new(now));
        if !zone.waiting.iter().any(|waiting| waiting == node) {
            zone.waiting.push_back(node.to_owned());
        }
    }

    /// The node need not be tainted any more.
    pub fn release(&mut self, node: &str) {
        for zone in self.0.values_mut() {
            zone.waiting.retain(|waiting| waiting != node);
        }
    }

    /// The nodes to taint now.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        for zone in self.0.values_mut() {
            zone.refill(now);
            while zone.rate > 0.0 && zone.tokens >= 1.0 {
                let Some(node) = zone.waiting.pop_front() else {
                    break;
                };
                zone.tokens -= 1.0;
                due.push(node);
            }
        }
        due
    }

    /// Takes in how the nodes of each zone are.
    pub fn update(
        &mut self,
        nodes: &BTreeMap<String, Vec<Option<Ready>>>,
        now: Instant,
    ) -> Disruption {
        let all_were_full = !self.0.is_empty()
            && nodes.keys().all(|key| {
                let zone = self.0.get(key);
                zone.is_some_and(|zone| zone.state == State::Full)
            });
        let next: BTreeMap<&String, State> = nodes
            .iter()
            .map(|(key, nodes)| (key, State::of(nodes)))
            .collect();
        let all_are_full = next.values().all(|state| *state == State::Full);
        self.0
            .retain(|key, zone| nodes.contains_key(key) || !zone.waiting.is_empty());
        for key in nodes.keys() {
            self.0
                .entry(key.clone())
                .or_insert_with(|| Zone::new(now))
                .refill(now);
        }
        if all_are_full && all_were_full {
            return Disruption::None;
        }
        for (key, zone) in &mut self.0 {
            let Some(state) = next.get(key) else {
                continue;
            };
            let size = nodes.get(key).map_or(0, Vec::len);
            zone.rate = if all_are_full { 0.0 } else { state.rate(size) };
            zone.state = *state;
        }
        match (all_are_full, all_were_full) {
            (true, false) if !nodes.is_empty() => Disruption::Entered,
            (false, true) => Disruption::Left,
            _ => Disruption::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const UP: Option<Ready> = Some(Ready::True);
    const DOWN: Option<Ready> = Some(Ready::Unknown);

    fn nodes(zones: &[(&str, Vec<Option<Ready>>)]) -> BTreeMap<String, Vec<Option<Ready>>> {
        let zones = zones.iter();
        zones
            .map(|(key, nodes)| ((*key).to_owned(), nodes.clone()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_are_tainted_one_in_ten_seconds() {
        let start = Instant::now();
        let mut zones = Zones::default();
        zones.update(&nodes(&[("a", vec![UP, UP, DOWN, DOWN])]), start);
        zones.wait("a", "x", start);
        zones.wait("a", "y", start);
        zones.wait("a", "y", start);
        assert_eq!(zones.due(start), ["x"]);
        assert!(zones.due(start + Duration::from_secs(9)).is_empty());
        assert_eq!(zones.due(start + Duration::from_secs(10)), ["y"]);
        zones.wait("a", "z", start);
        zones.release("z");
        assert!(zones.due(start + Duration::from_secs(60)).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_tainted_when_every_node_fails() {
        let start = Instant::now();
        let mut zones = Zones::default();
        assert_eq!(
            zones.update(&nodes(&[("a", vec![UP]), ("b", vec![DOWN])]), start),
            Disruption::None
        );
        let all = nodes(&[("a", vec![DOWN]), ("b", vec![DOWN])]);
        assert_eq!(zones.update(&all, start), Disruption::Entered);
        zones.wait("a", "x", start);
        assert!(zones.due(start + Duration::from_secs(100)).is_empty());
        assert_eq!(zones.update(&all, start), Disruption::None);
        let some = nodes(&[("a", vec![DOWN]), ("b", vec![UP])]);
        assert_eq!(zones.update(&some, start), Disruption::Left);
        assert_eq!(zones.due(start + Duration::from_secs(200)), ["x"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_zone_of_which_most_nodes_fail_is_left_alone_or_slowed_down() {
        let start = Instant::now();
        for (size, rate) in [(10, 0.0), (60, REDUCED_RATE)] {
            let mut zones = Zones::default();
            let mut zone = vec![DOWN; size - 1];
            zone.push(UP);
            zones.update(&nodes(&[("a", zone)]), start);
            assert!((zones.0["a"].rate - rate).abs() < f64::EPSILON);
        }
        // Two failed nodes are no disruption, whatever their share.
        assert_eq!(State::of(&[DOWN, DOWN, UP]), State::Normal);
    }
}
