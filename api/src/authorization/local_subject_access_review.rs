//! LocalSubjectAccessReview.

use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;

use crate::strategy::Behaviour;

impl Behaviour for LocalSubjectAccessReview {}
