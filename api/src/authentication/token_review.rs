//! TokenReview.

use k8s_openapi::api::authentication::v1::TokenReview;

use crate::strategy::Behaviour;

impl Behaviour for TokenReview {}
