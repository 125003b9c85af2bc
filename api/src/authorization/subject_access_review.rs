//! SubjectAccessReview.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;

use super::validation;
use crate::{field::ErrorList, strategy::Behaviour};

impl Behaviour for SubjectAccessReview {
    fn validate(&self) -> ErrorList {
        let mut errors = validation::subject(&self.spec);
        validation::no_metadata(&self.metadata, false, &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews() {
        let yaml = include_str!("../../testdata/subject_access_review.yaml");
        crate::testing::run::<SubjectAccessReview>(yaml);
    }
}
