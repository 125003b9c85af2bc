//! What a node writes, on a server with a few objects.

use coracle_api::Identity;
use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest, coordination::v1::Lease,
    resource::v1::ResourceSlice, storage::v1::CSINode,
};
use serde_json::{Value, json};

use super::*;
use crate::{admission::Warnings, authz::Rbac, testing::TestServer};

struct Fixture {
    server: TestServer,
    plugin: NodeRestriction,
    node_uid: Value,
}

/// A write by node `n1`.
#[derive(Default)]
struct Case<'a> {
    operation: Option<Operation>,
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl Fixture {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let registry = server.server.registry();
        let plugin = NodeRestriction::new(registry.clone(), Arc::new(Rbac::new(registry)));
        let node = server
            .post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}}))
            .await
            .json();
        let fixture = Fixture {
            node_uid: node["metadata"]["uid"].clone(),
            server,
            plugin,
        };
        for (name, node) in [("mine", "n1"), ("other", "n2")] {
            let pod = json!({
                "metadata": {"name": name},
                "spec": {
                    "nodeName": node, "serviceAccountName": "default",
                    "containers": [{"name": "c", "image": "i"}],
                    "volumes": [{"name": "t", "projected": {"sources": [
                        {"serviceAccountToken": {"path": "t", "audience": "vault"}},
                        {"serviceAccountToken": {"path": "u"}},
                    ]}}],
                },
            });
            let path = "/api/v1/namespaces/default/pods";
            let answer = fixture.server.post(path, &pod).await;
            assert_eq!(answer.code, 201, "{}", answer.message());
        }
        fixture
    }

    async fn ask<T: coracle_api::object::Typed>(
        &self,
        case: Case<'_>,
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), String> {
        let user = Identity {
            user: "system:node:n1".to_owned(),
            groups: vec!["system:nodes".to_owned()],
            ..Identity::default()
        };
        let registry = self.server.server.registry();
        let found = registry.find(case.group, "v1", case.resource).unwrap();
        let attributes = Attributes {
            user: &user,
            operation: case.operation.unwrap_or(Operation::Create),
            kind: &found.kind,
            subresource: case.subresource,
            namespace: case.namespace,
            name: case.name,
            dry_run: false,
            options: &Value::Null,
            warnings: &Warnings::default(),
        };
        assert!(self.plugin.handles(&attributes));
        let read = |json: Option<&Value>| -> Option<T> {
            json.map(|json| serde_json::from_value(json.clone()).unwrap())
        };
        let (mut new, old) = (read(new), read(old));
        let new = new.as_mut().map(|new| new as &mut dyn Object);
        let old = old.as_ref().map(|old| old as &dyn Object);
        let answer = self.plugin.admit(&attributes, new, old).await;
        answer.map_err(|error| {
            let message = error.to_string();
            let why = message.split_once("is forbidden: ");
            why.map_or(message.clone(), |(_, why)| why.to_owned())
        })
    }

    async fn uid_of(&self, pod: &str) -> Value {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        self.server.get(&path).await.json()["metadata"]["uid"].clone()
    }
}

