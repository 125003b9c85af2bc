//! What a request takes in its path and its query.

use std::{collections::HashMap, sync::Arc};

const PRETTY: &str = "If 'true', then the output is pretty printed. Defaults to 'false' unless \
                      the user-agent indicates a browser or command-line HTTP tool (curl and wget).";
const NAMESPACE: &str = "object name and auth scope, such as for teams and projects";

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Path,
    Query,
}

impl Place {
    pub fn name(self) -> &'static str {
        match self {
            Place::Path => "path",
            Place::Query => "query",
        }
    }
}

/// A parameter; those of a path are required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: Arc<str>,
    pub place: Place,
    /// `string`, `integer` or `boolean`.
    pub of: Arc<str>,
    pub description: Arc<str>,
}

impl Parameter {
    pub fn query(
        name: impl Into<Arc<str>>,
        of: impl Into<Arc<str>>,
        description: impl Into<Arc<str>>,
    ) -> Self {
        Parameter {
            name: name.into(),
            place: Place::Query,
            of: of.into(),
            description: description.into(),
        }
    }

    fn path(name: &str, description: impl Into<Arc<str>>) -> Self {
        Parameter {
            place: Place::Path,
            ..Parameter::query(name, "string", description)
        }
    }

    pub fn pretty() -> Self {
        Parameter::query("pretty", "string", PRETTY)
    }

    pub fn namespace() -> Self {
        Parameter::path("namespace", NAMESPACE)
    }

    /// The name of an object.
    pub fn name_of(kind: &str) -> Self {
        Parameter::path("name", format!("name of the {kind}"))
    }

    /// The rest of a path that is passed on.
    pub fn rest() -> Self {
        Parameter::path("path", "path to the resource")
    }
}

/// Takes those out of the lists that stand in every one of them, and sorts all by name.
pub fn take_common(lists: &mut [&mut Vec<Parameter>]) -> Vec<Parameter> {
    let mut counts: HashMap<(Arc<str>, Place), usize> = HashMap::new();
    for parameter in lists.iter().flat_map(|list| list.iter()) {
        let key = (parameter.name.clone(), parameter.place);
        *counts.entry(key).or_default() += 1;
    }
    let number = lists.len();
    let is_common =
        |parameter: &Parameter| counts[&(parameter.name.clone(), parameter.place)] == number;
    let mut common = Vec::new();
    for list in lists {
        list.sort_by(|left, right| (&left.name, left.place).cmp(&(&right.name, right.place)));
        // The last of those that have the same name describes them all, as upstream.
        common = list.iter().filter(|p| is_common(p)).cloned().collect();
        list.retain(|parameter| !is_common(parameter));
    }
    common
}
