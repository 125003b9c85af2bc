//! All that the kernel is to hold, for all Services, and what has changed since it was last told.
//!
//! A change of one Service costs what that Service has, never what all of them have.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
};

use crate::model::{Desired, Frontend, Group, HealthCheck, Key, List, Value, WithoutLocal};

/// Namespace and name.
pub type ServiceName = (String, String);

/// Stands for a Service among the holders of an element.
type Holder = u32;

#[derive(Default)]
struct Held {
    holder: Holder,
    elements: BTreeMap<Key, Value>,
    groups: BTreeSet<u64>,
    serving: BTreeMap<Frontend, Vec<SocketAddr>>,
    health_check: Option<HealthCheck>,
    without_local: WithoutLocal,
}

/// What all Services together want.
#[derive(Default)]
pub struct World {
    services: HashMap<ServiceName, Held>,
    last_holder: Holder,
    /// An element can be wanted by several Services: the first one's is in force, as when two
    /// claim one external address, and it lasts until the last one is gone.
    elements: HashMap<Key, Vec<(Holder, Value)>>,
    groups: HashMap<u64, Group>,
    /// Elements that changed, with what the kernel holds.
    changed: BTreeMap<Key, Option<Value>>,
    /// Groups that changed, with what the kernel holds.
    changed_groups: BTreeMap<u64, Option<Group>>,
    changed_serving: BTreeSet<ServiceName>,
    without_local: WithoutLocal,
}

/// What to tell the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub removed: Vec<(Key, Value)>,
    pub added: Vec<(Key, Value)>,
    /// Before and after.
    pub groups: Vec<(u64, Option<Group>, Option<Group>)>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.groups.is_empty()
    }
}

impl World {
    /// Puts the Service in place of what it wanted before.
    pub fn set(&mut self, name: &ServiceName, desired: Desired) {
        if !self.services.contains_key(name) {
            if desired == Desired::default() {
                return;
            }
            self.last_holder += 1;
            let held = Held {
                holder: self.last_holder,
                ..Held::default()
            };
            self.services.insert(name.clone(), held);
        }
        let Some(mut held) = self.services.remove(name) else {
            return;
        };
        let mut elements = desired.elements;
        for (list, endpoints) in desired.lists {
            for (slot, endpoint) in (0..).zip(arrange(&previous(&held.elements, list), &endpoints))
            {
                elements.insert(Key::Endpoint(list, slot), Value::Endpoint(endpoint));
            }
        }
        self.swap_elements(held.holder, &held.elements, &elements);
        self.swap_groups(&held.groups, &desired.groups);
        self.without_local.internal += desired.without_local.internal;
        self.without_local.internal -= held.without_local.internal;
        self.without_local.external += desired.without_local.external;
        self.without_local.external -= held.without_local.external;
        if held.serving != desired.serving {
            self.changed_serving.insert(name.clone());
        }
        held.elements = elements;
        held.groups = desired.groups.into_keys().collect();
        held.serving = desired.serving;
        held.health_check = desired.health_check;
        held.without_local = desired.without_local;
        if !held.elements.is_empty() || held.health_check.is_some() {
            self.services.insert(name.clone(), held);
        }
    }

    fn swap_elements(
        &mut self,
        holder: Holder,
        before: &BTreeMap<Key, Value>,
        after: &BTreeMap<Key, Value>,
    ) {
        for (key, value) in before {
            if after.get(key) != Some(value) {
                self.release(holder, key);
            }
        }
        for (key, value) in after {
            if before.get(key) != Some(value) {
                self.note(*key);
                let holders = self.elements.entry(*key).or_default();
                holders.push((holder, *value));
            }
        }
    }

    fn release(&mut self, holder: Holder, key: &Key) {
        self.note(*key);
        if let Some(holders) = self.elements.get_mut(key) {
            holders.retain(|(of, _)| *of != holder);
            if holders.is_empty() {
                self.elements.remove(key);
            }
        }
    }

