//! How a group's table describes a kind: a constructor for the scope, then what is particular.

use std::sync::Arc;

use k8s_openapi::Resource;

use super::{Conversion, Kind, Storage, SubresourceKind, Verb, join_group_version};
use crate::{
    names::NameRule,
    strategy::{Behaviour, Builtin},
};

const ALL_VERBS: [Verb; 8] = [
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// Verbs of a subresource that is a part of the object.
pub const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// Verbs of a subresource that opens a stream.
pub const STREAM: &[Verb] = &[Verb::Create, Verb::Get];

/// Verbs of a subresource that passes any HTTP request on.
pub const PROXY: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::Get,
    Verb::Patch,
    Verb::Update,
];

impl Kind {
    fn new<T: Behaviour>(singular: &str, namespaced: bool) -> Self {
        let resource = <T as Resource>::URL_PATH_SEGMENT.to_owned();
        Kind {
            group: T::GROUP.to_owned(),
            version: T::VERSION.to_owned(),
            kind: T::KIND.to_owned(),
            storage: Storage::Own {
                prefix: resource.clone(),
            },
            resource,
            singular: singular.to_owned(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced,
            verbs: ALL_VERBS.to_vec(),
            subresources: Vec::new(),
            name_rule: NameRule::Subdomain,
            create_on_update: false,
            unconditional_update: true,
            strategy: Arc::new(Builtin::<T>::default()),
        }
    }

    /// A kind whose objects live in namespaces.
    pub(crate) fn namespaced<T: Behaviour>(singular: &str) -> Self {
        Kind::new::<T>(singular, true)
    }

    /// A kind whose objects belong to the whole cluster.
    pub(crate) fn cluster<T: Behaviour>(singular: &str) -> Self {
        Kind::new::<T>(singular, false)
    }

    /// A kind of which nothing is stored and that is only created, within a namespace.
    pub(crate) fn virtual_namespaced<T: Behaviour>(singular: &str) -> Self {
        Kind::new::<T>(singular, true).not_stored()
    }

    /// A kind of which nothing is stored and that is only created.
    pub(crate) fn virtual_cluster<T: Behaviour>(singular: &str) -> Self {
        Kind::new::<T>(singular, false).not_stored()
    }

    fn not_stored(mut self) -> Self {
        self.storage = Storage::Virtual;
        self.verbs(&[Verb::Create])
    }

    pub(crate) fn short_names(mut self, names: &[&str]) -> Self {
        self.short_names = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub(crate) fn categories(mut self, categories: &[&str]) -> Self {
        self.categories = categories.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub(crate) fn verbs(mut self, verbs: &[Verb]) -> Self {
        self.verbs = verbs.to_vec();
        self
    }

    pub(crate) fn without_verb(mut self, verb: Verb) -> Self {
        self.verbs.retain(|&other| other != verb);
        self
    }

    pub(crate) fn name(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    pub(crate) fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    pub(crate) fn no_unconditional_update(mut self) -> Self {
        self.unconditional_update = false;
        self
    }

    /// Kept under `/registry/{prefix}/` instead of under the plural.
    pub(crate) fn key_prefix(mut self, prefix: &str) -> Self {
        self.storage = Storage::Own {
            prefix: prefix.to_owned(),
        };
        self
    }

    /// Another view of the objects of `T`.
    pub(crate) fn converted_to<T: Resource>(mut self, conversion: &'static dyn Conversion) -> Self {
        self.storage = Storage::Converted {
            group: T::GROUP.to_owned(),
            version: T::VERSION.to_owned(),
            kind: T::KIND.to_owned(),
            conversion,
        };
        self
    }

    fn with(mut self, subresource: SubresourceKind) -> Self {
        self.subresources.push(subresource);
        self.subresources
            .sort_by(|left, right| left.name.cmp(&right.name));
        self
    }

    pub(crate) fn status(self) -> Self {
        self.part("status", READ_WRITE)
    }

    /// `scale`, with the body that all scalable kinds share.
    pub(crate) fn scale(self) -> Self {
        self.other_subresource("scale", "autoscaling/v1", "Scale", READ_WRITE)
    }

    /// A subresource whose body is the kind itself.
    pub(crate) fn part(self, name: &str, verbs: &[Verb]) -> Self {
        let (api_version, kind) = (self.api_version(), self.kind.clone());
        self.other_subresource(name, &api_version, &kind, verbs)
    }

    /// A subresource that takes a kind of the same group and version.
    pub(crate) fn connect(self, name: &str, kind: &str, verbs: &[Verb]) -> Self {
        let api_version = join_group_version(&self.group, &self.version);
        self.other_subresource(name, &api_version, kind, verbs)
    }

    /// A subresource that takes a kind of any group.
    pub(crate) fn other_subresource(
        self,
        name: &str,
        api_version: &str,
        kind: &str,
        verbs: &[Verb],
    ) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.with(SubresourceKind {
            name: name.to_owned(),
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            verbs: verbs.to_vec(),
        })
    }
}
