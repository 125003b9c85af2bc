//! `apps`: one file per kind, one line per kind in [`kinds`].

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;
pub(crate) mod workload;

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};

use crate::kinds::{Kind, NameRule};

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::namespaced::<ControllerRevision>("controllerrevision"),
        Kind::namespaced::<DaemonSet>("daemonset")
            .short_names(&["ds"])
            .categories(&["all"])
            .status(),
        Kind::namespaced::<Deployment>("deployment")
            .short_names(&["deploy"])
            .categories(&["all"])
            .scale()
            .status(),
        Kind::namespaced::<ReplicaSet>("replicaset")
            .short_names(&["rs"])
            .categories(&["all"])
            .scale()
            .status(),
        Kind::namespaced::<StatefulSet>("statefulset")
            .short_names(&["sts"])
            .name(NameRule::Label)
            .categories(&["all"])
            .scale()
            .status(),
    ]
}
