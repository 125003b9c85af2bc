//! The paths of the kinds of a group and version.
//!
//! Enter at [`resources`]. What a path serves follows from the verbs of a [`Kind`] and of its
//! subresources, which are in `parts`; the names and texts are upstream's.

mod parts;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    definition_name,
    definitions::Definitions,
    operations::{
        ANYTHING, Body, GroupVersionKind, META, Method, Model, OBJECT, Operation, PathItem,
        identifier,
    },
    parameters::Parameter,
};
use crate::kinds::{Kind, SubresourceKind, Verb, join_group_version};

const STREAM: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/cbor-seq",
];
const PATCH: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];
/// What custom resources are encoded as.
const CUSTOM: &[&str] = &["application/json", "application/yaml"];
const CUSTOM_PATCH: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];
const WRITTEN: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const DELETED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];

/// The paths of a group and version, each with what it serves.
pub fn resources(
    group: &str,
    version: &str,
    kinds: &[Arc<Kind>],
    are_custom: bool,
    definitions: &Definitions,
) -> BTreeMap<String, PathItem> {
    let trimmed = match group {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    let root = if group.is_empty() { "/api" } else { "/apis" };
    let mut paths = Paths {
        root: format!("{root}/{}", join_group_version(group, version)),
        prefix: format!("{}{}", identifier(trimmed, true), identifier(version, true)),
        tag: format!(
            "{}_{}",
            identifier(trimmed, false),
            identifier(version, false)
        ),
        options: Options::new(definitions),
        are_custom,
        operations: BTreeMap::new(),
    };
    if !are_custom {
        paths.list_of_resources();
    }
    for kind in kinds {
        paths.kind(kind);
        for part in &kind.subresources {
            match part.kind.ends_with("Options") {
                true => paths.connect(kind, part, definitions),
                false => paths.subresource(kind, part, definitions),
            }
        }
    }
    let items = paths.operations.into_iter();
    items
        .map(|(path, operations)| (path, PathItem::new(operations)))
        .collect()
}

/// The options of the verbs as parameters.
struct Options {
    list: Vec<Parameter>,
    create: Vec<Parameter>,
    update: Vec<Parameter>,
    patch: Vec<Parameter>,
    delete: Vec<Parameter>,
    delete_collection: Vec<Parameter>,
}

impl Options {
    fn new(definitions: &Definitions) -> Self {
        let of = |name: &str| {
            let mut options = definitions.options(&format!("meta.v1.{name}Options"));
            options.push(Parameter::pretty());
            options
        };
        let (list, delete) = (of("List"), of("Delete"));
        let mut delete_collection = delete.clone();
        let selecting = list.iter().filter(|parameter| {
            !matches!(&*parameter.name, "watch" | "allowWatchBookmarks" | "pretty")
        });
        delete_collection.extend(selecting.cloned());
        Options {
            create: of("Create"),
            update: of("Update"),
            patch: of("Patch"),
            list,
            delete,
            delete_collection,
        }
    }
}

/// The paths that have been described so far.
struct Paths {
    /// `/apis/apps/v1`
    root: String,
    /// `AppsV1`
    prefix: String,
    /// `apps_v1`
    tag: String,
    options: Options,
    /// Upstream describes custom resources a little differently.
    are_custom: bool,
    operations: BTreeMap<String, Vec<Operation>>,
}

/// What the operations of one resource have in common.
struct Subject<'a> {
    kind: &'a Kind,
    part: Option<&'a SubresourceKind>,
    /// Of the body.
    definition: String,
}

impl Subject<'_> {
    /// The end of an operation's name: `NamespacedPodStatus`.
    fn id(&self) -> String {
        let namespaced = if self.kind.namespaced {
            "Namespaced"
        } else {
            ""
        };
        let part = self.part.map_or(String::new(), |part| title(&part.name));
        format!("{namespaced}{}{part}", self.kind.kind)
    }

    /// `the specified Pod`, `status of the specified Pod`
    fn text(&self, article: &str) -> String {
        let part = self
            .part
            .map_or(String::new(), |part| format!("{} of ", part.name));
        format!("{part}{article}{}", self.kind.kind)
    }
}

impl Paths {
    fn list_of_resources(&mut self) {
        let mut list = Operation::get(
            format!("get{}APIResources", self.prefix),
            self.tag.clone(),
            Model::meta("APIResourceList"),
        );
        list.description = "get available resources".to_owned();
        list.consumes = OBJECT;
        self.add(&format!("{}/", self.root), &[], list);
    }

