//! `node.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod runtime_class;

use k8s_openapi::api::node::v1::RuntimeClass;

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<RuntimeClass>("runtimeclass")
            .create_on_update()
            .no_unconditional_update(),
    ]
}