fn refused(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

#[tokio::test]
async fn nodes() {
    let fixture = Fixture::start().await;
    let node = |spec: Value, labels: Value| json!({"metadata": {"name": "n1", "labels": labels}, "spec": spec});
    let plain = node(json!({}), json!({"kubernetes.io/hostname": "n1"}));
    let source = json!({"configSource": {"configMap": {"namespace": "a", "name": "b", "kubeletConfigKey": "c"}}});
    let taints = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    let role = json!({"kubernetes.io/hostname": "n1", "node-role.kubernetes.io/worker": "", "node-restriction.kubernetes.io/x": "y"});
    let owned = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}, "ownerReferences": [
        {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"},
    ]}, "spec": {}});
    let create = [
        (&plain, "n1", Ok(())),
        (&node(taints.clone(), json!({})), "n1", Ok(())),
        (
            &plain,
            "n2",
            refused("node \"n1\" is not allowed to modify node \"n2\""),
        ),
        (
            &node(source.clone(), json!({})),
            "n1",
            refused("node \"n1\" is not allowed to create pods with a non-nil configSource"),
        ),
        (
            &node(json!({}), role.clone()),
            "n1",
            refused(
                "node \"n1\" is not allowed to set the following labels: node-restriction.kubernetes.io/x, node-role.kubernetes.io/worker",
            ),
        ),
    ];
    for (object, name, wanted) in create {
        let case = Case {
            resource: "nodes",
            name,
            ..Case::default()
        };
        assert_eq!(
            fixture.ask::<Node>(case, Some(object), None).await,
            wanted,
            "{object}"
        );
    }
    let update = [
        (
            node(
                json!({"podCIDR": "10.0.0.0/24"}),
                json!({"kubernetes.io/hostname": "n1", "x": "y"}),
            ),
            Ok(()),
        ),
        (
            node(source, json!({"kubernetes.io/hostname": "n1"})),
            refused(
                "node \"n1\" is not allowed to update configSource to a new non-nil configSource",
            ),
        ),
        (
            node(taints, json!({"kubernetes.io/hostname": "n1"})),
            refused("node \"n1\" is not allowed to modify taints"),
        ),
        (
            owned,
            refused("node \"n1\" is not allowed to modify ownerReferences"),
        ),
        (
            node(json!({}), role),
            refused(
                "is not allowed to modify labels: node-restriction.kubernetes.io/x, node-role.kubernetes.io/worker",
            ),
        ),
    ];
    for (object, wanted) in update {
        let case = Case {
            operation: Some(Operation::Update),
            resource: "nodes",
            name: "n1",
            ..Case::default()
        };
        assert_eq!(
            fixture.ask::<Node>(case, Some(&object), Some(&plain)).await,
            wanted,
            "{object}"
        );
    }
}

