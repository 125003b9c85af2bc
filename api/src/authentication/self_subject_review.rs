//! SelfSubjectReview.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;

use crate::strategy::Behaviour;

impl Behaviour for SelfSubjectReview {}
