//! `authentication.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod self_subject_review;
mod token_request;
mod token_review;

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::virtual_cluster::<SelfSubjectReview>("selfsubjectreview"),
        Kind::virtual_cluster::<TokenReview>("tokenreview"),
    ]
}
