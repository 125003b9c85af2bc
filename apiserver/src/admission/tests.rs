//! Admission through the whole server.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Chain;
use crate::{
    Config, Plugins,
    authz::{AlwaysAllow, Authorizer},
    standard::admission,
    testing::TestServer,
};

const PODS: &str = "/api/v1/namespaces/ns/pods";

struct Fixture(TestServer);

impl Fixture {
    async fn start() -> Self {
        let server = TestServer::with(Config::default(), |registry| Plugins {
            admission: Chain::new(admission(
                registry,
                &(Arc::new(AlwaysAllow) as Arc<dyn Authorizer>),
            )),
            ..Plugins::default()
        })
        .await;
        let fixture = Fixture(server);
        for name in ["ns", "kube-system"] {
            let namespace = json!({"metadata": {"name": name}});
            fixture.create("/api/v1/namespaces", namespace).await;
        }
        fixture
            .create(
                "/api/v1/namespaces/ns/serviceaccounts",
                json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "pull"}]}),
            )
            .await;
        fixture
    }

    async fn create(&self, path: &str, object: Value) -> Value {
        let answer = self.0.post(path, &object).await;
        assert_eq!(answer.code, 201, "{path}: {}", answer.message());
        answer.json()
    }

    async fn refused(&self, path: &str, object: Value) -> (u16, String) {
        let answer = self.0.post(path, &object).await;
        (answer.code.as_u16(), answer.message())
    }
}

fn pod(spec: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test]
async fn a_pod_gets_account_token_priority_and_tolerations() {
    let fixture = Fixture::start().await;
    let pod = fixture.create(PODS, pod(&json!({}))).await;
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["serviceAccount"], "default");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(
        name.starts_with("kube-api-access-") && name.len() == 21,
        "{name}"
    );
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{
            "name": name, "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }])
    );
    assert_eq!(
        volume["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{
                "path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
            }]}},
        ]})
    );
}

#[tokio::test]
async fn pods_are_refused_as_upstream_does() {
    let fixture = Fixture::start().await;
    let refused = async |spec: Value| fixture.refused(PODS, pod(&spec)).await;
    assert_eq!(
        refused(json!({"serviceAccountName": "none"})).await,
        (403, "pods \"p\" is forbidden: error looking up service account ns/none: serviceaccount \"none\" not found".to_owned())
    );
    assert_eq!(
        refused(json!({"priorityClassName": "none"})).await,
        (
            403,
            "pods \"p\" is forbidden: no PriorityClass with name none was found".to_owned()
        )
    );
    assert_eq!(
        refused(json!({"runtimeClassName": "none"})).await,
        (
            403,
            "pods \"p\" is forbidden: pod rejected: RuntimeClass \"none\" not found".to_owned()
        )
    );
    let (code, message) = refused(json!({"priority": 7})).await;
    assert_eq!(code, 403);
    assert!(
        message.contains("the integer value of priority (7) must not be provided"),
        "{message}"
    );
    assert_eq!(
        fixture
            .refused("/api/v1/namespaces/none/pods", pod(&json!({})))
            .await,
        (404, "namespaces \"none\" not found".to_owned())
    );
}

#[tokio::test]
async fn priority_classes_and_their_default() {
    let fixture = Fixture::start().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str| json!({"metadata": {"name": name}, "value": 7, "globalDefault": true});
    fixture.create(classes, class("seven")).await;
    fixture.0.server.registry().fresh().await.unwrap();
    let pod = fixture.create(PODS, pod(&json!({}))).await;
    assert_eq!(pod["spec"]["priorityClassName"], "seven");
    assert_eq!(pod["spec"]["priority"], 7);
    let (code, message) = fixture.refused(classes, class("eight")).await;
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "priorityclasses.scheduling.k8s.io \"eight\" is forbidden: PriorityClass seven is already marked as default. Only one default can exist"
    );
}

