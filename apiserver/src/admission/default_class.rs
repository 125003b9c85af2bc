//! The class that is the default of its kind: the newest that is marked so.

use coracle_api::object::Typed;

use crate::{Lister, Shared};

/// The default of `classes`, marked by one of the annotations.
pub fn default_of<T: Typed>(classes: &Lister<T>, annotations: &[&str]) -> Option<Shared<T>> {
    let marked = classes.list("").into_iter().filter(|class| {
        let given = class.metadata().annotations.as_ref();
        annotations.iter().any(|key| {
            let value = given.and_then(|given| given.get(*key));
            value.is_some_and(|value| value == "true")
        })
    });
    // The list is in order of names, and the first of equals is the one that is taken.
    marked.reduce(|newest, class| {
        let created = |class: &Shared<T>| class.metadata().creation_timestamp.clone();
        if created(&class) > created(&newest) {
            class
        } else {
            newest
        }
    })
}
