//! `apiextensions.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod custom_resource_definition;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<CustomResourceDefinition>("customresourcedefinition")
            .short_names(&["crd", "crds"])
            .key_prefix("apiextensions.k8s.io/customresourcedefinitions")
            .categories(&["api-extensions"])
            .no_unconditional_update()
            .status(),
    ]
}
