//! `autoscaling`: one file per kind, one line per kind in [`kinds`].

mod horizontal_pod_autoscaler;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::namespaced::<HorizontalPodAutoscaler>("horizontalpodautoscaler")
            .short_names(&["hpa"])
            .categories(&["all"])
            .status(),
    ]
}
