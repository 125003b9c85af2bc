//! Applications as users of Kubernetes write them. Their images are stand-ins that answer on the
//! same ports.

use std::{path::Path, sync::Once};

use crate::cluster::{Cluster, Namespace};

pub fn file(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/workloads");
    root.join(name).display().to_string()
}

/// Loads the stand-ins, once for all tests.
pub fn images(cluster: &Cluster) {
    static LOADED: Once = Once::new();
    LOADED.call_once(|| load_images(cluster));
}

fn load_images(cluster: &Cluster) {
    for (image, version, script) in [
        ("docker.io/myapp/web:v1.0", "v1.0", "workloads/stand-in.sh"),
        ("docker.io/myapp/web:v1.1", "v1.1", "workloads/stand-in.sh"),
        (
            "docker.io/monutilisateur/monapp:1.0",
            "1.0",
            "workloads/stand-in.sh",
        ),
        ("docker.io/library/mysql:8", "8", "workloads/database.sh"),
    ] {
        cluster.import_stand_in(image, version, script);
    }
}

pub fn apply(namespace: &Namespace<'_>, names: &[&str]) {
    for name in names {
        namespace.kubectl(&format!("apply -f {}", file(name)));
    }
}

pub fn first_pod(namespace: &Namespace<'_>, label: &str) -> String {
    namespace.kubectl(&format!(
        "get pods -l {label} --field-selector status.phase=Running -o jsonpath={{.items[0].metadata.name}}"
    ))
}

#[test]
fn an_application_finds_its_database() {
    let cluster = Cluster::shared();
    images(cluster);
    let namespace = cluster.namespace();
    apply(
        &namespace,
        &[
            "myapp/k8s-mysql-deployment.yaml",
            "myapp/k8s-myapp-deployment.yaml",
            "myapp/k8s-services.yaml",
        ],
    );
    for name in ["mysql", "myapp-deployment"] {
        namespace.kubectl(&format!("rollout status deployment/{name} --timeout=120s"));
    }
    let pod = first_pod(&namespace, "app=myapp");
    let environment = namespace.kubectl(&format!("exec {pod} -- env"));
    assert!(environment.contains("DB_HOST=mysql\n"), "{environment}");
    let greeting = format!("exec {pod} -- nc -w 5 mysql 3306");
    namespace.eventually(&greeting, |it| it == "myappdb\n");
    // Both Services ask for the same port of the node, which is given out once.
    let refused =
        namespace.kubectl_fails(&format!("apply -f {}", file("myapp/webapp-service.yaml")));
    assert!(
        refused.contains("provided port is already allocated"),
        "{refused}"
    );
    namespace.kubectl("delete service myapp-service");
    apply(
        &namespace,
        &["myapp/webapp-deployment.yaml", "myapp/webapp-service.yaml"],
    );
    namespace.kubectl("rollout status deployment/webapp-deployment --timeout=120s");
    let page = cluster
        .command("curl")
        .args(["-sSf", "--retry", "10", "--retry-all-errors"])
        .arg("http://192.0.2.10:30000/health")
        .output()
        .expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&page.stdout), "health ok\n");
    namespace.kubectl("delete service webapp-service");
}

#[test]
fn a_pod_runs_with_few_rights() {
    let cluster = Cluster::shared();
    images(cluster);
    let namespace = cluster.namespace();
    apply(&namespace, &["web-app/security-context.yaml"]);
    namespace.kubectl("wait pod/secure-pod --for=condition=Ready --timeout=120s");
    let identity = namespace.kubectl("exec secure-pod -- id");
    assert!(identity.starts_with("uid=1000 gid=1000"), "{identity}");
    let refused = namespace.kubectl_fails("exec secure-pod -- touch /x");
    assert!(refused.contains("exit code 1"), "{refused}");
    namespace.kubectl("exec secure-pod -- touch /tmp/x");
    let rights = namespace.kubectl("exec secure-pod -- grep Cap /proc/self/status");
    assert!(rights.contains("CapEff:\t0000000000000000"), "{rights}");
    namespace.kubectl("delete pod --all --grace-period=1");
}
