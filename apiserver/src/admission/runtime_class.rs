//! `RuntimeClass`: what the runtime that a pod asks for costs, and where it is.

use async_trait::async_trait;
use coracle_api::{Object, quantity::Amount};
use k8s_openapi::{
    api::{
        core::v1::{Pod, PodSpec, Toleration},
        node::v1::{RuntimeClass as Class, Scheduling},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use std::collections::BTreeMap;

use super::{Admission, Attributes, Operation, typed, typed_mut};
use crate::{Lister, Registry, Shared, error::ApiError};

const OVERHEAD_DIFFERS: &str =
    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// The plugin.
pub struct RuntimeClass {
    registry: Registry,
    classes: Lister<Class>,
}

impl RuntimeClass {
    pub fn new(registry: Registry) -> Self {
        RuntimeClass {
            classes: registry.lister(),
            registry,
        }
    }

    /// The class that the pod names.
    async fn class(
        &self,
        attributes: &Attributes<'_>,
        pod: &Pod,
    ) -> Result<Option<Shared<Class>>, ApiError> {
        let Some(name) = pod
            .spec
            .as_ref()
            .and_then(|s| s.runtime_class_name.as_deref())
        else {
            return Ok(None);
        };
        let mut class = self.classes.get("", name);
        if class.is_none() {
            self.registry.fresh().await?;
            class = self.classes.get("", name);
        }
        if class.is_none() {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            return Err(attributes.forbidden(Some(pod), why));
        }
        Ok(class)
    }
}

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "pods")
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(pod) = typed_mut::<Pod>(object) else {
            return Ok(());
        };
        let Some(class) = self.class(attributes, pod).await? else {
            return Ok(());
        };
        let refused = pod.spec.as_mut().and_then(|spec| apply(spec, &class).err());
        match refused {
            Some(why) => Err(attributes.forbidden(Some(pod), why)),
            None => Ok(()),
        }
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(pod) = typed::<Pod>(object) else {
            return Ok(());
        };
        let class = self.class(attributes, pod).await?;
        let overhead = pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref());
        let defined = class.as_ref().and_then(|class| class.overhead.as_ref());
        let why = match defined {
            Some(defined) if same(defined.pod_fixed.as_ref(), overhead) => return Ok(()),
            None if overhead.is_none_or(BTreeMap::is_empty) => return Ok(()),
            Some(_) => OVERHEAD_DIFFERS,
            None => {
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            }
        };
        Err(attributes.forbidden(object, why))
    }
}

type Quantities = BTreeMap<String, Quantity>;

fn same(one: Option<&Quantities>, other: Option<&Quantities>) -> bool {
    let amounts = |of: Option<&Quantities>| -> Vec<(String, Option<Amount>)> {
        let of = of.into_iter().flatten();
        of.map(|(name, quantity)| (name.clone(), Amount::parse(&quantity.0).ok()))
            .collect()
    };
    amounts(one) == amounts(other)
}

fn apply(spec: &mut PodSpec, class: &Class) -> Result<(), String> {
    if let Some(overhead) = &class.overhead {
        let given = spec.overhead.as_ref().filter(|given| !given.is_empty());
        if given.is_some() && !same(overhead.pod_fixed.as_ref(), given) {
            return Err(OVERHEAD_DIFFERS.to_owned());
        }
        spec.overhead.clone_from(&overhead.pod_fixed);
    }
    if let Some(scheduling) = &class.scheduling {
        place(spec, scheduling)?;
    }
    Ok(())
}

fn place(spec: &mut PodSpec, scheduling: &Scheduling) -> Result<(), String> {
    if let Some(wanted) = &scheduling.node_selector {
        let selector = spec.node_selector.get_or_insert_default();
        for (key, value) in wanted {
            let given = selector.insert(key.clone(), value.clone());
            if let Some(given) = given.filter(|given| given != value) {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
                ));
            }
        }
    }
    let tolerations = scheduling.tolerations.as_deref().unwrap_or_default();
    if !tolerations.is_empty() {
        let given = spec.tolerations.take().unwrap_or_default();
        spec.tolerations = Some(merge(given, tolerations));
    }
    Ok(())
}

/// Both lists without those that another one of them covers.
fn merge(given: Vec<Toleration>, more: &[Toleration]) -> Vec<Toleration> {
    let all: Vec<Toleration> = given.into_iter().chain(more.iter().cloned()).collect();
    let mut merged: Vec<Toleration> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let by_kept = merged.iter().any(|kept| covers(kept, toleration));
        let by_later = all[index + 1..]
            .iter()
            .any(|later| later != toleration && covers(later, toleration));
        if !by_kept && !by_later {
            merged.push(toleration.clone());
        }
    }
    merged
}

/// Whether everything that `narrow` tolerates, `wide` does too.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    if wide == narrow {
        return true;
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, effect) = (text(&wide.key), text(&wide.effect));
    let exists = |toleration: &Toleration| toleration.operator.as_deref() == Some("Exists");
    if !key.is_empty() && key != text(&narrow.key) {
        return false;
    }
    if !effect.is_empty() && effect != text(&narrow.effect) {
        return false;
    }
    if effect == "NoExecute"
        && let Some(seconds) = wide.toleration_seconds
    {
        match narrow.toleration_seconds {
            Some(narrow) if seconds >= narrow => {}
            _ => return false,
        }
    }
    exists(wide) || (!exists(narrow) && text(&wide.value) == text(&narrow.value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_is_applied_to_the_pod_or_refuses_it() {
        let class: Class = serde_json::from_value(json!({
            "metadata": {"name": "vm"}, "handler": "vm",
            "overhead": {"podFixed": {"cpu": "1"}},
            "scheduling": {
                "nodeSelector": {"vm": "yes"},
                "tolerations": [{"key": "vm", "operator": "Exists"}],
            },
        }))
        .unwrap();
        let spec = |json: serde_json::Value| -> PodSpec { serde_json::from_value(json).unwrap() };
        let mut plain = spec(json!({
            "containers": [], "nodeSelector": {"a": "b"},
            "tolerations": [{"key": "vm", "operator": "Equal", "value": "x"}],
        }));
        apply(&mut plain, &class).unwrap();
        assert_eq!(plain.overhead.unwrap()["cpu"].0, "1");
        assert_eq!(plain.node_selector.unwrap().len(), 2);
        let tolerations = plain.tolerations.unwrap();
        assert_eq!(tolerations.len(), 1, "the wider covers the narrower");
        let mut same = spec(json!({"containers": [], "overhead": {"cpu": "1000m"}}));
        assert_eq!(apply(&mut same, &class), Ok(()));
        let mut other = spec(json!({"containers": [], "overhead": {"cpu": "2"}}));
        assert_eq!(apply(&mut other, &class), Err(OVERHEAD_DIFFERS.to_owned()));
        let mut conflict = spec(json!({"containers": [], "nodeSelector": {"vm": "no"}}));
        assert_eq!(
            apply(&mut conflict, &class),
            Err("conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no".to_owned())
        );
    }
}
