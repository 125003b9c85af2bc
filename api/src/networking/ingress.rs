//! Ingress.

mod validation;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{Ingress, IngressRule};
use serde_json::Value;

use crate::{
    field::ErrorList,
    formats, shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, age, column, name},
    zero::{list, text},
};

impl Behaviour for Ingress {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn validate(&self) -> ErrorList {
        validation::create(self)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        validation::update(self, old)
    }

    fn validate_subresource(&self, old: &Self, _subresource: Subresource) -> ErrorList {
        validation::status(self, old)
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let annotations = self.metadata.annotations.as_ref();
        let is_set = annotations.is_some_and(|known| known.contains_key(validation::CLASS));
        match old {
            None if is_set => vec![format!(
                "annotation {:?} is deprecated, please use 'spec.ingressClassName' instead",
                validation::CLASS
            )],
            _ => Vec::new(),
        }
    }

    fn status_warnings(&self) -> Vec<String> {
        let balancer = self.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let points = balancer.map_or(&[][..], |balancer| list(&balancer.ingress));
        formats::load_balancer_warnings(points.iter().map(|point| point.ip.as_deref()))
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Class",
                "string",
                "The name of the IngressClass resource that should be used for additional configuration",
            ),
            column(
                "Hosts",
                "string",
                "Hosts that incoming requests are matched against before the ingress rule",
            ),
            column(
                "Address",
                "string",
                "Address is a list containing ingress points for the load-balancer",
            ),
            column("Ports", "string", "Ports of TLS configurations that open"),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let rules = spec
            .and_then(|spec| spec.rules.as_deref())
            .unwrap_or_default();
        let tls = spec
            .and_then(|spec| spec.tls.as_ref())
            .is_some_and(|tls| !tls.is_empty());
        vec![
            name(&self.metadata),
            Value::from(
                spec.and_then(|spec| spec.ingress_class_name.as_deref())
                    .unwrap_or("<none>"),
            ),
            Value::from(hosts(rules)),
            Value::from(addresses(self)),
            Value::from(if tls { "80, 443" } else { "80" }),
            age(&self.metadata, now),
        ]
    }
}

/// The hosts of the first rules that have one.
fn hosts(rules: &[IngressRule]) -> String {
    const MAX: usize = 3;
    let mut hosts = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == MAX;
        let host = text(&rule.host);
        if !more && !host.is_empty() {
            hosts.push(host);
        }
    }
    match hosts.join(",") {
        hosts if hosts.is_empty() => "*".to_owned(),
        hosts if more => format!("{hosts} + {} more...", rules.len() - MAX),
        hosts => hosts,
    }
}

fn addresses(ingress: &Ingress) -> String {
    let points = ingress
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_ref());
    let addresses: BTreeSet<&str> = points
        .into_iter()
        .flatten()
        .map(|point| match text(&point.ip) {
            "" => text(&point.hostname),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<Ingress>(include_str!("../../testdata/ingress.yaml"));
    }
}
