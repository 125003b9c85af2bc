//! Subresources: parts that are read and written, and requests that are passed on.

use super::{Paths, Subject, title};
use crate::{
    kinds::{Kind, SubresourceKind, Verb, find},
    openapi::{
        custom_name, definition_name,
        definitions::Definitions,
        operations::{ANYTHING, Method, Model},
        parameters::Parameter,
    },
};

const LOG: &[&str] = &[
    "text/plain",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
];
impl Paths {
    fn part_scope(&self, kind: &Kind, part: &SubresourceKind) -> Vec<Parameter> {
        let namespace = kind.namespaced.then(Parameter::namespace);
        let of = if self.are_custom {
            &kind.kind
        } else {
            &part.kind
        };
        let name = Parameter::name_of(of);
        namespace.into_iter().chain([name]).collect()
    }

    /// A subresource that is read, written or created.
    pub(super) fn subresource(
        &mut self,
        kind: &Kind,
        part: &SubresourceKind,
        definitions: &Definitions,
    ) {
        let subject = Subject {
            kind,
            part: Some(part),
            definition: part_definition(kind, part),
        };
        let path = format!("{}/{{name}}/{}", self.collection(kind), part.name);
        let scope = self.part_scope(kind, part);
        if part.verbs.contains(&Verb::Create) {
            self.create(&subject, &path, &scope);
        }
        self.item(&subject, &part.verbs, &path, &scope);
        if part.name == "log" {
            let log = self.operations.get_mut(&path).into_iter().flatten();
            for operation in log {
                let options = definitions.options("core.v1.PodLogOptions");
                operation.parameters.extend(options);
                operation.model = Model::Text;
                operation.produces = LOG;
            }
        }
    }

    /// A subresource that passes a request on, with what follows the path if it is a proxy.
    pub(super) fn connect(
        &mut self,
        kind: &Kind,
        part: &SubresourceKind,
        definitions: &Definitions,
    ) {
        let subject = Subject {
            kind,
            part: Some(part),
            definition: String::new(),
        };
        let is_proxy = part.verbs.contains(&Verb::Delete);
        let methods: &[Method] = if is_proxy {
            &[
                Method::Get,
                Method::Post,
                Method::Put,
                Method::Patch,
                Method::Delete,
                Method::Head,
                Method::Options,
            ]
        } else {
            &[Method::Get, Method::Post]
        };
        let path = format!("{}/{{name}}/{}", self.collection(kind), part.name);
        let mut scope = self.part_scope(kind, part);
        scope.extend(definitions.options(&format!("core.v1.{}", part.kind)));
        let mut places = vec![(path.clone(), "")];
        if is_proxy {
            places.push((format!("{path}/{{path}}"), "WithPath"));
        }
        for (path, suffix) in places {
            if !suffix.is_empty() {
                scope.push(Parameter::rest());
            }
            for &method in methods {
                let verb = title(method.key());
                let id = format!("connect {verb}{}{suffix}", subject.id());
                let name = method.key().to_uppercase();
                let text = format!("connect {name} requests to {}", subject.text(""));
                let mut connect = self.operation(&subject, method, "connect", &id, text);
                connect.model = Model::Text;
                connect.produces = ANYTHING;
                self.add(&path, &scope, connect);
            }
        }
    }
}

/// The definition of a subresource's body, which may be of another group.
fn part_definition(kind: &Kind, part: &SubresourceKind) -> String {
    if part.kind == kind.kind {
        return definition_name(kind);
    }
    let known = crate::schema::of_kind(&part.group, &part.version, &part.kind);
    known.map_or_else(
        || match find(&part.group, &part.version, &part.kind) {
            Some(kind) => definition_name(kind),
            None => custom_name(&part.group, &part.version, &part.kind),
        },
        |of| of.openapi.to_owned(),
    )
}
