//! The names that Go has for Rust's types, for the errors that clients see.

/// `alloc::vec::Vec<…::v1::container::Container>` as `[]v1.Container`.
pub(super) fn go_type(rust: &str) -> String {
    if let Some(inner) = argument(rust, "Option") {
        return go_type(inner);
    }
    if let Some(inner) = argument(rust, "Vec") {
        return format!("[]{}", go_type(inner));
    }
    if let Some(inner) = argument(rust, "BTreeMap") {
        let value = inner.split_once(", ").map_or(inner, |(_, value)| value);
        return format!("map[string]{}", go_type(value));
    }
    match rust {
        "i32" => "int32".to_owned(),
        "i64" => "int64".to_owned(),
        "f64" => "float64".to_owned(),
        "bool" => "bool".to_owned(),
        _ => match rust.rsplit("::").next().unwrap_or(rust) {
            "String" => "string".to_owned(),
            "ByteString" => "[]uint8".to_owned(),
            name => format!("{}.{name}", package(rust)),
        },
    }
}

/// What Go calls a text that has a type of its own: `v1.DNSPolicy`. `of` is the type that has the
/// field, such as `core.v1.PodSpec`.
pub(super) fn named_type(of: &str, field: &str) -> Option<&'static str> {
    let line = include_str!("named_types.txt")
        .lines()
        .find_map(|line| line.strip_prefix(of)?.strip_prefix(' '))?;
    line.split(' ')
        .find_map(|named| named.strip_prefix(field)?.strip_prefix('='))
}

/// The type's argument, when it is of that generic type.
fn argument<'a>(rust: &'a str, generic: &str) -> Option<&'a str> {
    let (path, rest) = rust.split_once('<')?;
    (path.rsplit("::").next() == Some(generic)).then(|| rest.strip_suffix('>'))?
}

/// The last part of Go's package path: the version, or the module's name.
fn package(rust: &str) -> &str {
    let is_version = |part: &str| {
        part.strip_prefix('v')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let parts: Vec<&str> = rust.split("::").collect();
    parts
        .iter()
        .skip(2)
        .rfind(|part| is_version(part))
        .or_else(|| parts.iter().rev().nth(2))
        .copied()
        .unwrap_or(rust)
}

/// Whether the type is an optional one of that generic type, `Vec` or `BTreeMap`, of which an
/// empty one is absent. No policies to scale by are not the default ones, and an empty list of
/// managed fields takes them away.
pub(super) fn is_optional(rust: &str, generic: &str) -> bool {
    argument(rust, "Option").is_some_and(|inner| {
        argument(inner, generic).is_some_and(|item| {
            let told_apart = ["::HPAScalingPolicy", "::ManagedFieldsEntry"];
            !told_apart.iter().any(|name| item.ends_with(name))
        })
    })
}

pub(super) fn is_int_or_string(rust: &str) -> bool {
    rust.ends_with("::IntOrString")
}

pub(super) fn is_bytes(rust: &str) -> bool {
    rust.ends_with("::ByteString")
}

#[cfg(test)]
mod tests {
    use std::{any::type_name, collections::BTreeMap};

    use k8s_openapi::{
        ByteString,
        api::core::v1::{Container, PodSpec},
        apimachinery::pkg::api::resource::Quantity,
    };

    use super::*;

    #[test]
    fn types_have_gos_names() {
        assert_eq!(go_type(type_name::<Option<PodSpec>>()), "v1.PodSpec");
        assert_eq!(go_type(type_name::<Vec<Container>>()), "[]v1.Container");
        assert_eq!(go_type(type_name::<Quantity>()), "resource.Quantity");
        assert_eq!(
            go_type(type_name::<BTreeMap<String, ByteString>>()),
            "map[string][]uint8"
        );
        assert_eq!(go_type(type_name::<Option<i32>>()), "int32");
        assert!(is_optional(type_name::<Option<Vec<String>>>(), "Vec"));
        assert!(!is_optional(type_name::<Option<PodSpec>>(), "Vec"));
    }
}
