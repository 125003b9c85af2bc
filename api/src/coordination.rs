//! `coordination.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod lease;

use k8s_openapi::api::coordination::v1::Lease;

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::namespaced::<Lease>("lease")
            .create_on_update()
            .no_unconditional_update(),
    ]
}