#[tokio::test]
async fn mirror_pods() {
    let fixture = Fixture::start().await;
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": fixture.node_uid, "controller": true});
    let good = json!({
        "metadata": {
            "name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [owner],
        },
        "spec": {
            "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "h", "hostPath": {"path": "/"}}],
        },
    });
    let changed = |pointer: &str, value: Value| {
        let mut pod = good.clone();
        *pod.pointer_mut(pointer).unwrap() = value;
        pod
    };
    let volume = |source: Value| changed("/spec/volumes/0", source);
    let env = |from: Value| {
        changed(
            "/spec/containers/0",
            json!({"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": from}]}),
        )
    };
    let cases = [
        (good.clone(), Ok(())),
        (
            changed("/metadata/annotations", json!({})),
            refused(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
            ),
        ),
        (
            changed("/spec/nodeName", json!("n2")),
            refused("node \"n1\" can only create pods with spec.nodeName set to itself"),
        ),
        (
            changed("/metadata/ownerReferences", json!([])),
            refused("node \"n1\" can only create pods with an owner reference set to itself"),
        ),
        (
            changed("/metadata/ownerReferences", json!([owner, owner])),
            refused("node \"n1\" can only create pods with a single owner reference set to itself"),
        ),
        (
            changed("/metadata/ownerReferences/0/name", json!("n2")),
            refused("node \"n1\" can only create pods with an owner reference set to itself"),
        ),
        (
            changed("/metadata/ownerReferences/0/controller", json!(false)),
            refused(
                "node \"n1\" can only create pods with a controller owner reference set to itself",
            ),
        ),
        (
            volume(json!({"name": "v", "secret": {"secretName": "s"}})),
            refused("node \"n1\" can not create pods that reference secrets"),
        ),
        (
            volume(json!({"name": "v", "configMap": {"name": "s"}})),
            refused("node \"n1\" can not create pods that reference configmaps"),
        ),
        (
            volume(json!({"name": "v", "persistentVolumeClaim": {"claimName": "s"}})),
            refused("node \"n1\" can not create pods that reference persistentvolumeclaims"),
        ),
        (
            volume(json!({"name": "v", "csi": {"driver": "s"}})),
            refused("node \"n1\" can not create pods that reference csidrivers (via CSI volumes)"),
        ),
        (
            volume(
                json!({"name": "v", "projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {"path": "t"}}]}}),
            ),
            refused(
                "node \"n1\" can not create pods that reference serviceaccounts (via projected volumes)",
            ),
        ),
        (
            env(json!({"secretKeyRef": {"name": "s", "key": "k"}})),
            refused("node \"n1\" can not create pods that reference secrets"),
        ),
        (
            env(json!({"configMapKeyRef": {"name": "s", "key": "k"}})),
            refused("node \"n1\" can not create pods that reference configmaps"),
        ),
    ];
    for (pod, wanted) in cases {
        let case = Case {
            resource: "pods",
            namespace: "default",
            ..Case::default()
        };
        assert_eq!(
            fixture.ask::<Pod>(case, Some(&pod), None).await,
            wanted,
            "{pod}"
        );
    }
    let wrong = changed("/metadata/ownerReferences/0/uid", json!("u"));
    let case = Case {
        resource: "pods",
        namespace: "default",
        ..Case::default()
    };
    let why = fixture
        .ask::<Pod>(case, Some(&wrong), None)
        .await
        .unwrap_err();
    assert!(
        why.starts_with("node n1 UID mismatch: expected u got "),
        "{why}"
    );
}

#[tokio::test]
async fn pods_of_the_node_and_of_others() {
    let fixture = Fixture::start().await;
    let case = |operation, subresource, name| Case {
        operation: Some(operation),
        resource: "pods",
        subresource,
        namespace: "default",
        name,
        ..Case::default()
    };
    let pod = |node: &str, labels: Value| json!({"metadata": {"name": "p", "labels": labels}, "spec": {"nodeName": node, "containers": []}});
    let (mine, other) = (pod("n1", json!({})), pod("n2", json!({})));
    let eviction = json!({"metadata": {"name": "x"}});
    use k8s_openapi::api::policy::v1::Eviction;
    assert_eq!(
        fixture
            .ask::<Pod>(case(Operation::Delete, "", "mine"), None, None)
            .await,
        Ok(())
    );
    assert_eq!(
        fixture
            .ask::<Pod>(case(Operation::Delete, "", "other"), None, None)
            .await,
        refused("node \"n1\" can only delete pods with spec.nodeName set to itself")
    );
    assert_eq!(
        fixture
            .ask::<Pod>(case(Operation::Delete, "", "none"), None, None)
            .await,
        refused("pod \"none\" not found")
    );
    assert_eq!(
        fixture
            .ask::<Pod>(
                case(Operation::Update, "", "mine"),
                Some(&mine),
                Some(&mine)
            )
            .await,
        refused(
            "unexpected operation \"UPDATE\", node \"n1\" can only create and delete mirror pods"
        )
    );
    assert_eq!(
        fixture
            .ask::<Pod>(
                case(Operation::Update, "status", "mine"),
                Some(&mine),
                Some(&mine)
            )
            .await,
        Ok(())
    );
    assert_eq!(
        fixture
            .ask::<Pod>(
                case(Operation::Update, "status", "other"),
                Some(&other),
                Some(&other)
            )
            .await,
        refused("node \"n1\" can only update pod status for pods with spec.nodeName set to itself")
    );
    assert_eq!(
        fixture
            .ask::<Pod>(
                case(Operation::Update, "status", "mine"),
                Some(&pod("n1", json!({"a": "b"}))),
                Some(&mine)
            )
            .await,
        refused("node \"n1\" cannot update labels through pod status")
    );
    assert_eq!(
        fixture
            .ask::<Pod>(
                case(Operation::Update, "resize", "mine"),
                Some(&mine),
                Some(&mine)
            )
            .await,
        refused("unexpected pod subresource \"resize\", only 'status' and 'eviction' are allowed")
    );
    assert_eq!(
        fixture
            .ask::<Eviction>(
                case(Operation::Create, "eviction", "mine"),
                Some(&eviction),
                None
            )
            .await,
        Ok(())
    );
    assert_eq!(
        fixture
            .ask::<Eviction>(
                case(Operation::Create, "eviction", "other"),
                Some(&eviction),
                None
            )
            .await,
        refused("node n1 can only evict pods with spec.nodeName set to itself")
    );
}

#[tokio::test]
async fn tokens_of_its_pods_for_whom_they_name() {
    let fixture = Fixture::start().await;
    let (mine, other) = (fixture.uid_of("mine").await, fixture.uid_of("other").await);
    let bound = |name: &str, uid: &Value| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    let cases = [
        (
            json!({"boundObjectRef": bound("mine", &mine), "audiences": []}),
            Ok(()),
        ),
        (
            json!({"boundObjectRef": bound("mine", &mine), "audiences": ["vault"]}),
            Ok(()),
        ),
        (
            json!({"boundObjectRef": bound("mine", &mine), "audiences": ["thief"]}),
            refused(
                "audience \"thief\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience",
            ),
        ),
        (
            json!({"boundObjectRef": bound("mine", &mine), "audiences": ["vault", "x"]}),
            refused("node may only request 0 or 1 audiences"),
        ),
        (
            json!({"audiences": []}),
            refused("node requested token not bound to a pod"),
        ),
        (
            json!({"boundObjectRef": bound("mine", &json!("")), "audiences": []}),
            refused("node requested token with a pod binding without a uid"),
        ),
        (
            json!({"boundObjectRef": bound("mine", &json!("u")), "audiences": []}),
            refused(
                "the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated",
            ),
        ),
        (
            json!({"boundObjectRef": bound("other", &other), "audiences": []}),
            refused("node requested token bound to a pod scheduled on a different node"),
        ),
        (
            json!({"boundObjectRef": bound("none", &other), "audiences": []}),
            refused("pod \"none\" not found"),
        ),
    ];
    for (spec, wanted) in cases {
        let case = Case {
            resource: "serviceaccounts",
            subresource: "token",
            namespace: "default",
            name: "default",
            ..Case::default()
        };
        let answer = fixture
            .ask::<TokenRequest>(case, Some(&json!({"spec": spec})), None)
            .await;
        assert_eq!(answer, wanted, "{spec}");
    }
}

#[tokio::test]
async fn what_is_named_like_the_node() {
    let fixture = Fixture::start().await;
    let named = |name: &str| json!({"metadata": {"name": name}, "spec": {"drivers": []}});
    let lease = |namespace| Case {
        group: "coordination.k8s.io",
        resource: "leases",
        namespace,
        ..Case::default()
    };
    let wrong_name = "can only access node lease with the same name as the requesting node";
    assert_eq!(
        fixture
            .ask::<Lease>(
                lease("kube-node-lease"),
                Some(&json!({"metadata": {"name": "n1"}})),
                None
            )
            .await,
        Ok(())
    );
    assert_eq!(
        fixture
            .ask::<Lease>(
                lease("kube-node-lease"),
                Some(&json!({"metadata": {"name": "n2"}})),
                None
            )
            .await,
        refused(wrong_name)
    );
    assert_eq!(
        fixture
            .ask::<Lease>(
                lease("default"),
                Some(&json!({"metadata": {"name": "n1"}})),
                None
            )
            .await,
        refused("can only access leases in the \"kube-node-lease\" system namespace")
    );
    let csi = |name, operation| Case {
        operation: Some(operation),
        group: "storage.k8s.io",
        resource: "csinodes",
        name,
        ..Case::default()
    };
    let wrong_name = "can only access CSINode with the same name as the requesting node";
    assert_eq!(
        fixture
            .ask::<CSINode>(csi("", Operation::Create), Some(&named("n1")), None)
            .await,
        Ok(())
    );
    assert_eq!(
        fixture
            .ask::<CSINode>(csi("", Operation::Create), Some(&named("n2")), None)
            .await,
        refused(wrong_name)
    );
    assert_eq!(
        fixture
            .ask::<CSINode>(csi("n2", Operation::Delete), None, Some(&named("n2")))
            .await,
        refused(wrong_name)
    );
    let slice = |node: &str| json!({"metadata": {"name": "s"}, "spec": {"driver": "d", "nodeName": node, "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}});
    let slices = |operation| Case {
        operation: Some(operation),
        group: "resource.k8s.io",
        resource: "resourceslices",
        name: "s",
        ..Case::default()
    };
    assert_eq!(
        fixture
            .ask::<ResourceSlice>(slices(Operation::Create), Some(&slice("n1")), None)
            .await,
        Ok(())
    );
    assert_eq!(
        fixture
            .ask::<ResourceSlice>(slices(Operation::Create), Some(&slice("n2")), None)
            .await,
        refused("can only create ResourceSlice with the same NodeName as the requesting node")
    );
    assert_eq!(
        fixture
            .ask::<ResourceSlice>(slices(Operation::Delete), None, Some(&slice("n2")))
            .await,
        refused("can only delete ResourceSlice with the same NodeName as the requesting node")
    );
    let request = |signer: &str| json!({"metadata": {"name": "r"}, "spec": {"request": "anVuaw==", "signerName": signer, "usages": ["client auth"]}});
    let requests = || Case {
        group: "certificates.k8s.io",
        resource: "certificatesigningrequests",
        ..Case::default()
    };
    assert_eq!(
        fixture
            .ask::<CertificateSigningRequest>(requests(), Some(&request("example.com/x")), None)
            .await,
        Ok(())
    );
    assert_eq!(
        fixture
            .ask::<CertificateSigningRequest>(
                requests(),
                Some(&request("kubernetes.io/kubelet-serving")),
                None
            )
            .await,
        refused("unable to parse csr: PEM block type must be CERTIFICATE REQUEST")
    );
}
