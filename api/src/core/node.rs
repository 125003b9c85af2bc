//! Node.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use serde_json::Value;

use super::pod::{
    resources::round_list,
    validation::{resources::quantity_value, scheduling::taint_effect},
};
use crate::{
    check,
    field::{BadValue, ErrorList, Path, value_of},
    formats, names,
    quantity::ResourceList,
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    zero::{list, text},
};

const TAINTS_ANNOTATION: &str = "scheduler.alpha.kubernetes.io/taints";

impl Behaviour for Node {
    const SHAPE: Shape<Self> = shape!(status);
    /// Kubelets register their nodes as they are.
    const CREATED_WITH_STATUS: bool = true;

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        sync_pod_cidrs(spec);
        let status = self.status.get_or_insert_default();
        round_list(&mut status.capacity);
        round_list(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    /// Configuration from the API server is a feature of the past.
    fn prepare_for_create(&mut self) {
        if let Some(spec) = &mut self.spec {
            spec.config_source = None;
        }
        if let Some(status) = &mut self.status {
            status.config = None;
        }
    }

    fn prepare_for_update(&mut self, old: &Self) {
        let had_source = old
            .spec
            .as_ref()
            .is_some_and(|spec| spec.config_source.is_some());
        if let Some(spec) = self.spec.as_mut().filter(|_| !had_source) {
            spec.config_source = None;
        }
    }

    fn prepare_for_subresource(&mut self, old: &Self, subresource: Subresource) {
        let had_config = old
            .status
            .as_ref()
            .is_some_and(|status| status.config.is_some());
        if let (Subresource::Status, false, Some(status)) =
            (subresource, had_config, &mut self.status)
        {
            status.config = None;
        }
    }

    fn validate(&self) -> ErrorList {
        validate_node(self)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = validate_node(self);
        validate_change(self, old, &mut errors);
        errors
    }

    fn validate_subresource(&self, old: &Self, subresource: Subresource) -> ErrorList {
        let mut errors = ErrorList::new();
        if subresource == Subresource::Status {
            validate_change(self, old, &mut errors);
        }
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let Some(spec) = &self.spec else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        if spec.config_source.is_some() {
            warnings.push("spec.configSource: the feature is removed".to_owned());
        }
        if spec.external_id.is_some() {
            warnings.push(
                "spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned(),
            );
        }
        warnings
    }

    const SELECTABLE_FIELDS: &'static [&'static str] = &["spec.unschedulable"];

    fn selectable_fields(&self) -> Vec<String> {
        let spec = self.spec.as_ref();
        let unschedulable = spec.is_some_and(|spec| spec.unschedulable == Some(true));
        vec![unschedulable.to_string()]
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

/// `podCIDR` is the first of `podCIDRs`; when they differ, it is right.
fn sync_pod_cidrs(spec: &mut NodeSpec) {
    let first = list(&spec.pod_cidrs).first();
    match (&spec.pod_cidr, first) {
        (Some(cidr), first) if !cidr.is_empty() && first != Some(cidr) => {
            spec.pod_cidrs = Some(vec![cidr.clone()]);
        }
        (_, Some(first)) => spec.pod_cidr = Some(first.clone()),
        _ => {}
    }
}

fn validate_node(node: &Node) -> ErrorList {
    let mut errors = ErrorList::new();
    let (no_spec, no_status) = (NodeSpec::default(), NodeStatus::default());
    let spec = node.spec.as_ref().unwrap_or(&no_spec);
    let status = node.status.as_ref().unwrap_or(&no_status);
    annotations(node, &mut errors);
    taints(
        list(&spec.taints),
        &Path::new("metadata.taints"),
        &mut errors,
    );
    resources(status, &mut errors);
    let swap = status
        .node_info
        .as_ref()
        .and_then(|info| info.swap.as_ref());
    if let Some(capacity) = swap.and_then(|swap| swap.capacity) {
        let path = Path::new("metadata.nodeSwapStatus.capacity");
        check::positive(capacity, &path, &mut errors);
    }
    declared_features(list(&status.declared_features), &mut errors);
    pod_cidrs(
        list(&spec.pod_cidrs),
        &Path::new("spec.podCIDRs"),
        &mut errors,
    );
    errors
}

fn annotations(node: &Node, errors: &mut ErrorList) {
    let annotations = node.metadata.annotations.as_ref();
    let path = Path::new("metadata.annotations");
    let value = annotations.and_then(|annotations| annotations.get(TAINTS_ANNOTATION));
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return;
    };
    match serde_json::from_str::<Vec<Taint>>(value) {
        Ok(values) => taints(&values, &path.child(TAINTS_ANNOTATION), errors),
        Err(error) => errors.push(path.invalid(TAINTS_ANNOTATION, error.to_string())),
    }
}

fn taints(taints: &[Taint], path: &Path, errors: &mut ErrorList) {
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        check::label_name(&taint.key, &path.child("key"), errors);
        let messages = names::label_value(text(&taint.value));
        if !messages.is_empty() {
            let value_path = path.child("value");
            errors.push(value_path.invalid(text(&taint.value), messages.join(";")));
        }
        let effect_path = path.child("effect");
        if taint.effect.is_empty() {
            errors.push(effect_path.required(""));
        } else {
            taint_effect(&taint.effect, &effect_path, errors);
        }
        let is_same = |other: &Taint| other.key == taint.key && other.effect == taint.effect;
        if taints[..index].iter().any(is_same) {
            let error = path.duplicate(BadValue::Struct(vec![
                ("Key", taint.key.as_str().into()),
                ("Value", text(&taint.value).into()),
                ("Effect", taint.effect.as_str().into()),
                ("TimeAdded", value_of(&taint.time_added).into()),
            ]));
            errors.push(error.with_detail("taints must be unique by key and effect pair"));
        }
    }
}

