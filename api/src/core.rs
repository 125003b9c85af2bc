//! The core group: one file per kind, one line per kind in [`kinds`].

mod binding;
mod component_status;
mod config_map;
mod endpoints;
pub(crate) mod event;
mod limit_range;
mod namespace;
mod node;
pub(crate) mod persistent_volume;
pub(crate) mod persistent_volume_claim;
pub mod pod;
mod pod_template;
mod replication_controller;
mod resource_quota;
mod secret;
pub mod service;
mod service_account;

use k8s_openapi::api::core::v1::{
    Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node,
    PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController,
    ResourceQuota, Secret, Service, ServiceAccount,
};

use crate::kinds::{Kind, NameRule, PROXY, READ_WRITE, STREAM, Verb};

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::virtual_namespaced::<Binding>("binding").name(NameRule::PathSegment),
        Kind::virtual_cluster::<ComponentStatus>("componentstatus")
            .short_names(&["cs"])
            .verbs(&[Verb::Get, Verb::List]),
        Kind::namespaced::<ConfigMap>("configmap").short_names(&["cm"]),
        Kind::namespaced::<Endpoints>("endpoints")
            .short_names(&["ep"])
            .key_prefix("services/endpoints")
            .create_on_update(),
        Kind::namespaced::<Event>("event")
            .short_names(&["ev"])
            .create_on_update(),
        Kind::namespaced::<LimitRange>("limitrange")
            .short_names(&["limits"])
            .create_on_update(),
        Kind::cluster::<Namespace>("namespace")
            .short_names(&["ns"])
            .name(NameRule::Label)
            .without_verb(Verb::DeleteCollection)
            .part("finalize", &[Verb::Update])
            .status(),
        Kind::cluster::<Node>("node")
            .short_names(&["no"])
            .key_prefix("minions")
            .connect("proxy", "NodeProxyOptions", PROXY)
            .status(),
        Kind::cluster::<PersistentVolume>("persistentvolume")
            .short_names(&["pv"])
            .status(),
        Kind::namespaced::<PersistentVolumeClaim>("persistentvolumeclaim")
            .short_names(&["pvc"])
            .status(),
        Kind::namespaced::<Pod>("pod")
            .short_names(&["po"])
            .categories(&["all"])
            .connect("attach", "PodAttachOptions", STREAM)
            .connect("binding", "Binding", &[Verb::Create])
            .part("ephemeralcontainers", READ_WRITE)
            .other_subresource("eviction", "policy/v1", "Eviction", &[Verb::Create])
            .connect("exec", "PodExecOptions", STREAM)
            .part("log", &[Verb::Get])
            .connect("portforward", "PodPortForwardOptions", STREAM)
            .connect("proxy", "PodProxyOptions", PROXY)
            .part("resize", READ_WRITE)
            .status(),
        Kind::namespaced::<PodTemplate>("podtemplate"),
        Kind::namespaced::<ReplicationController>("replicationcontroller")
            .short_names(&["rc"])
            .key_prefix("controllers")
            .categories(&["all"])
            .scale()
            .status(),
        Kind::namespaced::<ResourceQuota>("resourcequota")
            .short_names(&["quota"])
            .status(),
        Kind::namespaced::<Secret>("secret"),
        Kind::namespaced::<Service>("service")
            .short_names(&["svc"])
            .name(NameRule::Label)
            .key_prefix("services/specs")
            .categories(&["all"])
            .create_on_update()
            .connect("proxy", "ServiceProxyOptions", PROXY)
            .status(),
        Kind::namespaced::<ServiceAccount>("serviceaccount")
            .short_names(&["sa"])
            .other_subresource(
                "token",
                "authentication.k8s.io/v1",
                "TokenRequest",
                &[Verb::Create],
            ),
    ]
}
