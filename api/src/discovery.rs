//! `discovery.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod endpoint_slice;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![Kind::namespaced::<EndpointSlice>("endpointslice")]
}
