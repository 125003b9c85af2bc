//! Sets of fields that were made with another schema, or that must hold what contains a field.

use super::{
    element::PathElement,
    model::{Form, Model},
    set::{Node, Set},
};

/// The set as the schema has it now: who owned a part of what has become atomic owns it whole.
/// `None`: it is as it was.
pub fn reconcile(model: Model, set: &Set) -> Option<Set> {
    let mut changed = false;
    let set = level(model, set, &mut changed);
    changed.then_some(set)
}

fn level(model: Model, set: &Set, changed: &mut bool) -> Set {
    let mut reconciled = Set::new();
    for (element, node) in set.nodes() {
        let node = match model.at(element) {
            Some(of) if !node.children.is_empty() && of.is_atomic_container() => {
                *changed = true;
                Node::MEMBER
            }
            Some(of) if !node.children.is_empty() => Node {
                is_member: node.is_member,
                children: level(of, &node.children, changed),
            },
            _ => node.clone(),
        };
        reconciled.put(element.clone(), node);
    }
    reconciled
}

/// The set with the fields of records that hold something of it, which sets mostly lack.
pub fn with_named_fields(model: Model, set: &Set) -> Set {
    named(Some(model), set)
}

fn named(model: Option<Model>, set: &Set) -> Set {
    let mut named_set = Set::new();
    for (element, node) in set.nodes() {
        let is_named = match (model, element) {
            (Some(model), PathElement::Field(name)) => model.is_named_field(name),
            _ => false,
        };
        let below = model.and_then(|model| match (element, model.form()) {
            (PathElement::Field(_), Form::List(_)) => None,
            _ => model.at(element),
        });
        let node = Node {
            is_member: node.is_member || is_named && !node.children.is_empty(),
            children: named(below, &node.children),
        };
        named_set.put(element.clone(), node);
    }
    named_set
}
