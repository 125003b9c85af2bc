//! `DefaultTolerationSeconds`: a pod stays five minutes on a node that is not ready or not
//! reachable, unless it says otherwise.

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::api::core::v1::{Pod, Toleration};

use super::{Admission, Attributes, Operation, typed_mut};
use crate::error::ApiError;

const SECONDS: i64 = 300;
const NO_EXECUTE: &str = "NoExecute";
const TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// The plugin.
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && attributes.is("", "pods")
    }

    async fn admit(
        &self,
        _attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if let Some(spec) = typed_mut::<Pod>(object).and_then(|pod| pod.spec.as_mut()) {
            add(spec.tolerations.get_or_insert_default());
        }
        Ok(())
    }
}

fn add(tolerations: &mut Vec<Toleration>) {
    let missing: Vec<&str> = TAINTS
        .into_iter()
        .filter(|taint| {
            !tolerations
                .iter()
                .any(|toleration| covers(toleration, taint))
        })
        .collect();
    for taint in missing {
        tolerations.push(Toleration {
            key: Some(taint.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(NO_EXECUTE.to_owned()),
            toleration_seconds: Some(SECONDS),
            value: None,
        });
    }
}

fn covers(toleration: &Toleration, taint: &str) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    (key.is_empty() || key == taint) && (effect.is_empty() || effect == NO_EXECUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pod_says_stays() {
        let toleration = |key: Option<&str>, effect: Option<&str>| Toleration {
            key: key.map(str::to_owned),
            effect: effect.map(str::to_owned),
            ..Toleration::default()
        };
        let mut none = Vec::new();
        add(&mut none);
        assert_eq!(none.len(), 2);
        assert_eq!(none[0].toleration_seconds, Some(300));
        let mut all = vec![toleration(None, None)];
        add(&mut all);
        assert_eq!(all.len(), 1);
        let mut one = vec![toleration(Some(TAINTS[1]), Some(NO_EXECUTE))];
        add(&mut one);
        assert_eq!(one[1].key.as_deref(), Some(TAINTS[0]));
        let mut other = vec![toleration(Some(TAINTS[0]), Some("NoSchedule"))];
        add(&mut other);
        assert_eq!(other.len(), 3);
    }
}
