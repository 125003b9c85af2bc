//! NetworkPolicy.

use jiff::Timestamp;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use serde_json::Value;

use crate::{
    check,
    decode::empty,
    field::{ErrorList, Path, value_of},
    formats, selector, shape,
    strategy::{Behaviour, Column, Shape},
    table::{AGE, NAME, age, column, name},
    zero::{list, list_mut},
};

impl Behaviour for NetworkPolicy {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_with(empty);
        let ingress = list_mut(&mut spec.ingress).iter_mut();
        let egress = list_mut(&mut spec.egress).iter_mut();
        let ports = ingress
            .map(|rule| &mut rule.ports)
            .chain(egress.map(|rule| &mut rule.ports));
        for port in ports.flat_map(list_mut) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        if list(&spec.policy_types).is_empty() {
            let mut types = vec!["Ingress".to_owned()];
            if !list(&spec.egress).is_empty() {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    fn validate(&self) -> ErrorList {
        validate(self, &[])
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let known: Vec<&str> = ranges(old).map(|(_, range)| range).collect();
        validate(self, &known)
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        ranges(self)
            .flat_map(|(path, range)| formats::cidr_warnings(&path, range))
            .collect()
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Pod-Selector",
                "string",
                "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied to any pods selected by this field. An empty selector matches all pods in the policy's namespace. Multiple network policies can select the same set of pods. In this case, the ingress rules for each are combined additively. This field is optional. If it is not specified, it defaults to an empty selector.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let selector = self
            .spec
            .as_ref()
            .and_then(|spec| spec.pod_selector.as_ref());
        let everything = LabelSelector::default();
        vec![
            name(&self.metadata),
            Value::from(selector::format_object(Some(
                selector.unwrap_or(&everything),
            ))),
            age(&self.metadata, now),
        ]
    }
}

/// The ports and the peers of each rule.
fn rules(
    spec: &NetworkPolicySpec,
) -> impl Iterator<
    Item = (
        Path,
        &[NetworkPolicyPort],
        &'static str,
        &[NetworkPolicyPeer],
    ),
> {
    let spec_path = Path::new("spec");
    let (ingress_path, egress_path) = (spec_path.child("ingress"), spec_path.child("egress"));
    let ingress = list(&spec.ingress)
        .iter()
        .enumerate()
        .map(move |(index, rule)| {
            let path = ingress_path.index(index);
            (path, list(&rule.ports), "from", list(&rule.from))
        });
    let egress = list(&spec.egress)
        .iter()
        .enumerate()
        .map(move |(index, rule)| {
            let path = egress_path.index(index);
            (path, list(&rule.ports), "to", list(&rule.to))
        });
    ingress.chain(egress)
}

/// All address ranges, and where each stands.
fn ranges(policy: &NetworkPolicy) -> impl Iterator<Item = (Path, &str)> {
    let blocks = policy
        .spec
        .iter()
        .flat_map(rules)
        .flat_map(|(path, _, name, peers)| {
            let blocks = peers.iter().enumerate().filter_map(move |(index, peer)| {
                let path = path.child(name).index(index).child("ipBlock");
                Some((path, peer.ip_block.as_ref()?))
            });
            blocks.collect::<Vec<_>>()
        });
    blocks.flat_map(|(path, block)| {
        let except = list(&block.except).iter().enumerate();
        let except: Vec<_> = except
            .map(|(index, range)| (path.child("except").index(index), range.as_str()))
            .collect();
        std::iter::once((path.child("cidr"), block.cidr.as_str())).chain(except)
    })
}

/// `known`: ranges that were there before and stay allowed.
fn validate(policy: &NetworkPolicy, known: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(spec) = &policy.spec else {
        return errors;
    };
    let path = Path::new("spec");
    check::label_selector(
        spec.pod_selector.as_ref(),
        &path.child("podSelector"),
        &mut errors,
    );
    for (path, ports, name, peers) in rules(spec) {
        for (index, item) in ports.iter().enumerate() {
            port(item, &path.child("ports").index(index), &mut errors);
        }
        for (index, item) in peers.iter().enumerate() {
            peer(item, known, &path.child(name).index(index), &mut errors);
        }
    }
    const TYPES: &[&str] = &["Ingress", "Egress"];
    let (types, types_path) = (list(&spec.policy_types), path.child("policyTypes"));
    if types.len() > TYPES.len() {
        errors.push(types_path.invalid(
            value_of(&types),
            "may not specify more than two policyTypes",
        ));
        return errors;
    }
    for (index, of) in types.iter().enumerate() {
        check::one_of(of, TYPES, &types_path.index(index), &mut errors);
    }
    errors
}

fn port(port: &NetworkPolicyPort, path: &Path, errors: &mut ErrorList) {
    if let Some(protocol) = &port.protocol {
        check::one_of(
            protocol,
            &["TCP", "UDP", "SCTP"],
            &path.child("protocol"),
            errors,
        );
    }
    let end_path = path.child("endPort");
    let refused = match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), end) => {
            check::each(
                &path.child("port"),
                *number,
                formats::port_number(*number),
                errors,
            );
            if let Some(end) = end {
                if end < *number {
                    let message = "must be greater than or equal to `port`";
                    errors.push(end_path.invalid(*number, message));
                }
                check::each(&end_path, end, formats::port_number(end), errors);
            }
            return;
        }
        (Some(IntOrString::String(_)), _) => "may not be specified when `port` is non-numeric",
        (None, _) => "may not be specified when `port` is not specified",
    };
    if let Some(end) = port.end_port {
        errors.push(end_path.invalid(end, refused));
    }
    if let Some(IntOrString::String(name)) = &port.port {
        check::each(
            &path.child("port"),
            name.as_str(),
            formats::port_name(name),
            errors,
        );
    }
}