    /// Where the objects of a kind are.
    fn collection(&self, kind: &Kind) -> String {
        let scope = if kind.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        format!("{}{scope}/{}", self.root, kind.resource)
    }

    fn watched(&self, path: &str) -> String {
        format!("{}/watch{}", self.root, &path[self.root.len()..])
    }

    fn add(&mut self, path: &str, parameters: &[Parameter], mut operation: Operation) {
        operation.parameters.extend_from_slice(parameters);
        self.operations
            .entry(path.to_owned())
            .or_default()
            .push(operation);
    }

    /// An operation of a resource, of which the verb is the beginning of the name.
    fn operation(
        &self,
        subject: &Subject<'_>,
        method: Method,
        action: &'static str,
        id: &str,
        description: String,
    ) -> Operation {
        let (verb, rest) = id.split_once(' ').unwrap_or((id, ""));
        let model = Model::Definition(subject.definition.clone());
        let id = format!("{verb}{}{rest}", self.prefix);
        Operation {
            method,
            description,
            action: Some(action),
            kind: Some(self.kind_of(subject)),
            consumes: if self.are_custom { CUSTOM } else { ANYTHING },
            produces: if self.are_custom { CUSTOM } else { OBJECT },
            ..Operation::get(id, self.tag.clone(), model)
        }
    }

    /// The kind that the bodies are of; with custom resources always their own.
    fn kind_of(&self, subject: &Subject<'_>) -> GroupVersionKind {
        let kind = subject.kind;
        let (group, version, kind) = match subject.part {
            Some(part) if !self.are_custom => (&part.group, &part.version, &part.kind),
            _ => (&kind.group, &kind.version, &kind.kind),
        };
        GroupVersionKind {
            group: group.clone(),
            version: version.clone(),
            kind: kind.clone(),
        }
    }

    fn kind(&mut self, kind: &Kind) {
        let subject = Subject {
            kind,
            part: None,
            definition: definition_name(kind),
        };
        let scope: Vec<Parameter> = kind
            .namespaced
            .then(Parameter::namespace)
            .into_iter()
            .collect();
        let collection = self.collection(kind);
        self.lists(&subject, &collection, &scope);
        if kind.verbs.contains(&Verb::Create) {
            self.create(&subject, &collection, &scope);
        }
        if kind.verbs.contains(&Verb::DeleteCollection) {
            let id = format!("delete Collection{}", subject.id());
            let text = format!("delete collection of {}", kind.kind);
            let mut delete =
                self.operation(&subject, Method::Delete, "deletecollection", &id, text);
            delete.model = Model::meta("Status");
            if self.are_custom {
                delete.parameters = self.options.list.clone();
            } else {
                delete.parameters = self.options.delete_collection.clone();
                delete.body = Some(delete_options());
            }
            self.add(&collection, &scope, delete);
        }
        let item = format!("{collection}/{{name}}");
        let mut scope = scope;
        scope.push(Parameter::name_of(&kind.kind));
        self.item(&subject, &kind.verbs, &item, &scope);
        if kind.verbs.contains(&Verb::Delete) {
            let id = format!("delete {}", subject.id());
            let text = format!("delete {}", subject.text(article(&kind.kind)));
            let mut delete = self.operation(&subject, Method::Delete, "delete", &id, text);
            delete.parameters = self.options.delete.clone();
            delete.responses = DELETED;
            delete.body = Some(delete_options());
            // Upstream promises a status of a namespace too, but answers with the object.
            if !kind.deletion_shows_object() || kind.resource == "namespaces" {
                delete.model = Model::meta("Status");
            }
            self.add(&item, &scope, delete);
        }
        if kind.verbs.contains(&Verb::Watch) && !self.are_custom {
            let id = format!("watch {}", subject.id());
            let text = format!(
                "watch changes to an object of kind {}. deprecated: use the 'watch' parameter \
                 with a list operation instead, filtered to a single item with the \
                 'fieldSelector' parameter.",
                kind.kind
            );
            let mut watch = self.operation(&subject, Method::Get, "watch", &id, text);
            self.make_watch(&mut watch);
            self.add(&self.watched(&item), &scope, watch);
        }
    }

