//! `PodResizeValidator`: no pod is resized to more than its node has.

use async_trait::async_trait;
use coracle_api::{Object, core::pod::resources::pod_requests, quantity::Amount};
use k8s_openapi::{
    api::core::v1::{Node, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::StatusCause,
};

use super::{Admission, Attributes, Operation, typed};
use crate::{Lister, Registry, error::ApiError};

const OS: &str = "kubernetes.io/os";

/// The plugin.
pub struct PodResizeValidator(Lister<Node>);

impl PodResizeValidator {
    pub fn new(registry: &Registry) -> Self {
        PodResizeValidator(registry.lister())
    }
}

#[async_trait]
impl Admission for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update
            && attributes.kind.group.is_empty()
            && attributes.kind.resource == "pods"
            && attributes.subresource == "resize"
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let pods = typed::<Pod>(object).zip(typed::<Pod>(old));
        let Some((spec, before)) = pods.map(|(new, old)| (new.spec.as_ref(), old.spec.as_ref()))
        else {
            return Ok(());
        };
        let Some(spec) = spec.filter(|_| spec != before) else {
            return Ok(());
        };
        let name = spec.node_name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Ok(());
        }
        let Some(node) = self.0.get("", name) else {
            return Err(attributes.forbidden(object, format!("node {name:?} not found")));
        };
        let refused = |why: String, reason: &str| {
            let mut error = attributes.forbidden(object, why);
            let details = error.0.details.get_or_insert_default();
            details.causes.get_or_insert_default().push(StatusCause {
                reason: Some(reason.to_owned()),
                ..StatusCause::default()
            });
            Err(error)
        };
        let labels = node.metadata.labels.as_ref();
        let system = labels.and_then(|labels| labels.get(OS));
        if let Some(system) = system.filter(|system| *system != "linux") {
            let why =
                format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return refused(why, "UnsupportedPlatform");
        }
        let lacking = lacking(spec, &node);
        if lacking.is_empty() {
            return Ok(());
        }
        let lacking = lacking.join("; ");
        let why = format!("node didn't have enough allocatable resources: {lacking}");
        refused(why, "NodeCapacity")
    }
}

/// Of what the pod asks for more than the node has.
fn lacking(spec: &PodSpec, node: &Node) -> Vec<String> {
    let requests = pod_requests(spec);
    let status = node.status.as_ref();
    let allocatable = status.and_then(|status| status.allocatable.as_ref());
    let has = |name: &str| {
        let quantity = allocatable.and_then(|allocatable| allocatable.get(name));
        quantity.map_or(Amount::from_integer(0), Amount::from)
    };
    let mut lacking = Vec::new();
    for (name, print) in [
        ("cpu", Amount::milli_value as fn(Amount) -> i64),
        ("memory", Amount::value),
    ] {
        let (asked, there) = (requests.get(name).copied(), has(name));
        if let Some(asked) = asked.filter(|asked| *asked > there) {
            lacking.push(format!(
                "{name}, requested: {}, allocatable: {}",
                print(asked),
                print(there)
            ));
        }
    }
    lacking
}
