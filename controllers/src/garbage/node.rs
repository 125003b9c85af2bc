//! The objects of the graph: what identifies them and the little that is kept of each.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::uid::Uid;

/// The `apiVersion` and `kind` of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub api_version: String,
    pub kind: String,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub kind: Arc<Kind>,
    /// Empty for objects of the cluster.
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Uid,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[{}/{}, namespace: {}, name: {}, uid: {}]",
            self.kind.api_version, self.kind.kind, self.namespace, self.name, self.uid
        )
    }
}

impl Identity {
    pub fn order(&self) -> [&str; 4] {
        [
            &self.kind.kind,
            &self.kind.api_version,
            &self.namespace,
            &self.name,
        ]
    }
}

/// An owner as its dependent names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub kind: Arc<Kind>,
    pub name: Box<str>,
    pub uid: Uid,
    /// `blockOwnerDeletion`
    pub blocks: bool,
}

impl Owner {
    /// Whether it means the object of its uid that is called so.
    pub fn is(&self, kind: &Arc<Kind>, name: &str) -> bool {
        *self.name == *name && self.kind == *kind
    }

    /// The owner as an object of that namespace.
    pub fn identity(&self, namespace: &str) -> Identity {
        Identity {
            kind: self.kind.clone(),
            namespace: namespace.into(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}

/// What is kept of an object. There is one for every object of the cluster: few bytes matter.
#[derive(Debug)]
pub(super) struct Node {
    pub kind: Arc<Kind>,
    /// `namespace/name`
    path: Box<str>,
    /// Most objects have none.
    pub ties: Option<Box<Ties>>,
    /// Known only from a dependent's reference.
    pub is_virtual: bool,
    pub deleted: bool,
    /// It goes once its dependents have gone.
    pub deleting_dependents: bool,
    /// Its dependents are to be set free, as it was last seen.
    pub orphaning: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ties {
    pub owners: Box<[Owner]>,
    pub dependents: BTreeSet<Uid>,
}

impl Node {
    pub fn new(identity: &Identity, is_virtual: bool) -> Self {
        Node {
            kind: identity.kind.clone(),
            path: path(identity),
            ties: None,
            is_virtual,
            deleted: false,
            deleting_dependents: false,
            orphaning: false,
        }
    }

    /// It turns out to be this one.
    pub fn rename(&mut self, identity: &Identity) {
        self.kind = identity.kind.clone();
        self.path = path(identity);
    }

    pub fn identity(&self, uid: &Uid) -> Identity {
        let (namespace, name) = self.namespace_and_name();
        Identity {
            kind: self.kind.clone(),
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.clone(),
        }
    }

    pub fn is_at(&self, identity: &Identity) -> bool {
        self.kind == identity.kind
            && self.namespace_and_name() == (&*identity.namespace, &*identity.name)
    }

    pub fn namespace_and_name(&self) -> (&str, &str) {
        self.path.split_once('/').unwrap_or(("", &self.path))
    }

    pub fn namespace(&self) -> &str {
        self.namespace_and_name().0
    }

    pub fn owners(&self) -> &[Owner] {
        self.ties.as_deref().map_or(&[], |ties| &ties.owners)
    }

    pub fn dependents(&self) -> impl Iterator<Item = &Uid> {
        self.ties.iter().flat_map(|ties| &ties.dependents)
    }

    pub fn set_owners(&mut self, owners: &[Owner]) {
        if !owners.is_empty() || self.ties.is_some() {
            self.ties.get_or_insert_default().owners = owners.into();
            self.untie();
        }
    }

    pub fn add_dependent(&mut self, uid: Uid) {
        self.ties.get_or_insert_default().dependents.insert(uid);
    }

    pub fn remove_dependent(&mut self, uid: &Uid) {
        if let Some(ties) = &mut self.ties {
            ties.dependents.remove(uid);
            self.untie();
        }
    }

    fn untie(&mut self) {
        self.ties = self
            .ties
            .take()
            .filter(|ties| !ties.owners.is_empty() || !ties.dependents.is_empty());
    }
}

fn path(identity: &Identity) -> Box<str> {
    format!("{}/{}", identity.namespace, identity.name).into()
}