fn peer(peer: &NetworkPolicyPeer, known: &[&str], path: &Path, errors: &mut ErrorList) {
    let selectors = [
        ("podSelector", &peer.pod_selector),
        ("namespaceSelector", &peer.namespace_selector),
    ];
    for (name, selector) in &selectors {
        check::label_selector(selector.as_ref(), &path.child(name), errors);
    }
    let has_selector = selectors.iter().any(|(_, selector)| selector.is_some());
    if let Some(block) = &peer.ip_block {
        ip_block(block, known, &path.child("ipBlock"), errors);
        if has_selector {
            errors.push(path.forbidden("may not specify both ipBlock and another peer"));
        }
    } else if !has_selector {
        errors.push(path.required("must specify a peer"));
    }
}

fn ip_block(block: &IPBlock, known: &[&str], path: &Path, errors: &mut ErrorList) {
    let cidr_path = path.child("cidr");
    if block.cidr.is_empty() {
        errors.push(cidr_path.required(""));
        return;
    }
    let check = |path: &Path, range: &str, errors: &mut ErrorList| {
        if !known.contains(&range) {
            check::each(path, range, formats::cidr(range), errors);
        }
        let (address, length) = formats::split_cidr(range)?;
        Some((formats::network_address(address, length), length))
    };
    let Some((network, length)) = check(&cidr_path, &block.cidr, errors) else {
        return;
    };
    for (index, range) in list(&block.except).iter().enumerate() {
        let path = path.child("except").index(index);
        let Some((excepted, excepted_length)) = check(&path, range, errors) else {
            continue;
        };
        let is_inside = network.is_ipv4() == excepted.is_ipv4()
            && formats::network_address(excepted, length.min(excepted_length)) == network;
        if !is_inside || length >= excepted_length {
            errors.push(path.invalid(range.as_str(), "must be a strict subset of `cidr`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_policies() {
        crate::testing::run::<NetworkPolicy>(include_str!("../../testdata/network_policy.yaml"));
    }
}
