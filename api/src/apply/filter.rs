//! The fields of an object that a write through an endpoint can change.

use std::sync::LazyLock;

use super::{
    element::PathElement,
    set::{Node, Set},
};

/// The fields that a write can change; all others are set back by the kind's strategy.
#[derive(Clone, Debug, Default)]
pub enum Filter {
    #[default]
    All,
    /// All but these and what is below them.
    Except(Set),
    /// Only what is below one of these; `*` stands for any item.
    Below(&'static [&'static [&'static str]]),
}

impl Filter {
    /// All but these fields of records: `spec`, `metadata.labels`.
    pub fn except(paths: &[&'static str]) -> Self {
        Filter::Except(Set::of_fields(paths))
    }

    /// What of the set passes.
    pub fn apply(&self, set: &Set) -> Set {
        match self {
            Filter::All => set.clone(),
            Filter::Except(reset) => set.recursive_difference(reset),
            Filter::Below(patterns) => below(set, patterns),
        }
    }
}

fn below(set: &Set, patterns: &[&[&str]]) -> Set {
    let mut passed = Set::new();
    for (element, node) in set.nodes() {
        let rests: Vec<&[&str]> = patterns
            .iter()
            .filter_map(|pattern| pattern.split_first())
            .filter(|(first, _)| is_match(first, element))
            .map(|(_, rest)| rest)
            .collect();
        if rests.is_empty() {
            continue;
        }
        let children = if rests.iter().any(|rest| rest.is_empty()) {
            node.children.clone()
        } else {
            below(&node.children, &rests)
        };
        let is_member = node.is_member;
        passed.put(
            element.clone(),
            Node {
                is_member,
                children,
            },
        );
    }
    passed
}

fn is_match(pattern: &str, element: &PathElement) -> bool {
    pattern == "*" || matches!(element, PathElement::Field(name) if name == pattern)
}

/// The fields that nobody owns: they name the object, or the server writes them.
pub(super) fn strip_meta() -> &'static Set {
    static FIELDS: LazyLock<Set> = LazyLock::new(|| {
        Set::of_fields(&[
            "apiVersion",
            "kind",
            "metadata",
            "metadata.name",
            "metadata.namespace",
            "metadata.creationTimestamp",
            "metadata.selfLink",
            "metadata.uid",
            "metadata.clusterName",
            "metadata.generation",
            "metadata.managedFields",
            "metadata.resourceVersion",
        ])
    });
    &FIELDS
}
