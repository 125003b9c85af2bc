//! What expressions may speak of, by where they stand.
//!
//! Upstream: `pkg/admission/plugin/cel` and `pkg/authentication/cel` of the API server,
//! `dynamic-resource-allocation/cel`.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use cel::Env;
use coracle_api::expression::{Admission, Scope as Place};

use crate::{
    declarations::{COMMON, Functions, Overload, PATCHES, parse_type},
    library, macros,
    types::Type,
};

const VARIABLES: &str = "kubernetes.variables";
/// What a mutation makes; its parts are `Object.spec` and so on.
const OBJECT: &str = "Object";

/// The fields of the structures, as `name type`.
const STRUCTURES: &[(&str, &str)] = &[
    (
        "kubernetes.AdmissionRequest",
        "kind kubernetes.GroupVersionKind; resource kubernetes.GroupVersionResource; \
         subResource string; requestKind kubernetes.GroupVersionKind; \
         requestResource kubernetes.GroupVersionResource; requestSubResource string; \
         name string; namespace string; operation string; userInfo kubernetes.UserInfo; \
         dryRun bool; options dyn",
    ),
    (
        "kubernetes.GroupVersionKind",
        "group string; version string; kind string",
    ),
    (
        "kubernetes.GroupVersionResource",
        "group string; version string; resource string",
    ),
    (
        "kubernetes.UserInfo",
        "username string; uid string; groups list(string); extra map(string, list(string))",
    ),
    (
        "kubernetes.Namespace",
        "metadata kubernetes.NamespaceMetadata; spec kubernetes.NamespaceSpec; \
         status kubernetes.NamespaceStatus",
    ),
    (
        "kubernetes.NamespaceMetadata",
        "name string; generateName string; namespace string; labels map(string, string); \
         annotations map(string, string); UID string; creationTimestamp timestamp; \
         deletionGracePeriodSeconds int; deletionTimestamp timestamp; generation int; \
         resourceVersion string; finalizers list(string)",
    ),
    ("kubernetes.NamespaceSpec", "finalizers list(string)"),
    (
        "kubernetes.NamespaceStatus",
        "conditions list(kubernetes.NamespaceCondition); phase string",
    ),
    (
        "kubernetes.NamespaceCondition",
        "status string; type string; lastTransitionTime timestamp; message string; reason string",
    ),
    (
        "kubernetes.DRADevice",
        "driver string; allowMultipleAllocations bool; \
         attributes map(string, map(string, any)); \
         capacity map(string, map(string, kubernetes.Quantity))",
    ),
    (
        "JSONPatch",
        "op string; from string; path string; value dyn",
    ),
];

type Fields = HashMap<&'static str, Type>;

static FIELDS: LazyLock<HashMap<&'static str, Fields>> = LazyLock::new(|| {
    let structures = STRUCTURES.iter().map(|(name, fields)| {
        let fields = fields.split("; ").filter_map(|field| {
            let (name, of) = field.trim().split_once(' ')?;
            Some((name, parse_type(of).0))
        });
        (*name, fields.collect())
    });
    structures.collect()
});

/// The language as expressions of most places have it.
static COMMON_LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(language()));

/// The same with `cel.bind`.
static DEVICE_LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut language = language();
    // It is declared once, so that nothing can be there already.
    let _ = language.add_macro(macros::bind());
    Arc::new(language)
});

fn language() -> Env {
    let mut language = Env::stdlib();
    let _ = language.add_extension(cel::extensions::strings);
    let _ = language.add_extension(cel::extensions::lists);
    let _ = language.add_extension(library::quantities);
    let _ = language.add_extension(library::versions);
    for added in macros::common() {
        let _ = language.add_macro(added);
    }
    language
}

/// What an expression may speak of.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    names: HashMap<&'static str, Type>,
    variables: HashMap<String, Type>,
    patches: bool,
    device: bool,
}

impl Scope {
    /// Claims of a token, as `claims`.
    pub fn claims() -> Self {
        Scope::default().with("claims", "map(string, any)")
    }

