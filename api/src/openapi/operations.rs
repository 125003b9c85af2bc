//! What is done at a path, as data: the same for v2 and v3.

use super::parameters::{Parameter, take_common};

pub const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// What discovery is encoded as.
pub const DISCOVERY: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// What objects are encoded as.
pub const OBJECT: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
];
pub const ANYTHING: &[&str] = &["*/*"];

/// The methods of HTTP that are described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Put,
    Post,
    Delete,
    Options,
    Head,
    Patch,
}

impl Method {
    /// As the key in a path.
    pub fn key(self) -> &'static str {
        match self {
            Method::Get => "get",
            Method::Put => "put",
            Method::Post => "post",
            Method::Delete => "delete",
            Method::Options => "options",
            Method::Head => "head",
            Method::Patch => "patch",
        }
    }
}

/// What a body holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    Definition(String),
    Text,
}

impl Model {
    /// A type of the machinery: `Status`.
    pub fn meta(name: &str) -> Self {
        Model::Definition(format!("{META}{name}"))
    }
}

/// The body of a request.
#[derive(Clone, Debug)]
pub struct Body {
    pub definition: String,
    pub required: bool,
}

/// The kind that an operation is about.
#[derive(Clone, Debug)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// What a method does at a path.
#[derive(Clone, Debug)]
pub struct Operation {
    pub method: Method,
    pub id: String,
    pub tag: String,
    pub description: String,
    /// For example `list`; `None` for what is no resource.
    pub action: Option<&'static str>,
    pub kind: Option<GroupVersionKind>,
    pub parameters: Vec<Parameter>,
    pub body: Option<Body>,
    /// Of success.
    pub responses: &'static [(&'static str, &'static str)],
    pub model: Model,
    pub consumes: &'static [&'static str],
    pub produces: &'static [&'static str],
}

const FOUND: &[(&str, &str)] = &[("200", "OK")];
impl Operation {
    pub fn get(id: String, tag: String, model: Model) -> Self {
        Operation {
            method: Method::Get,
            id,
            tag,
            description: String::new(),
            action: None,
            kind: None,
            parameters: Vec::new(),
            body: None,
            responses: FOUND,
            model,
            consumes: ANYTHING,
            produces: OBJECT,
        }
    }

    /// The definitions that it names.
    pub fn definitions(&self) -> impl Iterator<Item = &String> {
        let answer = match &self.model {
            Model::Definition(name) => Some(name),
            Model::Text => None,
        };
        answer
            .into_iter()
            .chain(self.body.as_ref().map(|body| &body.definition))
    }
}

/// What is served at a path.
#[derive(Clone, Debug)]
pub struct PathItem {
    /// Of every operation.
    pub parameters: Vec<Parameter>,
    pub operations: Vec<Operation>,
}

impl PathItem {
    pub fn new(mut operations: Vec<Operation>) -> Self {
        let mut lists: Vec<&mut Vec<Parameter>> = operations
            .iter_mut()
            .map(|operation| &mut operation.parameters)
            .collect();
        PathItem {
            parameters: take_common(&mut lists),
            operations,
        }
    }
}

/// `rbac.authorization` as `rbacAuthorization` or `RbacAuthorization`.
pub fn identifier(text: &str, capital: bool) -> String {
    let mut made = String::with_capacity(text.len());
    let mut raise = capital;
    for (index, letter) in text.char_indices() {
        let fits = letter.is_alphabetic() || letter == '_' || index > 0 && letter.is_numeric();
        if !fits {
            raise = true;
        } else if raise {
            made.extend(letter.to_uppercase());
            raise = false;
        } else {
            made.push(letter);
        }
    }
    made
}
