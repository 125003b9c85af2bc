//! `autoscaling`: one file per kind, one line per kind in [`kinds`].

mod horizontal_pod_autoscaler;
mod horizontal_pod_autoscaler_v1;
mod scale;

use k8s_openapi::api::autoscaling::{v1, v2};

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::namespaced::<v2::HorizontalPodAutoscaler>("horizontalpodautoscaler")
            .short_names(&["hpa"])
            .categories(&["all"])
            .status(),
        Kind::namespaced::<v1::HorizontalPodAutoscaler>("horizontalpodautoscaler")
            .short_names(&["hpa"])
            .categories(&["all"])
            .status()
            .converted_to::<v2::HorizontalPodAutoscaler>(
                &horizontal_pod_autoscaler_v1::HorizontalPodAutoscalerConversion,
            ),
    ]
}
