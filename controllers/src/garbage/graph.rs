//! Who owns whom: a graph of uids, with no more of each object than it takes to collect garbage.
//!
//! Enter at [`Graph::observe`], [`Graph::removed`] and [`Graph::absent`]: each takes one event in
//! and returns what is to be looked at because of it. Owners that nobody has seen yet stand in the
//! graph as virtual nodes until they are seen, or found not to exist.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use super::{
    node::{Identity, Kind, Node, Owner, Ties},
    uid::Uid,
};

/// Identities known not to exist that are remembered.
const ABSENT: usize = 500;

/// An object as a watch shows it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub identity: Identity,
    pub owners: Box<[Owner]>,
    /// It has a deletion timestamp.
    pub deleted: bool,
    /// It has the finalizer `foregroundDeletion`.
    pub foreground: bool,
    /// It has the finalizer `orphan`.
    pub orphan: bool,
}

/// What has to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Whether this object should go.
    Delete(Uid),
    /// The same, but not at once: it was looked at just now.
    DeleteLater(Uid),
    /// Its dependents are to be set free.
    Orphan(Uid),
    /// The dependent names an owner that cannot be in its namespace.
    Invalid {
        dependent: Identity,
        owner: Identity,
    },
}

/// A node as a worker sees it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub identity: Identity,
    pub owners: Box<[Owner]>,
    pub is_virtual: bool,
    pub deleted: bool,
    pub deleting_dependents: bool,
    pub dependents: Vec<Dependent>,
}

#[derive(Clone, Debug)]
pub(super) struct Dependent {
    pub identity: Identity,
    pub deleting_dependents: bool,
    /// It blocks the owner's deletion.
    pub blocks: bool,
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<Uid, Node>,
    kinds: HashSet<Arc<Kind>>,
    absent: HashSet<Identity>,
    absent_order: VecDeque<Identity>,
}