fn resources(status: &NodeStatus, errors: &mut ErrorList) {
    let check = |field: &str, list: Option<&ResourceList>, errors: &mut ErrorList| {
        for (name, quantity) in list.into_iter().flatten() {
            let path = Path::new("status").child(field).child(name);
            quantity_value(name, quantity, &path, errors);
        }
    };
    check("capacity", status.capacity.as_ref(), errors);
    check("allocatable", status.allocatable.as_ref(), errors);
}

fn declared_features(features: &[String], errors: &mut ErrorList) {
    let path = Path::new("status.declaredFeatures");
    for (index, feature) in features.iter().enumerate() {
        if feature.len() > names::SUBDOMAIN_MAX_LENGTH {
            errors.push(path.index(index).invalid(
                feature.as_str(),
                format!(
                    "invalid feature name {feature:?}: must be no more than {} characters",
                    names::SUBDOMAIN_MAX_LENGTH
                ),
            ));
        } else if !is_feature_name(feature) {
            errors.push(path.index(index).invalid(
                feature.as_str(),
                format!(
                    "invalid feature name {feature:?}: must start with an UpperCamelCase segment, \
                     with subsequent segments separated by '/' (e.g., MyFeature or \
                     MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
                ),
            ));
        }
        if let Some(next) = features.get(index + 1) {
            let path = path.index(index + 1);
            if feature == next {
                errors.push(path.duplicate(next.as_str()));
            } else if feature > next {
                errors.push(path.invalid(next.as_str(), "list must be sorted alphabetically"));
            }
        }
    }
}

fn is_feature_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.split('/').all(|segment| {
            segment.starts_with(|c: char| c.is_ascii_alphabetic())
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

fn pod_cidrs(cidrs: &[String], path: &Path, errors: &mut ErrorList) {
    for (index, cidr) in cidrs.iter().enumerate() {
        check::each(
            &path.index(index),
            cidr.as_str(),
            formats::cidr(cidr),
            errors,
        );
    }
    if cidrs.len() < 2 {
        return;
    }
    if let Some(index) = cidrs
        .iter()
        .position(|cidr| formats::split_cidr(cidr).is_none())
    {
        let cidr = &cidrs[index];
        errors.push(path.internal(format!(
            "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{index}]: \
             <nil> (invalid CIDR address: {cidr})"
        )));
    }
    let families: Vec<bool> = cidrs
        .iter()
        .filter_map(|cidr| formats::split_cidr(cidr))
        .map(|(address, _)| address.is_ipv4())
        .collect();
    let is_dual = families.contains(&true) && families.contains(&false);
    if !is_dual || cidrs.len() > 2 {
        errors.push(path.invalid(
            value_of(&cidrs),
            "may specify no more than one CIDR for each IP family",
        ));
    }
}

/// What is wrong with a change of the Node or of its status.
fn validate_change(new: &Node, old: &Node, errors: &mut ErrorList) {
    let (no_spec, no_status) = (NodeSpec::default(), NodeStatus::default());
    let spec = new.spec.as_ref().unwrap_or(&no_spec);
    let old_spec = old.spec.as_ref().unwrap_or(&no_spec);
    let status = new.status.as_ref().unwrap_or(&no_status);
    annotations(new, errors);
    resources(status, errors);
    declared_features(list(&status.declared_features), errors);
    let addresses = list(&status.addresses);
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            let path = Path::new("status.addresses").index(index);
            errors.push(path.duplicate(BadValue::Struct(vec![
                ("Type", address.type_.as_str().into()),
                ("Address", address.address.as_str().into()),
            ])));
        }
    }
    let (cidrs, old_cidrs) = (list(&spec.pod_cidrs), list(&old_spec.pod_cidrs));
    let changed = if cidrs.len() == old_cidrs.len() {
        cidrs
            .iter()
            .zip(old_cidrs)
            .filter(|(new, old)| new != old)
            .count()
    } else {
        usize::from(!old_cidrs.is_empty())
    };
    for _ in 0..changed {
        errors.push(
            Path::new("spec.podCIDRs")
                .forbidden("node updates may not change podCIDR except from \"\" to valid"),
        );
    }
    let old_provider = text(&old_spec.provider_id);
    if !old_provider.is_empty() && old_provider != text(&spec.provider_id) {
        errors.push(
            Path::new("spec.providerID")
                .forbidden("node updates may not change providerID except from \"\" to valid"),
        );
    }
    taints(list(&spec.taints), &Path::new("metadata.taints"), errors);
    if text(&spec.external_id) != text(&old_spec.external_id) {
        errors.push(Path::new("spec.externalID").forbidden("may not be updated"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        crate::testing::run::<Node>(include_str!("../../testdata/node.yaml"));
    }
}
