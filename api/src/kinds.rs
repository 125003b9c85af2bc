//! The table of kinds: everything that the API serves is a line here.

use std::sync::{Arc, LazyLock};

use k8s_openapi::{Resource, api::core::v1};

use crate::strategy::{Behaviour, Builtin, Strategy};

/// A verb that discovery lists for a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

/// One resource that the API serves, in one version.
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// For example `Pod`.
    pub kind: String,
    /// The plural that URLs name, for example `pods`.
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<Verb>,
    pub strategy: Arc<dyn Strategy>,
}

impl Kind {
    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// Every built-in kind.
pub fn builtin() -> &'static [Arc<Kind>] {
    static TABLE: LazyLock<Vec<Arc<Kind>>> =
        LazyLock::new(|| vec![namespaced::<v1::ConfigMap>("configmap", &["cm"])]);
    &TABLE
}

fn namespaced<T: Behaviour>(singular: &str, short_names: &[&str]) -> Arc<Kind> {
    Arc::new(Kind {
        group: T::GROUP.to_owned(),
        version: T::VERSION.to_owned(),
        kind: T::KIND.to_owned(),
        resource: <T as Resource>::URL_PATH_SEGMENT.to_owned(),
        singular: singular.to_owned(),
        short_names: short_names.iter().map(|&name| name.to_owned()).collect(),
        categories: Vec::new(),
        namespaced: true,
        verbs: vec![
            Verb::Create,
            Verb::Delete,
            Verb::DeleteCollection,
            Verb::Get,
            Verb::List,
            Verb::Patch,
            Verb::Update,
            Verb::Watch,
        ],
        strategy: Arc::new(Builtin::<T>::default()),
    })
}

impl Behaviour for v1::ConfigMap {}
