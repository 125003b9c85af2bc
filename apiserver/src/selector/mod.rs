//! Which objects a list, watch or deletecollection is about.
//!
//! A [`Filter`] puts the selectors of a request together with its namespace and name, and looks
//! only at what an [`Entry`] keeps beside its bytes.

use coracle_api::selector::{
    FieldSelector, FieldTerm, LabelSelector, SelectorError, unsupported_field,
};

use crate::{
    cache::{Cache, Entry},
    registry::Resource,
};

/// What a list or watch is restricted to.
#[derive(Clone, Debug)]
pub struct Filter {
    /// What keys start with: the resource's prefix, with the namespace where one is given.
    prefix: String,
    /// The only key, when name and namespace are given.
    key: Option<String>,
    labels: LabelSelector,
    fields: Vec<Compiled>,
}

/// A field requirement that knows where the field is found.
#[derive(Clone, Debug)]
struct Compiled {
    field: Field,
    equal: bool,
    value: String,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Name,
    Namespace,
    Selectable(usize),
}

impl Filter {
    /// Every object of a resource.
    pub fn all(cache: &Cache) -> Self {
        Filter {
            prefix: cache.prefix().to_owned(),
            key: None,
            labels: LabelSelector::EVERYTHING,
            fields: Vec::new(),
        }
    }

    /// `namespace` and `name` are empty where the request has none.
    ///
    /// # Errors
    /// A field that the kind does not select by.
    pub fn new(
        resource: &Resource,
        cache: &Cache,
        namespace: &str,
        name: &str,
        labels: LabelSelector,
        fields: &FieldSelector,
    ) -> Result<Self, SelectorError> {
        let mut filter = Filter {
            prefix: cache.key_prefix(namespace),
            key: None,
            labels,
            fields: Vec::new(),
        };
        let mut name = (!name.is_empty()).then_some(name);
        for requirement in &fields.terms {
            let compiled = compile(resource, cache, requirement)?;
            match compiled.field {
                Field::Name if compiled.equal && name.is_none() => name = Some(&requirement.value),
                Field::Namespace if compiled.equal && namespace.is_empty() => {
                    filter.prefix = cache.key_prefix(&compiled.value);
                    filter.fields.push(compiled);
                }
                _ => filter.fields.push(compiled),
            }
        }
        if let Some(name) = name {
            if filter.prefix == cache.key_prefix("") && cache.namespaced() {
                filter.fields.push(Compiled {
                    field: Field::Name,
                    equal: true,
                    value: name.to_owned(),
                });
            } else {
                filter.key = Some(format!("{}{name}", filter.prefix));
            }
        }
        Ok(filter)
    }

    /// What the keys of all matching objects start with.
    pub fn prefix(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.prefix)
    }

    /// Whether every object below the prefix matches.
    pub fn matches_all(&self) -> bool {
        self.key.is_none() && self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object with this key might match.
    pub fn matches_key(&self, key: &str) -> bool {
        match &self.key {
            Some(only) => only == key,
            None => key.starts_with(&self.prefix),
        }
    }

    /// Whether the object matches.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.matches_key(entry.key())
            && self.fields.iter().all(|requirement| {
                let value = match requirement.field {
                    Field::Name => name_and_namespace(entry.key()).0,
                    Field::Namespace => name_and_namespace(entry.key()).1,
                    Field::Selectable(index) => entry.field(index),
                };
                (value == requirement.value) == requirement.equal
            })
            && self.labels.matches(|key| entry.label(key))
    }
}

/// Name and namespace of a namespaced object by its key, whose last two segments they are; of
/// a cluster-scoped object only the name means anything.
fn name_and_namespace(key: &str) -> (&str, &str) {
    let mut segments = key.rsplit('/');
    let name = segments.next().unwrap_or_default();
    (name, segments.next().unwrap_or_default())
}

fn compile(
    resource: &Resource,
    cache: &Cache,
    requirement: &FieldTerm,
) -> Result<Compiled, SelectorError> {
    let name = requirement.field.as_str();
    let field = match name {
        "metadata.name" => Field::Name,
        // These kinds are in no namespace, and their own words for it have no such field.
        "metadata.namespace"
            if matches!(
                resource.kind.kind.as_str(),
                "Node" | "CertificateSigningRequest" | "ResourceSlice"
            ) =>
        {
            return Err(unsupported_field(&resource.kind, name, true));
        }
        "metadata.namespace" => Field::Namespace,
        _ => Field::Selectable(selectable(resource, cache, name)?),
    };
    Ok(Compiled {
        field,
        equal: requirement.equal,
        value: requirement.value.clone(),
    })
}

/// Where the values of a field are, that the kind as it is served selects by.
fn selectable(resource: &Resource, cache: &Cache, name: &str) -> Result<usize, SelectorError> {
    let position = |name: &str| {
        cache
            .selectable_fields()
            .iter()
            .position(|field| field == name)
    };
    let Some(conversion) = resource.conversion else {
        let own_fields = !cache.selectable_fields().is_empty();
        return position(name).ok_or_else(|| unsupported_field(&resource.kind, name, own_fields));
    };
    let served = resource.kind.strategy.selectable_field_names();
    let found = served.iter().any(|field| field == name);
    found
        .then(|| position(&conversion.stored_field(name)))
        .flatten()
        .ok_or_else(|| unsupported_field(&resource.kind, name, !served.is_empty()))
}
