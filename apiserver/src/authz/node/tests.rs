//! What a node may read, on a server with pods.

use coracle_api::Identity;
use serde_json::{Value, json};

use super::*;
use crate::{authz::bootstrap, testing::TestServer};

struct Fixture {
    server: TestServer,
    authorizer: NodeAuthorizer,
}

impl Fixture {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let authorizer = NodeAuthorizer::new(server.server.registry(), bootstrap::node_rules());
        let fixture = Fixture { server, authorizer };
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {
                "nodeName": "n1", "serviceAccountName": "robot",
                "imagePullSecrets": [{"name": "pull"}],
                "containers": [{"name": "c", "image": "i", "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "k"}}},
                ]}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "volume"}},
                    {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "d", "ephemeral": {"volumeClaimTemplate": {"spec": {
                        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}},
                    }}}},
                ],
            },
        });
        fixture.create("/api/v1/namespaces/default/pods", pod).await;
        let volume = json!({
            "metadata": {"name": "pv"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1"},
                "claimRef": {"namespace": "default", "name": "claim"},
                "csi": {
                    "driver": "d", "volumeHandle": "h",
                    "nodePublishSecretRef": {"namespace": "default", "name": "csi"},
                },
            },
        });
        fixture.create("/api/v1/persistentvolumes", volume).await;
        fixture.server.server.registry().fresh().await.unwrap();
        fixture
    }

    async fn create(&self, path: &str, object: Value) {
        let answer = self.server.post(path, &object).await;
        assert_eq!(answer.code, 201, "{}", answer.message());
    }

    async fn ask(&self, node: &str, attributes: Attributes<'_>) -> Result<(), String> {
        let user = Identity {
            user: format!("system:node:{node}"),
            groups: vec!["system:nodes".to_owned()],
            ..Identity::default()
        };
        let attributes = Attributes {
            user: &user,
            ..attributes
        };
        match self.authorizer.authorize(&attributes).await {
            Decision::Allow(_) => Ok(()),
            refused => Err(refused.reason().to_owned()),
        }
    }
}

fn get<'a>(
    user: &'a Identity,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Attributes<'a> {
    Attributes {
        namespace,
        name,
        ..Attributes::of_resource(user, "get", "", resource)
    }
}

#[tokio::test]
async fn a_node_reads_what_its_pods_refer_to() {
    let fixture = Fixture::start().await;
    let user = Identity::default();
    let related = [
        ("secrets", "default", "pull"),
        ("secrets", "default", "env"),
        ("secrets", "default", "volume"),
        ("secrets", "default", "projected"),
        ("secrets", "default", "csi"),
        ("configmaps", "default", "map"),
        ("persistentvolumeclaims", "default", "claim"),
        ("persistentvolumeclaims", "default", "p-d"),
        ("persistentvolumes", "", "pv"),
        ("serviceaccounts", "default", "robot"),
        ("pods", "default", "p"),
    ];
    for (resource, namespace, name) in related {
        let asked = get(&user, resource, namespace, name);
        assert_eq!(fixture.ask("n1", asked).await, Ok(()), "{resource} {name}");
        assert_eq!(
            fixture.ask("n2", asked).await,
            Err("no relationship found between node 'n2' and this object".to_owned()),
            "{resource} {name}"
        );
    }
    for (resource, namespace, name) in [
        ("secrets", "default", "map"),
        ("secrets", "other", "env"),
        ("configmaps", "default", "env"),
        ("persistentvolumeclaims", "default", "p-a"),
    ] {
        let asked = get(&user, resource, namespace, name);
        assert!(fixture.ask("n1", asked).await.is_err(), "{resource} {name}");
    }
}

#[tokio::test]
async fn and_what_is_its_own() {
    let fixture = Fixture::start().await;
    let user = Identity::default();
    let own = |verb: &'static str, group: &'static str, resource: &'static str| Attributes {
        name: "n1",
        ..Attributes::of_resource(&user, verb, group, resource)
    };
    let lease = Attributes {
        namespace: "kube-node-lease",
        ..own("update", "coordination.k8s.io", "leases")
    };
    let pods = Attributes {
        field_selector: "spec.nodeName=n1",
        ..Attributes::of_resource(&user, "watch", "", "pods")
    };
    for asked in [
        lease,
        pods,
        own("get", "", "nodes"),
        own("update", "storage.k8s.io", "csinodes"),
    ] {
        assert_eq!(fixture.ask("n1", asked).await, Ok(()), "{asked:?}");
        assert!(fixture.ask("n2", asked).await.is_err(), "{asked:?}");
    }
    // The same for every node, by the role.
    let services = Attributes::of_resource(&user, "list", "", "services");
    assert_eq!(fixture.ask("n2", services).await, Ok(()));
    let delete = Attributes::of_resource(&user, "delete", "", "services");
    assert!(fixture.ask("n1", delete).await.is_err());
    let all_secrets = Attributes {
        namespace: "default",
        ..Attributes::of_resource(&user, "list", "", "secrets")
    };
    assert_eq!(
        fixture.ask("n1", all_secrets).await,
        Err("No Object name found".to_owned())
    );
}
