//! `LimitRanger`: the defaults and bounds that a namespace has for the resources of pods and
//! claims.

use async_trait::async_trait;
use coracle_api::{
    Object,
    core::pod::resources::{Amounts, Part, aggregate, is_pod_level},
    quantity::{Amount, ResourceList},
};
use k8s_openapi::{
    api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{Admission, Attributes, Operation, typed, typed_mut};
use crate::{Lister, Registry, Shared, error::ApiError};

/// Tells which defaults a pod was given.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The plugin.
pub struct LimitRanger {
    registry: Registry,
    ranges: Lister<LimitRange>,
}

impl LimitRanger {
    pub fn new(registry: Registry) -> Self {
        LimitRanger {
            ranges: registry.lister(),
            registry,
        }
    }

    /// The ranges of the request's namespace. That there is none is made sure of.
    async fn ranges(
        &self,
        attributes: &Attributes<'_>,
        old: Option<&dyn Object>,
    ) -> Result<Vec<Shared<LimitRange>>, ApiError> {
        if old.is_some_and(|old| old.meta().deletion_timestamp.is_some()) {
            return Ok(Vec::new());
        }
        let ranges = self.ranges.list(attributes.namespace);
        if !ranges.is_empty() {
            return Ok(ranges);
        }
        self.registry.fresh().await?;
        Ok(self.ranges.list(attributes.namespace))
    }
}

fn items(range: &LimitRange) -> impl Iterator<Item = &LimitRangeItem> {
    range.spec.iter().flat_map(|spec| &spec.limits)
}

fn is_resize(attributes: &Attributes<'_>) -> bool {
    attributes.subresource == "resize"
        && attributes.kind.group.is_empty()
        && attributes.kind.resource == "pods"
}

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => {
                attributes.is("", "pods") || attributes.is("", "persistentvolumeclaims")
            }
            // A pod's resources only change by way of a subresource.
            Operation::Update => {
                attributes.is("", "persistentvolumeclaims") || is_resize(attributes)
            }
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(pod) = typed_mut::<Pod>(object) else {
            return Ok(());
        };
        for range in self.ranges(attributes, old).await? {
            set_defaults(pod, &range);
        }
        Ok(())
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        for range in self.ranges(attributes, old).await? {
            let mut broken = Vec::new();
            if let Some(pod) = typed::<Pod>(object) {
                check_pod(pod, &range, &mut broken);
            } else if let Some(claim) = typed::<PersistentVolumeClaim>(object) {
                check_claim(claim, &range, &mut broken);
            }
            let why = match broken.as_slice() {
                [] => continue,
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            };
            return Err(attributes.forbidden(object, why));
        }
        Ok(())
    }
}

/// Gives containers what they do not say and the range has a default for.
fn set_defaults(pod: &mut Pod, range: &LimitRange) {
    let (mut requests, mut limits) = (ResourceList::new(), ResourceList::new());
    for item in items(range).filter(|item| item.type_ == "Container") {
        requests.extend(item.default_request.clone().unwrap_or_default());
        limits.extend(item.default.clone().unwrap_or_default());
    }
    let Some(spec) = &mut pod.spec else {
        return;
    };
    let mut set = Vec::new();
    for container in &mut spec.containers {
        merge(container, "container", &requests, &limits, &mut set);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        merge(container, "init container", &requests, &limits, &mut set);
    }
    if !set.is_empty() {
        let text = format!("LimitRanger plugin set: {}", set.join("; "));
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.to_owned(), text);
    }
}

fn merge(
    container: &mut Container,
    what: &str,
    requests: &ResourceList,
    limits: &ResourceList,
    set: &mut Vec<String>,
) {
    let name = &container.name;
    let mut resources = container.resources.take().unwrap_or_default();
    for (part, list, defaults) in [
        ("request", &mut resources.requests, requests),
        ("limit", &mut resources.limits, limits),
    ] {
        let given = list.clone().unwrap_or_default();
        let missing = defaults.iter().filter(|(of, _)| !given.contains_key(*of));
        let mut names = Vec::new();
        for (of, quantity) in missing {
            let list = list.get_or_insert_default();
            list.insert(of.clone(), quantity.clone());
            names.push(of.as_str());
        }
        if !names.is_empty() {
            set.push(format!("{} {part} for {what} {name}", names.join(", ")));
        }
    }
    container.resources = Some(resources);
}