    /// Remembers what the kernel holds, before the element changes for the first time.
    fn note(&mut self, key: Key) {
        let now = self.value(&key);
        self.changed.entry(key).or_insert(now);
    }

    fn value(&self, key: &Key) -> Option<Value> {
        self.elements.get(key)?.first().map(|(_, value)| *value)
    }

    fn swap_groups(&mut self, before: &BTreeSet<u64>, after: &BTreeMap<u64, Group>) {
        for id in before.iter().filter(|id| !after.contains_key(id)) {
            let known = self.groups.remove(id);
            self.changed_groups.entry(*id).or_insert(known);
        }
        for (id, group) in after {
            if self.groups.get(id) != Some(group) {
                let known = self.groups.insert(*id, group.clone());
                self.changed_groups.entry(*id).or_insert(known);
            }
        }
    }

    /// What has changed since [`World::told`].
    pub fn changes(&self) -> Changes {
        let mut changes = Changes::default();
        for (key, before) in &self.changed {
            let after = self.value(key);
            if after == *before {
                continue;
            }
            changes.removed.extend(before.map(|value| (*key, value)));
            changes.added.extend(after.map(|value| (*key, value)));
        }
        for (id, before) in &self.changed_groups {
            let after = self.groups.get(id).cloned();
            if after != *before {
                changes.groups.push((*id, before.clone(), after));
            }
        }
        changes
    }

    /// Everything, as if the kernel held nothing.
    pub fn everything(&self) -> Changes {
        let mut added: Vec<(Key, Value)> = self
            .elements
            .iter()
            .filter_map(|(key, holders)| Some((*key, holders.first()?.1)))
            .collect();
        added.sort_unstable();
        let mut groups: Vec<_> = self
            .groups
            .iter()
            .map(|(id, group)| (*id, None, Some(group.clone())))
            .collect();
        groups.sort_unstable_by_key(|(id, _, _)| *id);
        Changes {
            removed: Vec::new(),
            added,
            groups,
        }
    }

    /// The kernel holds everything now.
    pub fn told(&mut self) {
        self.changed.clear();
        self.changed_groups.clear();
    }

    /// Every Service that something is held for.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// The UDP frontends of which this has changed since the last call, with the endpoints that
    /// flows may go on to.
    pub fn take_serving(&mut self) -> HashMap<Frontend, Vec<SocketAddr>> {
        std::mem::take(&mut self.changed_serving)
            .iter()
            .filter_map(|name| self.services.get(name))
            .flat_map(|held| held.serving.clone())
            .collect()
    }

    pub fn health_check(&self, name: &ServiceName) -> Option<HealthCheck> {
        self.services.get(name)?.health_check
    }

    pub fn without_local(&self) -> WithoutLocal {
        self.without_local
    }
}

/// The list as it stands, by slot.
fn previous(elements: &BTreeMap<Key, Value>, list: List) -> Vec<SocketAddr> {
    elements
        .range(Key::Endpoint(list, 0)..=Key::Endpoint(list, u32::MAX))
        .filter_map(|(_, value)| match value {
            Value::Endpoint(endpoint) => Some(*endpoint),
            _ => None,
        })
        .collect()
}

