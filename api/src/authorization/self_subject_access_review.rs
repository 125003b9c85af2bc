//! SelfSubjectAccessReview.

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;

use crate::strategy::Behaviour;

impl Behaviour for SelfSubjectAccessReview {}
