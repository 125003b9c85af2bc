//! The controllers: each drives one part of the cluster towards what its objects ask for.
//!
//! Enter at [`TABLE`]: one line a controller. A controller is a pure decision over what the caches
//! show, with the reading and writing around it. It is level-triggered: an event only says which
//! object to look at. After its own writes a worker waits until the caches show them before it lets
//! go of the object, so a decision is never made on a cache that lacks them, and nothing has to be
//! remembered between two decisions. A process killed between two writes decides again from what is
//! stored.

mod autoscaler;
mod batch;
mod certificates;
mod changes;
mod cluster_roles;
mod conditions;
mod context;
mod cron_job;
mod daemon_set;
mod deployment;
mod device_taints;
mod discovery;
mod disruption;
mod endpoints;
mod error;
#[cfg(test)]
mod fakes;
mod garbage;
mod hash;
mod history;
mod job;
mod labels;
mod legacy_tokens;
pub mod local_path;
mod metrics;
mod namespace;
mod node;
mod node_fit;
mod objects;
mod owner;
mod percent;
mod pods;
mod replica_set;
mod resource_claim;
mod resource_quota;
mod service_account_tokens;
mod service_accounts;
mod service_cidrs;
mod stateful_set;
mod template;
mod token_cleaner;
mod ttl_after_finished;
mod volumes;
mod work;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use certificates::{Authority, AuthorityError, SigningAuthorities};
pub use context::{Autoscaling, Config, Context, TokenSigner};
pub use error::Error;
pub use metrics::{metrics, running};

/// One controller of the table.
#[derive(Clone, Copy)]
pub struct Controller {
    /// As upstream's controller manager names it, for example `deployment-controller`.
    pub name: &'static str,
    /// The service account in `kube-system` under whose identity upstream's bootstrap roles let it
    /// work, for example `deployment-controller`.
    pub account: &'static str,
    /// Runs until the token is cancelled; every task of its own has ended when this returns.
    pub run: fn(Context, CancellationToken) -> BoxFuture<'static, Result<(), Error>>,
}