    /// Lists and watches of lists, in a namespace and in all.
    fn lists(&mut self, subject: &Subject<'_>, collection: &str, scope: &[Parameter]) {
        let kind = subject.kind;
        let everywhere = format!("{}/{}", self.root, kind.resource);
        let mut places = vec![(collection.to_owned(), subject.id(), "", scope)];
        if kind.namespaced {
            places.push((everywhere, kind.kind.clone(), "ForAllNamespaces", &[]));
        }
        let lists = kind.verbs.contains(&Verb::List);
        let watches = kind.verbs.contains(&Verb::Watch) && !self.are_custom;
        for (path, name, suffix, scope) in places {
            if lists {
                let verb = if watches { "list or watch" } else { "list" };
                let text = format!("{verb} objects of kind {}", kind.kind);
                let id = format!("list {name}{suffix}");
                let mut list = self.operation(subject, Method::Get, "list", &id, text);
                list.parameters = self.options.list.clone();
                list.model = Model::Definition(format!("{}List", subject.definition));
                if !self.are_custom {
                    list.produces = STREAM;
                }
                self.add(&path, scope, list);
            }
            if lists && watches {
                let text = format!(
                    "watch individual changes to a list of {}. deprecated: use the 'watch' \
                     parameter with a list operation instead.",
                    kind.kind
                );
                let id = format!("watch {name}List{suffix}");
                let mut watch = self.operation(subject, Method::Get, "watchlist", &id, text);
                self.make_watch(&mut watch);
                self.add(&self.watched(&path), scope, watch);
            }
        }
    }

    fn make_watch(&self, watch: &mut Operation) {
        watch.parameters = self.options.list.clone();
        watch.model = Model::meta("WatchEvent");
        watch.produces = STREAM;
    }

    fn create(&mut self, subject: &Subject<'_>, path: &str, scope: &[Parameter]) {
        let id = format!("create {}", subject.id());
        let text = format!("create {}", subject.text(article(&subject.kind.kind)));
        let mut create = self.operation(subject, Method::Post, "post", &id, text);
        create.parameters = self.options.create.clone();
        create.responses = CREATED;
        create.body = Some(Body {
            definition: subject.definition.clone(),
            required: true,
        });
        self.add(path, scope, create);
    }

    /// Reading and writing one object, or a part of it.
    fn item(&mut self, subject: &Subject<'_>, verbs: &[Verb], path: &str, scope: &[Parameter]) {
        let name = subject.id();
        let object = subject.text("the specified ");
        if verbs.contains(&Verb::Get) {
            let id = format!("read {name}");
            let text = format!("read {object}");
            let mut get = self.operation(subject, Method::Get, "get", &id, text);
            get.parameters = vec![Parameter::pretty()];
            if self.are_custom {
                let version = |of: &&Parameter| &*of.name == "resourceVersion";
                get.parameters
                    .extend(self.options.list.iter().find(version).cloned());
            }
            self.add(path, scope, get);
        }
        if verbs.contains(&Verb::Update) {
            let id = format!("replace {name}");
            let text = format!("replace {object}");
            let mut put = self.operation(subject, Method::Put, "put", &id, text);
            put.parameters = self.options.update.clone();
            put.responses = WRITTEN;
            put.body = Some(Body {
                definition: subject.definition.clone(),
                required: true,
            });
            self.add(path, scope, put);
        }
        if verbs.contains(&Verb::Patch) {
            let id = format!("patch {name}");
            let text = format!("partially update {object}");
            let mut patch = self.operation(subject, Method::Patch, "patch", &id, text);
            patch.parameters = self.options.patch.clone();
            if self.are_custom {
                patch.consumes = CUSTOM_PATCH;
            } else {
                patch.responses = WRITTEN;
                patch.consumes = PATCH;
            }
            patch.body = Some(Body {
                definition: format!("{META}Patch"),
                required: true,
            });
            self.add(path, scope, patch);
        }
    }
}

fn delete_options() -> Body {
    Body {
        definition: format!("{META}DeleteOptions"),
        required: false,
    }
}

fn title(word: &str) -> String {
    identifier(word, true)
}

/// With a space behind it.
fn article(noun: &str) -> &'static str {
    let is_plural = noun.ends_with('s') && !noun.ends_with("ss");
    if is_plural {
        ""
    } else if noun.starts_with(['A', 'E', 'I', 'O', 'U', 'a', 'e', 'i', 'o', 'u']) {
        "an "
    } else {
        "a "
    }
}
