//! SelfSubjectAccessReview.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

use super::validation;
use crate::{field::ErrorList, strategy::Behaviour};

impl Behaviour for SelfSubjectAccessReview {
    fn validate(&self) -> ErrorList {
        let mut errors = validation::sender(
            self.spec.resource_attributes.as_ref(),
            self.spec.non_resource_attributes.as_ref(),
        );
        validation::no_metadata(&self.metadata, false, &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews() {
        let yaml = include_str!("../../testdata/self_subject_access_review.yaml");
        crate::testing::run::<SelfSubjectAccessReview>(yaml);
    }
}
