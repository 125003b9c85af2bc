//! Whether two pod templates say the same.
//!
//! A template that was kept before the API knew of some field lacks that field's default, which
//! the same template gets when its owner is written again. That must not make new pods.

use coracle_api::core::pod::defaults;
use k8s_openapi::api::core::v1::PodSpec;

/// Whether the two are the same once the API's defaults are in both.
pub(crate) fn same_spec(left: Option<&PodSpec>, right: Option<&PodSpec>) -> bool {
    let defaulted = |spec: Option<&PodSpec>| {
        let mut spec = spec.cloned().unwrap_or_default();
        defaults::pod_spec(&mut spec);
        spec
    };
    // Nearly always, they are the same as they stand or differ in what they run.
    left == right || (images(left).eq(images(right)) && defaulted(left) == defaulted(right))
}

fn images(spec: Option<&PodSpec>) -> impl Iterator<Item = (&str, Option<&str>)> {
    let containers = spec.into_iter().flat_map(|spec| &spec.containers);
    containers.map(|container| (container.name.as_str(), container.image.as_deref()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).expect("a spec")
    }

    #[test]
    fn defaults_that_one_lacks_make_no_difference() {
        let old = spec(json!({ "containers": [{ "name": "c", "image": "web:1" }] }));
        let mut new = old.clone();
        defaults::pod_spec(&mut new);
        assert_ne!(old, new);
        assert!(same_spec(Some(&old), Some(&new)));
        assert!(same_spec(None, None));
        // What is not the default does.
        new.termination_grace_period_seconds = Some(5);
        assert!(!same_spec(Some(&old), Some(&new)));
        let other = spec(json!({ "containers": [{ "name": "c", "image": "web:2" }] }));
        assert!(!same_spec(Some(&old), Some(&other)));
    }
}
