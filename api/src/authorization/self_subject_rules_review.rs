//! SelfSubjectRulesReview.

use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;

use crate::strategy::Behaviour;

impl Behaviour for SelfSubjectRulesReview {}
