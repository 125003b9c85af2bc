//! The example application answers through its Service, in every way a Service is reached.

use std::path::Path;

use crate::cluster::Cluster;

#[test]
fn the_example_answers_by_address_node_port_and_name() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace();
    cluster.import_image("docker.io/library/hello:1.0", "1.0");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/examples/hello");
    namespace.kubectl(&format!("apply -f {}", example.display()));
    namespace.kubectl("rollout status deployment/hello --timeout=120s");
    let fetch = |url: &str| {
        let output = cluster
            .command("curl")
            .args([
                "-sSf",
                "--max-time",
                "10",
                "--retry",
                "5",
                "--retry-all-errors",
                url,
            ])
            .output()
            .expect("curl runs");
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            page.starts_with("Hello from Coracle!\na boat light enough to carry on your back\nversion 1.0 on hello-"),
            "{url}: {page}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        page
    };
    let address = namespace.kubectl("get service hello -o jsonpath={.spec.clusterIP}");
    let mut pods = std::collections::BTreeSet::new();
    for _ in 0..60 {
        pods.insert(fetch(&format!("http://{address}/")));
    }
    assert_eq!(pods.len(), 3, "all replicas answer: {pods:?}");
    fetch("http://192.0.2.10:30080/");

    let pod = namespace.kubectl("get pods -l app=hello -o jsonpath={.items[0].metadata.name}");
    for name in [
        "hello".to_owned(),
        format!("hello.{}", namespace.name),
        format!("hello.{}.svc.cluster.local", namespace.name),
        "hello-nodeport".to_owned(),
        address,
    ] {
        let page = namespace.kubectl(&format!(
            "exec {pod} -- timeout 10 wget -q -O - http://{name}/"
        ));
        assert!(page.starts_with("Hello from Coracle!"), "{name}: {page}");
    }
    let missing = namespace.kubectl_fails(&format!(
        "exec {pod} -- nslookup no-such-name.default.svc.cluster.local"
    ));
    assert!(missing.contains("exit code 1"), "{missing}");
}
