//! `authorization.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod local_subject_access_review;
mod self_subject_access_review;
mod self_subject_rules_review;
mod subject_access_review;
mod validation;

use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::virtual_namespaced::<LocalSubjectAccessReview>("localsubjectaccessreview"),
        Kind::virtual_cluster::<SelfSubjectAccessReview>("selfsubjectaccessreview"),
        Kind::virtual_cluster::<SelfSubjectRulesReview>("selfsubjectrulesreview"),
        Kind::virtual_cluster::<SubjectAccessReview>("subjectaccessreview"),
    ]
}
