//! Binding.

use k8s_openapi::api::core::v1::Binding;

use crate::{
    check,
    field::{ErrorList, Path},
    strategy::Behaviour,
    zero::text,
};

impl Behaviour for Binding {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("target");
        let kind = text(&self.target.kind);
        if !matches!(kind, "" | "Node") {
            errors.push(path.child("kind").not_supported(kind, &["Node", "<empty>"]));
        }
        check::required(text(&self.target.name), &path.child("name"), &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings() {
        let yaml = include_str!("../../testdata/binding.yaml");
        crate::testing::run::<Binding>(yaml);
    }
}