/// What is compared with the bounds of a range.
struct Asked {
    kind: &'static str,
    requests: ResourceList,
    limits: ResourceList,
}

impl Asked {
    fn by_container(container: &Container) -> Self {
        let resources = container.resources.clone().unwrap_or_default();
        Asked {
            kind: "Container",
            requests: resources.requests.unwrap_or_default(),
            limits: resources.limits.unwrap_or_default(),
        }
    }

    fn by_pod(spec: &PodSpec) -> Self {
        Asked {
            kind: "Pod",
            requests: sum(spec, Part::Requests),
            limits: sum(spec, Part::Limits),
        }
    }

    fn minimum(&self, name: &str, bound: &Quantity) -> Result<(), String> {
        let what = format!("minimum {name} usage per {} is {}", self.kind, bound.0);
        let Some(request) = self.requests.get(name) else {
            return Err(format!("{what}.  No request is specified"));
        };
        if Amount::from(request) < Amount::from(bound) {
            return Err(format!("{what}, but request is {}", request.0));
        }
        match self.limits.get(name) {
            Some(limit) if Amount::from(limit) < Amount::from(bound) => {
                Err(format!("{what}, but limit is {}", limit.0))
            }
            _ => Ok(()),
        }
    }

    fn maximum(&self, name: &str, bound: &Quantity) -> Result<(), String> {
        let what = format!("maximum {name} usage per {} is {}", self.kind, bound.0);
        let Some(limit) = self.limits.get(name) else {
            return Err(format!("{what}.  No limit is specified"));
        };
        if Amount::from(limit) > Amount::from(bound) {
            return Err(format!("{what}, but limit is {}", limit.0));
        }
        match self.requests.get(name) {
            Some(request) if Amount::from(request) > Amount::from(bound) => {
                Err(format!("{what}, but request is {}", request.0))
            }
            _ => Ok(()),
        }
    }