impl Graph {
    /// The one shared copy of a kind.
    pub fn kind(&mut self, api_version: &str, kind: &str) -> Arc<Kind> {
        let wanted = Arc::new(Kind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        });
        if let Some(known) = self.kinds.get(&wanted) {
            return known.clone();
        }
        self.kinds.insert(wanted.clone());
        wanted
    }

    /// The uids of the observed objects of a kind.
    pub fn observed(&self, kind: &Arc<Kind>) -> Vec<Uid> {
        self.nodes
            .iter()
            .filter(|(_, node)| !node.is_virtual && node.kind == *kind)
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    pub fn view(&self, uid: &Uid) -> Option<View> {
        let node = self.nodes.get(uid)?;
        let dependents = self.dependents(node).map(|(name, dependent)| Dependent {
            identity: dependent.identity(name),
            deleting_dependents: dependent.deleting_dependents,
            blocks: dependent
                .owners()
                .iter()
                .any(|owner| owner.uid == *uid && owner.blocks),
        });
        Some(View {
            identity: node.identity(uid),
            owners: node.owners().into(),
            is_virtual: node.is_virtual,
            deleted: node.deleted,
            deleting_dependents: node.deleting_dependents,
            dependents: dependents.collect(),
        })
    }

    fn dependents<'g>(&'g self, node: &'g Node) -> impl Iterator<Item = (&'g Uid, &'g Node)> {
        node.dependents()
            .filter_map(|uid| Some((uid, self.nodes.get(uid)?)))
    }

    /// Whether the object is known not to exist.
    pub fn is_absent(&self, identity: &Identity) -> bool {
        self.absent.contains(identity)
    }

    /// Remembers that the object does not exist. A uid is never used again.
    pub fn note_absent(&mut self, identity: Identity) {
        if self.absent.insert(identity.clone()) {
            self.absent_order.push_back(identity);
        }
        if self.absent_order.len() > ABSENT
            && let Some(oldest) = self.absent_order.pop_front()
        {
            self.absent.remove(&oldest);
        }
    }

    /// An object was added or modified.
    pub fn observe(&mut self, seen: &Seen) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.confirm(&seen.identity, &mut effects);
        let uid = seen.identity.uid.clone();
        let known = self.nodes.get(&uid);
        let waited = known.is_some_and(|node| node.deleting_dependents);
        let orphaned = known.is_some_and(|node| node.orphaning);
        if known.is_some() {
            self.update_owners(&uid, &seen.owners, &mut effects);
        } else {
            let mut node = Node::new(&seen.identity, false);
            node.set_owners(&seen.owners);
            self.nodes.insert(uid.clone(), node);
            self.attach(&uid, &seen.owners, &mut effects);
        }
        let Some(node) = self.nodes.get_mut(&uid) else {
            return effects;
        };
        node.deleted |= seen.deleted;
        node.orphaning = seen.deleted && seen.orphan;
        if node.orphaning {
            if !orphaned {
                effects.push(Effect::Orphan(uid));
            }
        } else if seen.deleted && seen.foreground {
            node.deleting_dependents = true;
            if !waited {
                effects.extend(node.dependents().cloned().map(Effect::Delete));
                effects.push(Effect::Delete(uid));
            }
        }
        effects
    }

    /// A virtual node turns out to be this object. Dependents that meant another one are looked at.
    fn confirm(&mut self, identity: &Identity, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(&identity.uid) else {
            return;
        };
        if !node.is_virtual {
            return;
        }
        node.is_virtual = false;
        if node.is_at(identity) {
            return;
        }
        node.rename(identity);
        let (_, others) = self.partition(identity);
        for uid in others {
            let Some(dependent) = self.nodes.get(&uid) else {
                continue;
            };
            if !identity.namespace.is_empty() && dependent.namespace() != &*identity.namespace {
                effects.extend(invalid(&uid, dependent, &identity.uid));
            }
            effects.push(Effect::Delete(uid));
        }
    }

    fn update_owners(&mut self, uid: &Uid, owners: &[Owner], effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        if node.owners() == owners {
            return;
        }
        let former: Box<[Owner]> = node.owners().into();
        node.set_owners(owners);
        let find = |list: &[Owner], uid: &Uid| list.iter().find(|one| one.uid == *uid).cloned();
        for old in &former {
            let new = find(owners, &old.uid);
            // An owner that waits for its dependents need not wait for this one any more.
            let unblocked = old.blocks && new.as_ref().is_none_or(|new| !new.blocks);
            if unblocked && self.nodes.contains_key(&old.uid) {
                effects.push(Effect::Delete(old.uid.clone()));
            }
            if new.is_none()
                && let Some(owner) = self.nodes.get_mut(&old.uid)
            {
                owner.remove_dependent(uid);
            }
        }
        let added: Vec<Owner> = owners
            .iter()
            .filter(|new| find(&former, &new.uid).is_none())
            .cloned()
            .collect();
        self.attach(uid, &added, effects);
    }

    /// Enters the object as a dependent of its owners; makes virtual nodes for those not seen yet.
    fn attach(&mut self, uid: &Uid, owners: &[Owner], effects: &mut Vec<Effect>) {
        let Some(dependent) = self.nodes.get(uid) else {
            return;
        };
        let identity = dependent.identity(uid);
        let mut suspicious = false;
        for owner in owners {
            let Some(node) = self.nodes.get_mut(&owner.uid) else {
                let mut node = Node::new(&owner.identity(&identity.namespace), true);
                node.add_dependent(uid.clone());
                self.nodes.insert(owner.uid.clone(), node);
                effects.push(Effect::Delete(owner.uid.clone()));
                continue;
            };
            node.add_dependent(uid.clone());
            if suspicious {
                continue;
            }
            let namespaced = !node.namespace().is_empty();
            let elsewhere = node.namespace() != &*identity.namespace;
            if namespaced && elsewhere {
                suspicious = true;
                if !node.is_virtual {
                    effects.push(Effect::Invalid {
                        owner: owner.identity(&identity.namespace),
                        dependent: identity.clone(),
                    });
                }
            } else {
                suspicious = !owner.is(&node.kind, node.namespace_and_name().1)
                    || elsewhere && node.is_virtual;
            }
        }
        if suspicious {
            effects.push(Effect::Delete(uid.clone()));
        }
    }

    /// A watch says that the object has gone.
    pub fn removed(&mut self, identity: &Identity) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.confirm(identity, &mut effects);
        self.remove(identity, &mut effects);
        effects
    }

    /// The object was looked for where the identity says, and is not there.
    pub fn absent(&mut self, identity: &Identity) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(node) = self.nodes.get(&identity.uid) else {
            return effects;
        };
        let (is_virtual, known) = (node.is_virtual, node.is_at(identity));
        let (matching, others) = self.partition(identity);
        let keep = if is_virtual {
            !others.is_empty()
        } else {
            !known
        };
        if !keep {
            self.remove(identity, &mut effects);
            return effects;
        }
        // The object may exist under the other coordinates by which its dependents know it.
        if !matching.is_empty() {
            self.note_absent(identity.clone());
            effects.extend(matching.into_iter().map(Effect::Delete));
        }
        if is_virtual
            && known
            && let Some(other) = self.alternate(&others, identity)
            && let Some(node) = self.nodes.get_mut(&identity.uid)
        {
            node.rename(&other);
            effects.push(Effect::DeleteLater(identity.uid.clone()));
        }
        effects
    }

    fn remove(&mut self, identity: &Identity, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.remove(&identity.uid) else {
            return;
        };
        let Some(Ties { owners, dependents }) = node.ties.map(|ties| *ties) else {
            return;
        };
        for owner in &owners {
            if let Some(owner) = self.nodes.get_mut(&owner.uid) {
                owner.remove_dependent(&identity.uid);
            }
        }
        if !dependents.is_empty() {
            self.note_absent(identity.clone());
        }
        effects.extend(dependents.into_iter().map(Effect::Delete));
        for owner in &owners {
            let waits = self.nodes.get(&owner.uid);
            if waits.is_some_and(|owner| owner.deleting_dependents) {
                effects.push(Effect::Delete(owner.uid.clone()));
            }
        }
    }

    /// The dependents of this uid: those that mean this object, and those that mean another one.
    fn partition(&self, owner: &Identity) -> (Vec<Uid>, Vec<Uid>) {
        let (mut matching, mut others) = (Vec::new(), Vec::new());
        let Some(node) = self.nodes.get(&owner.uid) else {
            return (matching, others);
        };
        for (uid, dependent) in self.dependents(node) {
            let elsewhere =
                !owner.namespace.is_empty() && dependent.namespace() != &*owner.namespace;
            let named = dependent.owners().iter();
            let mut named = named.filter(|one| one.uid == owner.uid);
            if elsewhere || named.clone().any(|one| !one.is(&owner.kind, &owner.name)) {
                others.push(uid.clone());
            }
            if !elsewhere && named.any(|one| one.is(&owner.kind, &owner.name)) {
                matching.push(uid.clone());
            }
        }
        (matching, others)
    }

    /// The next identity, in a fixed order, by which these dependents know an owner that is not
    /// where the last one said.
    fn alternate(&self, dependents: &[Uid], absent: &Identity) -> Option<Identity> {
        let mut found: Vec<Identity> = Vec::new();
        for dependent in dependents.iter().filter_map(|uid| self.nodes.get(uid)) {
            let owners = dependent.owners().iter();
            for owner in owners.filter(|one| one.uid == absent.uid) {
                let mut identity = owner.identity(dependent.namespace());
                if absent.namespace.is_empty() && identity.kind == absent.kind {
                    identity.namespace = Box::default();
                }
                if identity != *absent {
                    found.push(identity);
                }
            }
        }
        found.sort_by(|left, right| left.order().cmp(&right.order()));
        let following = found.iter().find(|one| one.order() > absent.order());
        following.or(found.first()).cloned()
    }
}

fn invalid(uid: &Uid, dependent: &Node, owner: &Uid) -> Option<Effect> {
    let reference = dependent.owners().iter().find(|one| one.uid == *owner)?;
    Some(Effect::Invalid {
        dependent: dependent.identity(uid),
        owner: reference.identity(dependent.namespace()),
    })
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
