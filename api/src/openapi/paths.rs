//! The paths that are no resources: discovery, version, keys.

use super::{
    Fixed,
    operations::{DISCOVERY, META, Model, Operation, PathItem, identifier},
};

const JSON: &[&str] = &["application/json"];

pub static FIXED: [Fixed; 5] = [
    Fixed {
        path: "api",
        operation: "getCoreAPIVersions",
        tag: "core",
        description: "get available API versions",
        definition: Some("io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions"),
        consumes: DISCOVERY,
        produces: DISCOVERY,
    },
    Fixed {
        path: "apis",
        operation: "getAPIVersions",
        tag: "apis",
        description: "get available API versions",
        definition: Some("io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList"),
        consumes: DISCOVERY,
        produces: DISCOVERY,
    },
    Fixed {
        path: "version",
        operation: "getCodeVersion",
        tag: "version",
        description: "get the version information for this server",
        definition: Some("io.k8s.apimachinery.pkg.version.Info"),
        consumes: JSON,
        produces: JSON,
    },
    Fixed {
        path: ".well-known/openid-configuration",
        operation: "getServiceAccountIssuerOpenIDConfiguration",
        tag: "WellKnown",
        description: "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        definition: None,
        consumes: &[],
        produces: JSON,
    },
    Fixed {
        path: "openid/v1/jwks",
        operation: "getServiceAccountIssuerOpenIDKeyset",
        tag: "openid",
        description: "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        definition: None,
        consumes: &[],
        produces: &["application/jwk-set+json"],
    },
];

/// Such a path.
pub fn fixed(of: &Fixed) -> (String, PathItem) {
    let model = of
        .definition
        .map_or(Model::Text, |name| Model::Definition(name.to_owned()));
    let mut operation = Operation::get(of.operation.to_owned(), of.tag.to_owned(), model);
    operation.description = of.description.to_owned();
    operation.consumes = of.consumes;
    operation.produces = of.produces;
    (format!("/{}/", of.path), PathItem::new(vec![operation]))
}

/// `/apis/{group}/`
pub fn group(name: &str) -> (String, PathItem) {
    let trimmed = name.strip_suffix(".k8s.io").unwrap_or(name);
    let id = format!("get{}APIGroup", identifier(trimmed, true));
    let model = Model::Definition(format!("{META}APIGroup"));
    let mut operation = Operation::get(id, identifier(trimmed, false), model);
    operation.description = "get information of a group".to_owned();
    operation.consumes = DISCOVERY;
    operation.produces = DISCOVERY;
    (format!("/apis/{name}/"), PathItem::new(vec![operation]))
}
