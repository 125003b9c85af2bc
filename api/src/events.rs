//! `events.k8s.io`: another view of the Events of the core group.

mod event;

use k8s_openapi::api::{core::v1 as core, events::v1::Event};

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::namespaced::<Event>("event")
            .short_names(&["ev"])
            .create_on_update()
            .converted_to::<core::Event>(&event::EventConversion),
    ]
}
