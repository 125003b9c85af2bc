//! `apiregistration.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod api_service;

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use crate::kinds::{Kind, NameRule};

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<APIService>("apiservice")
            .name(NameRule::PathSegment)
            .key_prefix("apiregistration.k8s.io/apiservices")
            .categories(&["api-extensions"])
            .no_unconditional_update()
            .status(),
    ]
}
