//! What clients learn of the API's types and operations: the OpenAPI documents, v3 and v2.
//!
//! Enter at [`documents`], which describes a table of kinds, and at [`write_v3`] and
//! [`write_v2`], which write what it describes. Nothing of a document is kept: the schemas of
//! the built-in types are packed into the program, everything else is read off the kinds, and a
//! writer holds one path or one definition at a time. Custom resources bring their schemas along
//! as [`Schemas`]; all that differs is where the definitions come from.

mod definitions;
mod operations;
mod parameters;
mod paths;
mod protobuf;
mod resources;
#[cfg(test)]
mod tests;
mod v2;
mod v3;
mod write;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use self::write::{Form, write_v2, write_v3};
use crate::kinds::{Kind, join_group_version};

/// Where the definitions of kinds come from that are not built in.
pub trait Schemas: Send + Sync {
    /// Definitions in the form of v3 by their names. A kind's own is named as
    /// [`definition_name`] says. They may refer to each other and to built-in ones as
    /// `#/components/schemas/{name}`.
    fn definitions(&self) -> BTreeMap<String, Value>;

    /// Differs whenever the definitions do.
    fn revision(&self) -> String;
}

/// One of the documents of v3; v2 is all of them in one.
#[derive(Clone)]
pub struct Document {
    /// Where it is found below `/openapi/v3/`: `api/v1`, `apis/apps/v1`, `version`.
    pub path: String,
    content: Content,
}

#[derive(Clone)]
enum Content {
    /// A path that answers a GET with a fixed document.
    Fixed(&'static Fixed),
    /// `/apis/{group}/`
    Group(String),
    /// The resources of a group and version.
    Resources {
        group: String,
        version: String,
        kinds: Vec<Arc<Kind>>,
        schemas: Option<Arc<dyn Schemas>>,
    },
}

/// A path that is neither a resource's nor a group's.
#[derive(Debug)]
struct Fixed {
    path: &'static str,
    operation: &'static str,
    tag: &'static str,
    description: &'static str,
    /// `None`: any text.
    definition: Option<&'static str>,
    consumes: &'static [&'static str],
    produces: &'static [&'static str],
}

impl Document {
    /// What describes the resources of a group and version. Without `schemas` the kinds are
    /// built in.
    pub fn of_resources(
        group: &str,
        version: &str,
        kinds: Vec<Arc<Kind>>,
        schemas: Option<Arc<dyn Schemas>>,
    ) -> Self {
        let root = if group.is_empty() { "api" } else { "apis" };
        Document {
            path: format!("{root}/{}", join_group_version(group, version)),
            content: Content::Resources {
                group: group.to_owned(),
                version: version.to_owned(),
                kinds,
                schemas,
            },
        }
    }

    /// What describes where a group's versions are listed.
    pub fn of_group(group: &str) -> Self {
        Document {
            path: format!("apis/{group}"),
            content: Content::Group(group.to_owned()),
        }
    }

    fn fixed(of: &'static Fixed) -> Self {
        Document {
            path: of.path.to_owned(),
            content: Content::Fixed(of),
        }
    }

    /// In capital hexadecimal digits: the same whenever the document is.
    ///
    /// A document follows from this program and what is described, so that is what is hashed:
    /// nobody has to wait until every document has been written.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(include_str!(concat!(env!("OUT_DIR"), "/openapi.hash")));
        hash.update(&self.path);
        if let Content::Resources { kinds, schemas, .. } = &self.content {
            for kind in kinds {
                hash.update(format!(
                    "{} {} {} {:?} {:?}\n",
                    kind.kind, kind.resource, kind.namespaced, kind.verbs, kind.subresources
                ));
            }
            if let Some(schemas) = schemas {
                hash.update(schemas.revision());
            }
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect()
    }
}

/// The documents of a table of kinds, by path. `schemas` has those of the kinds of a group and
/// version that is not built in; a group and version of which it knows nothing is left out.
pub fn documents<'a>(
    kinds: impl IntoIterator<Item = &'a Arc<Kind>>,
    schemas: impl Fn(&str, &str) -> Option<Arc<dyn Schemas>>,
) -> BTreeMap<String, Document> {
    let mut versions: BTreeMap<(&str, &str), Vec<Arc<Kind>>> = BTreeMap::new();
    for kind in kinds {
        let of = versions.entry((&kind.group, &kind.version)).or_default();
        of.push(kind.clone());
    }
    let mut documents: BTreeMap<String, Document> = BTreeMap::new();
    let mut add = |document: Document| {
        documents.insert(document.path.clone(), document);
    };
    for fixed in &paths::FIXED {
        add(Document::fixed(fixed));
    }
    for ((group, version), kinds) in versions {
        let schemas = schemas(group, version);
        let is_known = |kind: &Arc<Kind>| builtin_name(kind).is_some();
        if schemas.is_none() && !kinds.iter().all(is_known) {
            continue;
        }
        // Upstream describes the group of a custom resource nowhere.
        if schemas.is_none() && !group.is_empty() {
            add(Document::of_group(group));
        }
        add(Document::of_resources(group, version, kinds, schemas));
    }
    documents
}

/// The name of a kind's definition: for one that is not built in, the group turned around,
/// version and kind.
pub fn definition_name(kind: &Kind) -> String {
    builtin_name(kind).map_or_else(
        || custom_name(&kind.group, &kind.version, &kind.kind),
        str::to_owned,
    )
}

fn builtin_name(kind: &Kind) -> Option<&'static str> {
    crate::schema::of_kind(&kind.group, &kind.version, &kind.kind).map(|of| of.openapi)
}

fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let parts: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", parts.join("."))
}
