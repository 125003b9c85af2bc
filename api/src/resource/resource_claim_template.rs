//! ResourceClaimTemplate.

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;

use crate::strategy::Behaviour;

impl Behaviour for ResourceClaimTemplate {}