    /// A user, as `user`.
    pub fn user() -> Self {
        Scope::default().with("user", "kubernetes.UserInfo")
    }

    /// A device, as `device`.
    pub fn device() -> Self {
        Scope {
            device: true,
            ..Scope::default().with("device", "kubernetes.DRADevice")
        }
    }

    /// A request to be admitted.
    pub fn admission(of: &Admission) -> Self {
        let mut scope = Scope::default()
            .with("object", "dyn")
            .with("oldObject", "dyn")
            .with("namespaceObject", "kubernetes.Namespace")
            .with("request", "kubernetes.AdmissionRequest");
        if of.params {
            scope = scope.with("params", "dyn");
        }
        if of.authorizer {
            let check = "kubernetes.authorization.ResourceCheck";
            scope = scope
                .with("authorizer", "kubernetes.authorization.Authorizer")
                .with("authorizer.requestResource", check);
        }
        if of.variables {
            scope = scope.with("variables", VARIABLES);
        }
        scope.patches = of.patches;
        scope
    }

    pub(crate) fn of(place: &Place) -> Self {
        match place {
            Place::Admission(of) => Scope::admission(of),
            Place::Device => Scope::device(),
        }
    }

    fn with(mut self, name: &'static str, of: &str) -> Self {
        self.names.insert(name, parse_type(of).0);
        self
    }

    /// Declares what is `variables.name` from now on.
    pub(crate) fn set_variable(&mut self, name: &str, of: &Type) {
        fn kept(of: &Type) -> Type {
            match of {
                Type::List(of) => Type::list(kept(of)),
                Type::Map(key, value) => Type::map(kept(key), kept(value)),
                Type::Object(_) | Type::Optional(_) | Type::Type(_) | Type::Error => Type::Dyn,
                other => other.clone(),
            }
        }
        self.variables.insert(name.to_owned(), kept(of));
    }

    pub fn language(&self) -> &'static Arc<Env> {
        match self.device {
            true => &DEVICE_LANGUAGE,
            false => &COMMON_LANGUAGE,
        }
    }

    /// The type of a name, which may have dots.
    pub(crate) fn find(&self, name: &str) -> Option<Type> {
        if let Some(found) = self.names.get(name) {
            return Some(found.clone());
        }
        self.find_type(name).map(|of| Type::Type(Arc::new(of)))
    }

    /// The type that the name is of.
    fn find_type(&self, name: &str) -> Option<Type> {
        let found = match name {
            "bool" | "bytes" | "double" | "dyn" | "int" | "string" | "uint" => parse_type(name).0,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "optional_type" => Type::optional(Type::Dyn),
            "type" => Type::Type(Arc::new(Type::Dyn)),
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            "JSONPatch" => Type::object(self.patches.then_some(name)?),
            name if is_object(name) => Type::object(self.patches.then_some(name)?),
            name if FIELDS.contains_key(name) => Type::object(name),
            _ => return None,
        };
        Some(found)
    }

    /// The type of a field, if the structure has it.
    ///
    /// # Errors
    /// Nothing of that name has fields.
    pub(crate) fn field(&self, structure: &str, field: &str) -> Result<Option<Type>, ()> {
        if structure == VARIABLES {
            return Ok(self.variables.get(field).cloned());
        }
        if is_object(structure) {
            return Ok(Some(Type::Dyn));
        }
        let fields = FIELDS.get(structure).ok_or(())?;
        Ok(fields.get(field).cloned())
    }

    pub(crate) fn function(&self, name: &str) -> Option<&'static [Overload]> {
        let common: &'static Functions = &COMMON;
        let patches: &'static Functions = &PATCHES;
        let found = common.get(name);
        let found = found.or_else(|| patches.get(name).filter(|_| self.patches));
        found.map(Vec::as_slice)
    }
}

fn is_object(name: &str) -> bool {
    let rest = name.strip_prefix(OBJECT);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