/// Every controller.
pub const TABLE: &[Controller] = &[
    Controller {
        name: "deployment-controller",
        account: "deployment-controller",
        run: |context, shutdown| Box::pin(deployment::run(context, shutdown)),
    },
    Controller {
        name: "replicaset-controller",
        account: "replicaset-controller",
        run: |context, shutdown| Box::pin(replica_set::run(context, shutdown)),
    },
    Controller {
        name: "replicationcontroller-controller",
        account: "replication-controller",
        run: |context, shutdown| Box::pin(replica_set::run_replication(context, shutdown)),
    },
    Controller {
        name: "daemonset-controller",
        account: "daemon-set-controller",
        run: |context, shutdown| Box::pin(daemon_set::run(context, shutdown)),
    },
    Controller {
        name: "statefulset-controller",
        account: "statefulset-controller",
        run: |context, shutdown| Box::pin(stateful_set::run(context, shutdown)),
    },
    Controller {
        name: "job-controller",
        account: "job-controller",
        run: |context, shutdown| Box::pin(job::run(context, shutdown)),
    },
    Controller {
        name: "cronjob-controller",
        account: "cronjob-controller",
        run: |context, shutdown| Box::pin(cron_job::run(context, shutdown)),
    },
    Controller {
        name: "ttl-after-finished-controller",
        account: "ttl-after-finished-controller",
        run: |context, shutdown| Box::pin(ttl_after_finished::run(context, shutdown)),
    },
    Controller {
        name: "disruption-controller",
        account: "disruption-controller",
        run: |context, shutdown| Box::pin(disruption::run(context, shutdown)),
    },
    Controller {
        name: "resourcequota-controller",
        account: "resourcequota-controller",
        run: |context, shutdown| Box::pin(resource_quota::run(context, shutdown)),
    },
    Controller {
        name: "resourceclaim-controller",
        account: "resource-claim-controller",
        run: |context, shutdown| Box::pin(resource_claim::run(context, shutdown)),
    },
    Controller {
        name: "persistentvolume-binder-controller",
        account: "persistent-volume-binder",
        run: |context, shutdown| Box::pin(volumes::binder::run(context, shutdown)),
    },
    Controller {
        name: "persistentvolume-attach-detach-controller",
        account: "attachdetach-controller",
        run: |context, shutdown| Box::pin(volumes::attach::run(context, shutdown)),
    },
    Controller {
        name: "persistentvolume-expander-controller",
        account: "expand-controller",
        run: |context, shutdown| Box::pin(volumes::expand::run(context, shutdown)),
    },
    Controller {
        name: "persistentvolumeclaim-protection-controller",
        account: "pvc-protection-controller",
        run: |context, shutdown| Box::pin(volumes::protection::claims(context, shutdown)),
    },
    Controller {
        name: "persistentvolume-protection-controller",
        account: "pv-protection-controller",
        run: |context, shutdown| Box::pin(volumes::protection::volumes(context, shutdown)),
    },
    Controller {
        name: "volumeattributesclass-protection-controller",
        account: "volumeattributesclass-protection-controller",
        run: |context, shutdown| Box::pin(volumes::class_protection::run(context, shutdown)),
    },
    Controller {
        name: "ephemeral-volume-controller",
        account: "ephemeral-volume-controller",
        run: |context, shutdown| Box::pin(volumes::ephemeral::run(context, shutdown)),
    },
    Controller {
        name: "clusterrole-aggregation-controller",
        account: "clusterrole-aggregation-controller",
        run: |context, shutdown| Box::pin(cluster_roles::run(context, shutdown)),
    },
    Controller {
        name: "service-cidr-controller",
        account: "service-cidrs-controller",
        run: |context, shutdown| Box::pin(service_cidrs::run(context, shutdown)),
    },
    Controller {
        name: "certificatesigningrequest-approving-controller",
        account: "certificate-controller",
        run: |context, shutdown| Box::pin(certificates::approver::run(context, shutdown)),
    },
    Controller {
        name: "certificatesigningrequest-signing-controller",
        account: "certificate-controller",
        run: |context, shutdown| Box::pin(certificates::signer::run(context, shutdown)),
    },
    Controller {
        name: "certificatesigningrequest-cleaner-controller",
        account: "certificate-controller",
        run: |context, shutdown| Box::pin(certificates::cleaner::run(context, shutdown)),
    },
    Controller {
        name: "token-cleaner-controller",
        account: "token-cleaner",
        run: |context, shutdown| Box::pin(token_cleaner::run(context, shutdown)),
    },
    Controller {
        name: "serviceaccount-token-controller",
        account: "serviceaccount-token-controller",
        run: |context, shutdown| Box::pin(service_account_tokens::run(context, shutdown)),
    },
    Controller {
        name: "legacy-serviceaccount-token-cleaner-controller",
        account: "legacy-service-account-token-cleaner",
        run: |context, shutdown| Box::pin(legacy_tokens::run(context, shutdown)),
    },
    Controller {
        name: "horizontal-pod-autoscaler-controller",
        account: "horizontal-pod-autoscaler",
        run: |context, shutdown| Box::pin(autoscaler::run(context, shutdown)),
    },
    Controller {
        name: "endpointslice-controller",
        account: "endpointslice-controller",
        run: |context, shutdown| Box::pin(endpoints::slice_controller::run(context, shutdown)),
    },
    Controller {
        name: "endpoints-controller",
        account: "endpoint-controller",
        run: |context, shutdown| Box::pin(endpoints::endpoints_controller::run(context, shutdown)),
    },
    Controller {
        name: "endpointslice-mirroring-controller",
        account: "endpointslicemirroring-controller",
        run: |context, shutdown| Box::pin(endpoints::mirror::run(context, shutdown)),
    },
    Controller {
        name: "namespace-controller",
        account: "namespace-controller",
        run: |context, shutdown| Box::pin(namespace::run(context, shutdown)),
    },
    Controller {
        name: "serviceaccount-controller",
        account: "service-account-controller",
        run: |context, shutdown| Box::pin(service_accounts::run(context, shutdown)),
    },
    Controller {
        name: "root-ca-certificate-publisher-controller",
        account: "root-ca-cert-publisher",
        run: |context, shutdown| Box::pin(service_accounts::publish_root_ca(context, shutdown)),
    },
    Controller {
        name: "garbage-collector-controller",
        account: "generic-garbage-collector",
        run: |context, shutdown| Box::pin(garbage::run(context, shutdown)),
    },
    Controller {
        name: "node-lifecycle-controller",
        account: "node-controller",
        run: |context, shutdown| Box::pin(node::lifecycle::run(context, shutdown)),
    },
    Controller {
        name: "taint-eviction-controller",
        account: "node-controller",
        run: |context, shutdown| Box::pin(node::eviction::run(context, shutdown)),
    },
    Controller {
        name: "device-taint-eviction-controller",
        account: "device-taint-eviction-controller",
        run: |context, shutdown| Box::pin(device_taints::run(context, shutdown)),
    },
    Controller {
        name: "node-ipam-controller",
        account: "node-controller",
        run: |context, shutdown| Box::pin(node::ipam::run(context, shutdown)),
    },
    Controller {
        name: "pod-garbage-collector-controller",
        account: "pod-garbage-collector",
        run: |context, shutdown| Box::pin(node::pod_gc::run(context, shutdown)),
    },
    Controller {
        name: "ttl-controller",
        account: "ttl-controller",
        run: |context, shutdown| Box::pin(node::ttl::run(context, shutdown)),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn controllers_have_distinct_names() {
        let names: BTreeSet<_> = TABLE.iter().map(|controller| controller.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }

    /// What upstream's controller manager runs by default, but for the cloud's and for
    /// `validatingadmissionpolicy-status-controller`, and with `token-cleaner-controller`, which
    /// kubeadm asks for.
    #[test]
    fn every_controller_that_upstream_runs_is_in_the_table() {
        let mut names: Vec<_> = TABLE.iter().map(|controller| controller.name).collect();
        names.sort_unstable();
        let upstream = [
            "certificatesigningrequest-approving-controller",
            "certificatesigningrequest-cleaner-controller",
            "certificatesigningrequest-signing-controller",
            "clusterrole-aggregation-controller",
            "cronjob-controller",
            "daemonset-controller",
            "deployment-controller",
            "device-taint-eviction-controller",
            "disruption-controller",
            "endpoints-controller",
            "endpointslice-controller",
            "endpointslice-mirroring-controller",
            "ephemeral-volume-controller",
            "garbage-collector-controller",
            "horizontal-pod-autoscaler-controller",
            "job-controller",
            "legacy-serviceaccount-token-cleaner-controller",
            "namespace-controller",
            "node-ipam-controller",
            "node-lifecycle-controller",
            "persistentvolume-attach-detach-controller",
            "persistentvolume-binder-controller",
            "persistentvolume-expander-controller",
            "persistentvolume-protection-controller",
            "persistentvolumeclaim-protection-controller",
            "pod-garbage-collector-controller",
            "replicaset-controller",
            "replicationcontroller-controller",
            "resourceclaim-controller",
            "resourcequota-controller",
            "root-ca-certificate-publisher-controller",
            "service-cidr-controller",
            "serviceaccount-controller",
            "serviceaccount-token-controller",
            "statefulset-controller",
            "taint-eviction-controller",
            "token-cleaner-controller",
            "ttl-after-finished-controller",
            "ttl-controller",
            "volumeattributesclass-protection-controller",
        ];
        assert_eq!(names, upstream);
    }
}