#[tokio::test]
async fn a_namespace_that_goes_takes_nothing_new() {
    let fixture = Fixture::start().await;
    let answer = fixture
        .0
        .delete("/api/v1/namespaces/kube-system", &Value::Null)
        .await;
    assert_eq!(
        answer.message(),
        "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
    fixture
        .0
        .delete("/api/v1/namespaces/ns", &Value::Null)
        .await;
    let maps = "/api/v1/namespaces/ns/configmaps";
    let answer = fixture
        .0
        .post(maps, &json!({"metadata": {"name": "m"}}))
        .await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.message(),
        "configmaps \"m\" is forbidden: unable to create new content in namespace ns because it is being terminated"
    );
    let causes = &answer.json()["details"]["causes"];
    assert_eq!(causes[0]["reason"], "NamespaceTerminating");
}

#[tokio::test]
async fn classes_finalizers_and_taints() {
    let fixture = Fixture::start().await;
    let class = json!({
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "x",
    });
    fixture
        .create("/apis/storage.k8s.io/v1/storageclasses", class)
        .await;
    fixture.0.server.registry().fresh().await.unwrap();
    let claim = json!({
        "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let path = "/api/v1/namespaces/ns/persistentvolumeclaims";
    let mut claim = fixture.create(path, claim).await;
    assert_eq!(claim["spec"]["storageClassName"], "local");
    assert_eq!(
        claim["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    claim["status"] = json!({"phase": "Bound"});
    let answer = fixture.0.put(&format!("{path}/c/status"), &claim).await;
    let mut claim = answer.json();
    claim["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
    let answer = fixture.0.put(&format!("{path}/c"), &claim).await;
    assert_eq!(
        (answer.code.as_u16(), answer.message()),
        (
            403,
            "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
                .to_owned()
        )
    );
    let node = json!({"metadata": {"name": "n"}});
    let node = fixture.create("/api/v1/nodes", node).await;
    assert_eq!(
        node["spec"]["taints"],
        json!([{"effect": "NoSchedule", "key": "node.kubernetes.io/not-ready"}])
    );
}

#[tokio::test]
async fn pods_get_the_topology_of_their_node() {
    let fixture = Fixture::start().await;
    let labels = json!({
        "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r",
        "kubernetes.io/hostname": "n",
    });
    let node = json!({"metadata": {"name": "n", "labels": labels}});
    fixture.create("/api/v1/nodes", node).await;
    fixture.0.server.registry().fresh().await.unwrap();
    let wanted = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
    let placed = fixture.create(PODS, pod(&json!({"nodeName": "n"}))).await;
    assert_eq!(placed["metadata"]["labels"], wanted);
    let mut other = pod(&json!({}));
    other["metadata"]["name"] = json!("q");
    let other = fixture.create(PODS, other).await;
    assert_eq!(other["metadata"].get("labels"), None);
    let binding = json!({"metadata": {"name": "q"}, "target": {"kind": "Node", "name": "n"}});
    fixture.create(&format!("{PODS}/q/binding"), binding).await;
    let bound = fixture.0.get(&format!("{PODS}/q")).await.json();
    assert_eq!(bound["metadata"]["labels"], wanted);
}

#[tokio::test]
async fn pods_are_not_resized_beyond_their_node() {
    let fixture = Fixture::start().await;
    let node = json!({"metadata": {"name": "n"}});
    let mut node = fixture.create("/api/v1/nodes", node).await;
    node["status"]["allocatable"] = json!({"cpu": "2", "memory": "1Gi"});
    let answer = fixture.0.put("/api/v1/nodes/n/status", &node).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
    let container = |cpu: &str| {
        json!({"nodeName": "n", "containers": [{
            "name": "c", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}},
        }]})
    };
    let mut stored = fixture.create(PODS, pod(&container("1"))).await;
    fixture.0.server.registry().fresh().await.unwrap();
    let resize = format!("{PODS}/p/resize");
    stored["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("3");
    let answer = fixture.0.put(&resize, &stored).await;
    assert_eq!(
        (answer.code.as_u16(), answer.message()),
        (403, "pods \"p\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000".to_owned())
    );
    assert_eq!(
        answer.json()["details"]["causes"],
        json!([{"reason": "NodeCapacity"}])
    );
    stored["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1500m");
    let answer = fixture.0.put(&resize, &stored).await;
    assert_eq!(answer.code, 200, "{}", answer.message());
}
