//! LocalSubjectAccessReview.

use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;

use super::validation;
use crate::{
    field::{ErrorList, Path},
    strategy::Behaviour,
    zero::text,
};

impl Behaviour for LocalSubjectAccessReview {
    fn validate(&self) -> ErrorList {
        let mut errors = validation::subject(&self.spec);
        let namespace = text(&self.metadata.namespace);
        validation::no_metadata(&self.metadata, true, &mut errors);
        if let Some(attributes) = &self.spec.resource_attributes {
            let given = text(&attributes.namespace);
            if given != namespace {
                let path = Path::new("spec.resourceAttributes.namespace");
                errors.push(path.invalid(given, "must match metadata.namespace"));
            }
        }
        if let Some(attributes) = &self.spec.non_resource_attributes {
            let path = Path::new("spec.nonResourceAttributes");
            let detail = "disallowed on this kind of request";
            errors.push(path.invalid(validation::shown(attributes), detail));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews() {
        let yaml = include_str!("../../testdata/local_subject_access_review.yaml");
        crate::testing::run::<LocalSubjectAccessReview>(yaml);
    }
}