    fn ratio(&self, name: &str, bound: &Quantity) -> Result<(), String> {
        let kind = self.kind;
        let what = format!(
            "{name} max limit to request ratio per {kind} is {}",
            bound.0
        );
        let there = |list: &ResourceList| {
            let amount = list.get(name).map(Amount::from);
            amount.filter(|amount| !amount.is_zero())
        };
        let Some(request) = there(&self.requests) else {
            return Err(format!(
                "{what}, but no request is specified or request is 0"
            ));
        };
        let Some(limit) = there(&self.limits) else {
            return Err(format!("{what}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.as_f64() / request.as_f64();
        if ratio > Amount::from(bound).as_f64() {
            return Err(format!("{what}, but provided ratio is {ratio:.6}"));
        }
        Ok(())
    }

    fn check(&self, item: &LimitRangeItem, broken: &mut Vec<String>) {
        let bounds = |list: &Option<ResourceList>| list.clone().unwrap_or_default();
        let minimum = bounds(&item.min);
        let minimum = minimum.iter().map(|(name, of)| self.minimum(name, of));
        let maximum = bounds(&item.max);
        let maximum = maximum.iter().map(|(name, of)| self.maximum(name, of));
        let ratio = bounds(&item.max_limit_request_ratio);
        let ratio = ratio.iter().map(|(name, of)| self.ratio(name, of));
        for error in minimum.chain(maximum).chain(ratio).filter_map(Result::err) {
            if !broken.contains(&error) {
                broken.push(error);
            }
        }
    }
}

/// What the pod as a whole says, or else its containers together.
fn sum(spec: &PodSpec, part: Part) -> ResourceList {
    let amounts: Amounts = aggregate(spec, part);
    let mut list: ResourceList = amounts
        .into_iter()
        .map(|(name, amount)| (name, amount.to_quantity()))
        .collect();
    for (name, quantity) in part.of(spec.resources.as_ref()).into_iter().flatten() {
        if is_pod_level(name) {
            list.insert(name.clone(), quantity.clone());
        }
    }
    list
}

fn check_pod(pod: &Pod, range: &LimitRange, broken: &mut Vec<String>) {
    let Some(spec) = &pod.spec else {
        return;
    };
    for item in items(range) {
        match item.type_.as_str() {
            "Container" => {
                let init = spec.init_containers.iter().flatten();
                for container in spec.containers.iter().chain(init) {
                    Asked::by_container(container).check(item, broken);
                }
            }
            "Pod" => Asked::by_pod(spec).check(item, broken),
            _ => {}
        }
    }
}

/// Only the request of a claim counts.
fn check_claim(claim: &PersistentVolumeClaim, range: &LimitRange, broken: &mut Vec<String>) {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|it| it.requests.clone());
    let asked = Asked {
        kind: "PersistentVolumeClaim",
        requests: requests.unwrap_or_default(),
        limits: ResourceList::new(),
    };
    for item in items(range).filter(|item| item.type_ == asked.kind) {
        let minimum = item.min.iter().flatten();
        let minimum = minimum.map(|(name, bound)| asked.minimum(name, bound));
        let maximum = item.max.iter().flatten().map(|(name, bound)| {
            let what = format!("maximum {name} usage per {} is {}", asked.kind, bound.0);
            match asked.requests.get(name) {
                None => Err(format!("{what}.  No request is specified")),
                Some(request) if Amount::from(request) > Amount::from(bound) => {
                    Err(format!("{what}, but request is {}", request.0))
                }
                Some(_) => Ok(()),
            }
        });
        broken.extend(minimum.chain(maximum).filter_map(Result::err));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn range(item: &Value) -> LimitRange {
        let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [item]}});
        serde_json::from_value(range).expect("a limit range")
    }

    fn pod(resources: &Value) -> Pod {
        let spec = json!({"containers": [{"name": "c", "resources": resources}]});
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let range = range(&json!({
            "type": "Container",
            "default": {"cpu": "500m", "memory": "500Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "200Mi"},
        }));
        let mut pod = pod(&json!({"requests": {"cpu": "300m"}}));
        set_defaults(&mut pod, &range);
        assert_eq!(
            serde_json::to_value(&pod.spec.as_ref().expect("a spec").containers[0].resources)
                .expect("JSON"),
            json!({
                "requests": {"cpu": "300m", "memory": "200Mi"},
                "limits": {"cpu": "500m", "memory": "500Mi"},
            })
        );
        assert_eq!(
            pod.metadata.annotations.expect("annotations")[ANNOTATION],
            "LimitRanger plugin set: memory request for container c; cpu, memory limit for \
             container c"
        );
    }

    #[test]
    fn bounds_are_kept_in_upstreams_words() {
        let limits = |limits: Value| json!({"requests": limits, "limits": limits});
        let cases = [
            (
                json!({"type": "Container", "min": {"cpu": "50m"}}),
                json!({}),
                "minimum cpu usage per Container is 50m.  No request is specified",
            ),
            (
                json!({"type": "Container", "min": {"cpu": "50m"}}),
                limits(json!({"cpu": "10m"})),
                "minimum cpu usage per Container is 50m, but request is 10m",
            ),
            (
                json!({"type": "Pod", "max": {"memory": "1Gi"}}),
                limits(json!({"memory": "2Gi"})),
                "maximum memory usage per Pod is 1Gi, but limit is 2Gi",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "1.5"}}),
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}),
                "cpu max limit to request ratio per Container is 1.5, but provided ratio is \
                 2.000000",
            ),
        ];
        for (item, resources, expected) in cases {
            let mut broken = Vec::new();
            check_pod(&pod(&resources), &range(&item), &mut broken);
            assert_eq!(broken, [expected]);
        }
    }
}