/// Numbers the endpoints so that as few as can be change their number: those that stay keep
/// theirs if it still exists, the others fill what is free.
fn arrange(before: &[SocketAddr], wanted: &[SocketAddr]) -> Vec<SocketAddr> {
    let wanted_set: BTreeSet<&SocketAddr> = wanted.iter().collect();
    let mut slots: Vec<Option<SocketAddr>> = vec![None; wanted.len()];
    let mut placed = BTreeSet::new();
    for (slot, endpoint) in before.iter().enumerate().take(wanted.len()) {
        if wanted_set.contains(endpoint) {
            slots[slot] = Some(*endpoint);
            placed.insert(endpoint);
        }
    }
    let mut rest = wanted.iter().filter(|endpoint| !placed.contains(endpoint));
    slots
        .into_iter()
        .filter_map(|slot| slot.or_else(|| rest.next().copied()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, Protocol};

    fn endpoint(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 80).into()
    }

    fn name(name: &str) -> ServiceName {
        ("ns".to_owned(), name.to_owned())
    }

    fn list() -> List {
        List {
            frontend: Frontend {
                family: Family::V4,
                address: None,
                protocol: Protocol::Tcp,
                port: 80,
            },
            local: false,
        }
    }

    #[test]
    fn endpoints_keep_their_slots() {
        let all: Vec<SocketAddr> = (0..6).map(endpoint).collect();
        let arranged = |before: &[usize], wanted: &[usize]| {
            let pick = |of: &[usize]| of.iter().map(|at| all[*at]).collect::<Vec<_>>();
            let arranged = arrange(&pick(before), &pick(wanted));
            let number = |of: &SocketAddr| all.iter().position(|at| at == of);
            arranged.iter().filter_map(number).collect::<Vec<_>>()
        };
        assert_eq!(arranged(&[], &[2, 1]), [2, 1]);
        assert_eq!(arranged(&[3, 1, 2], &[1, 2, 3, 4]), [3, 1, 2, 4]);
        assert_eq!(arranged(&[0, 1, 2, 3], &[0, 2, 3]), [0, 3, 2]);
        assert_eq!(arranged(&[0, 1, 2], &[0, 4, 2]), [0, 4, 2]);
        assert_eq!(arranged(&[0, 1], &[]), [0; 0]);
    }

    #[test]
    fn an_element_lasts_until_its_last_holder_is_gone() {
        let mut world = World::default();
        let key = Key::Hairpin([10, 0, 0, 1].into());
        let desired = Desired {
            elements: [(key, Value::None)].into(),
            ..Desired::default()
        };
        world.set(&name("a"), desired.clone());
        world.set(&name("b"), desired);
        assert_eq!(world.changes().added, [(key, Value::None)]);
        world.told();
        world.set(&name("a"), Desired::default());
        assert!(world.changes().is_empty());
        world.set(&name("b"), Desired::default());
        assert_eq!(world.changes().removed, [(key, Value::None)]);
        assert_eq!(world.names().count(), 0);
    }

    #[test]
    fn the_first_claim_of_an_address_holds_and_the_next_takes_over() {
        let mut world = World::default();
        let key = Key::Endpoint(list(), 0);
        let claim = |number| Desired {
            lists: [(list(), vec![endpoint(number)])].into(),
            ..Desired::default()
        };
        world.set(&name("a"), claim(1));
        world.set(&name("b"), claim(2));
        let [first, second] = [1, 2].map(|number| Value::Endpoint(endpoint(number)));
        assert_eq!(world.changes().added, [(key, first)]);
        world.told();
        world.set(&name("a"), Desired::default());
        let changes = world.changes();
        assert_eq!(
            (changes.removed, changes.added),
            (vec![(key, first)], vec![(key, second)])
        );
    }

    #[test]
    fn changes_that_cancel_each_other_are_none() {
        let mut world = World::default();
        let desired = |numbers: &[u8]| Desired {
            lists: [(list(), numbers.iter().copied().map(endpoint).collect())].into(),
            ..Desired::default()
        };
        world.set(&name("a"), desired(&[1, 2]));
        world.told();
        world.set(&name("a"), desired(&[1]));
        world.set(&name("a"), desired(&[1, 2]));
        assert!(world.changes().is_empty());
        world.set(&name("a"), desired(&[2]));
        let changes = world.changes();
        assert_eq!(changes.removed.len(), 2);
        assert_eq!(
            changes.added,
            [(Key::Endpoint(list(), 0), Value::Endpoint(endpoint(2)))]
        );
        assert_eq!(world.everything().added.len(), 1);
    }
}
