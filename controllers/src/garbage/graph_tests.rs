//! The graph, event by event.

use super::*;

struct World(Graph);

impl World {
    fn new() -> Self {
        World(Graph::default())
    }

    fn identity(&mut self, kind: &str, namespace: &str, name: &str, uid: &str) -> Identity {
        Identity {
            kind: self.0.kind("v1", kind),
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
        }
    }

    /// An object called as its uid, in namespace `ns`, with owners of kind `Owner` given by uid; a
    /// `!` before one makes it block.
    fn seen(&mut self, uid: &str, owners: &[&str]) -> Seen {
        let owners = owners
            .iter()
            .map(|owner| {
                let uid = owner.trim_start_matches('!');
                Owner {
                    kind: self.0.kind("v1", "Owner"),
                    name: uid.into(),
                    uid: uid.into(),
                    blocks: owner.starts_with('!'),
                }
            })
            .collect();
        Seen {
            identity: self.identity("Owner", "ns", uid, uid),
            owners,
            deleted: false,
            foreground: false,
            orphan: false,
        }
    }

    fn observe(&mut self, uid: &str, owners: &[&str]) -> Vec<String> {
        let seen = self.seen(uid, owners);
        told(&self.0.observe(&seen))
    }

    fn removed(&mut self, uid: &str) -> Vec<String> {
        let identity = self.identity("Owner", "ns", uid, uid);
        told(&self.0.removed(&identity))
    }
}

fn told(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Delete(uid) => format!("delete {uid}"),
            Effect::DeleteLater(uid) => format!("later {uid}"),
            Effect::Orphan(uid) => format!("orphan {uid}"),
            Effect::Invalid { dependent, owner } => {
                format!("invalid {} of {}", owner.name, dependent.name)
            }
        })
        .collect()
}

#[test]
fn dependents_are_looked_at_when_their_owner_goes() {
    let mut world = World::new();
    assert!(world.observe("a", &[]).is_empty());
    assert!(world.observe("b", &["a"]).is_empty());
    assert!(world.observe("c", &["a"]).is_empty());
    assert_eq!(world.removed("a"), ["delete b", "delete c"]);
    let absent = world.identity("Owner", "ns", "a", "a");
    assert!(world.0.is_absent(&absent));
    assert!(world.removed("b").is_empty());
    assert!(world.0.view(&"b".into()).is_none());
}

#[test]
fn an_owner_that_was_not_seen_is_looked_for() {
    let mut world = World::new();
    assert_eq!(world.observe("b", &["a"]), ["delete a"]);
    assert!(
        world
            .0
            .view(&"a".into())
            .expect("a virtual node")
            .is_virtual
    );
    assert!(world.observe("a", &[]).is_empty());
    assert!(!world.0.view(&"a".into()).expect("a node").is_virtual);

    assert_eq!(world.observe("d", &["none"]), ["delete none"]);
    let none = world.identity("Owner", "ns", "none", "none");
    assert_eq!(told(&world.0.absent(&none)), ["delete d"]);
    assert!(world.0.view(&"none".into()).is_none());
}

#[test]
fn references_that_come_and_go_move_the_dependent() {
    let mut world = World::new();
    world.observe("a", &[]);
    world.observe("x", &[]);
    world.observe("b", &["a"]);
    assert!(world.observe("b", &["x"]).is_empty());
    assert!(world.removed("a").is_empty());
    assert_eq!(world.removed("x"), ["delete b"]);
}

#[test]
fn foreground_deletion_starts_with_the_dependents_and_ends_with_the_last_that_blocks() {
    let mut world = World::new();
    world.observe("a", &[]);
    world.observe("b", &["!a"]);
    world.observe("c", &["a"]);
    let mut deleted = world.seen("a", &[]);
    (deleted.deleted, deleted.foreground) = (true, true);
    assert_eq!(
        told(&world.0.observe(&deleted)),
        ["delete b", "delete c", "delete a"]
    );
    assert!(world.0.observe(&deleted).is_empty(), "only once");
    let view = world.0.view(&"a".into()).expect("a node");
    assert!(view.deleting_dependents && view.deleted);
    let blocking: Vec<_> = view
        .dependents
        .iter()
        .filter(|dependent| dependent.blocks)
        .map(|dependent| &*dependent.identity.name)
        .collect();
    assert_eq!(blocking, ["b"]);
    assert_eq!(
        world.observe("b", &["a"]),
        ["delete a"],
        "it blocks no more"
    );
    assert_eq!(world.removed("c"), ["delete a"]);
}

#[test]
fn orphaning_is_asked_for_once() {
    let mut world = World::new();
    world.observe("a", &[]);
    world.observe("b", &["a"]);
    let mut deleted = world.seen("a", &[]);
    (deleted.deleted, deleted.orphan) = (true, true);
    assert_eq!(told(&world.0.observe(&deleted)), ["orphan a"]);
    assert!(world.0.observe(&deleted).is_empty());
}

#[test]
fn an_owner_in_another_namespace_is_none() {
    let mut world = World::new();
    let mut owner = world.seen("a", &[]);
    owner.identity.namespace = "other".into();
    world.0.observe(&owner);
    assert_eq!(world.observe("b", &["a"]), ["invalid a of b", "delete b"]);

    // The same when the dependent comes first.
    let mut world = World::new();
    assert_eq!(world.observe("b", &["a"]), ["delete a"]);
    assert_eq!(
        told(&world.0.observe(&owner)),
        ["invalid a of b", "delete b"]
    );
    assert_eq!(
        world.0.view(&"a".into()).expect("a node").identity,
        owner.identity
    );
}

#[test]
fn an_owner_of_the_cluster_may_own_anything() {
    let mut world = World::new();
    let mut owner = world.seen("a", &[]);
    owner.identity.namespace = "".into();
    world.0.observe(&owner);
    assert!(world.observe("b", &["a"]).is_empty());
    assert_eq!(told(&world.0.removed(&owner.identity)), ["delete b"]);
}

#[test]
fn dependents_that_disagree_about_an_owner_are_judged_one_by_one() {
    let mut world = World::new();
    world.observe("b", &["a"]);
    // Another dependent names the same uid with another name.
    let mut other = world.seen("c", &["a"]);
    other.owners[0].name = "z".into();
    assert_eq!(told(&world.0.observe(&other)), ["delete c"]);
    let absent = world.identity("Owner", "ns", "a", "a");
    assert_eq!(
        told(&world.0.absent(&absent)),
        ["delete b", "later a"],
        "the one that named it so is judged, the other name is tried next"
    );
    let view = world.0.view(&"a".into()).expect("still virtual");
    assert!(view.is_virtual && &*view.identity.name == "z");
    // The object exists under the other name: an absence under the first changes nothing.
    let mut owner = world.seen("a", &[]);
    owner.identity.name = "z".into();
    assert_eq!(told(&world.0.observe(&owner)), ["delete b"; 0]);
    assert_eq!(told(&world.0.absent(&absent)), ["delete b"]);
    assert!(world.0.view(&"a".into()).is_some());
}

#[test]
fn what_is_known_to_be_absent_is_bounded() {
    let mut world = World::new();
    let first = world.identity("Owner", "ns", "0", "0");
    for number in 0..=ABSENT {
        let number = number.to_string();
        let identity = world.identity("Owner", "ns", &number, &number);
        world.0.note_absent(identity);
    }
    assert!(!world.0.is_absent(&first));
    assert_eq!(world.0.absent.len(), ABSENT);
}
