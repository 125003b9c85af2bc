//! `kubectl delete` in all its forms, and what the garbage collector makes of them.

use crate::cluster::{Cluster, IMAGE, Namespace};

fn deployment(namespace: &Namespace<'_>) {
    namespace.kubectl(&format!(
        "create deployment web --image={IMAGE} --replicas=1 -- sleep 3600"
    ));
    namespace.kubectl("rollout status deployment/web --timeout=120s");
}

#[test]
fn background_deletion_takes_the_dependents_with_it() {
    let namespace = Cluster::shared().namespace();
    deployment(&namespace);
    // Later versions of kubectl go on with the namespace.
    let deleted = namespace.kubectl("delete deployment web");
    assert!(
        deleted.starts_with("deployment.apps \"web\" deleted"),
        "{deleted}"
    );
    namespace.eventually("get replicasets,pods -o name", str::is_empty);
}

#[test]
fn foreground_deletion_waits_for_the_dependents() {
    let namespace = Cluster::shared().namespace();
    deployment(&namespace);
    namespace.kubectl("delete deployment web --cascade=foreground --timeout=120s");
    assert_eq!(namespace.kubectl("get replicasets -o name"), "");
}

#[test]
fn orphans_live_on() {
    let namespace = Cluster::shared().namespace();
    deployment(&namespace);
    namespace.kubectl("delete deployment web --cascade=orphan");
    namespace.eventually(
        "get replicasets -o jsonpath={.items[*].metadata.ownerReferences}",
        str::is_empty,
    );
    assert_eq!(
        namespace.kubectl("get replicasets -o name").lines().count(),
        1
    );
    assert_eq!(namespace.kubectl("get pods -o name").lines().count(), 1);
}

#[test]
fn force_deletes_at_once_and_wait_sees_it() {
    let namespace = Cluster::shared().namespace();
    namespace.kubectl(&format!("run stubborn --image={IMAGE} -- sleep 3600"));
    namespace.kubectl("wait pod/stubborn --for=condition=Ready --timeout=120s");
    namespace.kubectl("delete pod stubborn --force --grace-period=0");
    namespace.kubectl("wait pod/stubborn --for=delete --timeout=10s");
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it() {
    let cluster = Cluster::shared();
    cluster.kubectl("create namespace doomed");
    cluster.kubectl("-n doomed create configmap settings --from-literal=a=b");
    cluster.kubectl(&format!(
        "-n doomed create deployment web --image={IMAGE} -- sleep 3600"
    ));
    cluster.kubectl("delete namespace doomed --timeout=120s");
    assert!(
        cluster
            .kubectl_fails("get namespace doomed")
            .contains("NotFound")
    );
    assert_eq!(cluster.kubectl("get configmaps,pods -n doomed -o name"), "");
}
