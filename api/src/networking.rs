//! `networking.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod ingress;
mod ingress_class;
mod ip_address;
mod network_policy;
mod service_cidr;

use k8s_openapi::api::networking::v1::{
    IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR,
};

use crate::kinds::{Kind, NameRule};

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<IPAddress>("ipaddress")
            .short_names(&["ip"])
            .name(NameRule::IpAddress),
        Kind::namespaced::<Ingress>("ingress")
            .short_names(&["ing"])
            .key_prefix("ingress")
            .status(),
        Kind::cluster::<IngressClass>("ingressclass"),
        Kind::namespaced::<NetworkPolicy>("networkpolicy").short_names(&["netpol"]),
        Kind::cluster::<ServiceCIDR>("servicecidr").status(),
    ]
}
