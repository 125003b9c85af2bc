//! SubjectAccessReview.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;

use crate::strategy::Behaviour;

impl Behaviour for SubjectAccessReview {}
