//! What `kubectl` prints of objects, without any that runs.

use crate::cluster::Cluster;

const CONFIG_MAPS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: b-first, labels: {tier: web, app: one}}
data: {key: one}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a-second, labels: {tier: db}}
data: {key: two, other: x}
";

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn columns(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn get_prints_every_output_format() {
    let namespace = Cluster::shared().namespace();
    namespace.apply(CONFIG_MAPS);
    let table = namespace.kubectl("get configmaps -l tier");
    assert_eq!(columns(lines(&table)[0]), ["NAME", "DATA", "AGE"]);
    assert_eq!(columns(lines(&table)[1])[..2], ["a-second", "2"]);
    assert_eq!(columns(lines(&table)[2])[..2], ["b-first", "1"]);

    assert_eq!(
        namespace.kubectl("get cm b-first -o name"),
        "configmap/b-first\n"
    );
    assert_eq!(
        namespace.kubectl("get cm b-first -o jsonpath={.data.key}"),
        "one"
    );
    let custom = namespace.kubectl("get cm -l tier -o custom-columns=N:.metadata.name,V:.data.key");
    assert_eq!(
        lines(&custom)
            .iter()
            .map(|line| columns(line))
            .collect::<Vec<_>>(),
        [["N", "V"], ["a-second", "two"], ["b-first", "one"]]
    );
    let yaml = namespace.kubectl("get cm b-first -o yaml");
    assert!(
        yaml.starts_with("apiVersion: v1\ndata:\n  key: one\nkind: ConfigMap\n"),
        "{yaml}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&namespace.kubectl("get cm b-first -o json")).expect("it is JSON");
    assert_eq!(json["metadata"]["labels"]["app"], "one");
    let wide = namespace.kubectl("get cm b-first --show-labels");
    assert!(wide.contains("app=one,tier=web"), "{wide}");
}

#[test]
fn get_selects_and_sorts() {
    let namespace = Cluster::shared().namespace();
    namespace.apply(CONFIG_MAPS);
    let names = |arguments: &str| namespace.kubectl(&format!("get cm -o name {arguments}"));
    assert_eq!(names("-l tier=web"), "configmap/b-first\n");
    assert_eq!(names("-l tier!=web,tier"), "configmap/a-second\n");
    assert_eq!(names("-l tier=db"), "configmap/a-second\n");
    let in_set = namespace
        .cluster
        .kubectl_command(&namespace.scoped("get cm -o name -l"))
        .arg("tier in (web, db)")
        .output()
        .expect("kubectl runs");
    assert_eq!(
        String::from_utf8_lossy(&in_set.stdout),
        "configmap/a-second\nconfigmap/b-first\n"
    );
    assert_eq!(
        names("--field-selector metadata.name=b-first"),
        "configmap/b-first\n"
    );
    assert_eq!(
        names("-l tier --sort-by=.data.key"),
        "configmap/b-first\nconfigmap/a-second\n"
    );
    let all = namespace.kubectl("get cm -A -l tier=web");
    assert!(
        all.lines()
            .any(|line| columns(line)[..2] == [&namespace.name, "b-first"]),
        "{all}"
    );
    let error = namespace.kubectl_fails("get pods --field-selector spec.nonsense=1");
    assert!(error.contains("field label not supported"), "{error}");
}

#[test]
fn watch_prints_changes_as_they_happen() {
    use std::io::{BufRead as _, BufReader};
    let namespace = Cluster::shared().namespace();
    namespace.apply(CONFIG_MAPS);
    let mut watch = namespace
        .cluster
        .kubectl_command(&namespace.scoped(
            "get cm -l tier=web -w -o custom-columns=N:.metadata.name,V:.data.key --no-headers",
        ))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("kubectl runs");
    let mut printed =
        BufReader::new(watch.stdout.take().expect("standard output is a pipe")).lines();
    let mut next =
        || columns(&printed.next().expect("a line comes").expect("it is text")).join(" ");
    assert_eq!(next(), "b-first one");
    namespace.kubectl("patch cm b-first --type=merge -p {\"data\":{\"key\":\"changed\"}}");
    assert_eq!(next(), "b-first changed");
    watch.kill().expect("kubectl can be ended");
    watch.wait().expect("kubectl ends");
}

#[test]
fn the_api_describes_itself() {
    let cluster = Cluster::shared();
    let resources = cluster.kubectl("api-resources --no-headers");
    for line in [
        "configmaps cm v1 true ConfigMap",
        "pods po v1 true Pod",
        "deployments deploy apps/v1 true Deployment",
        "horizontalpodautoscalers hpa autoscaling/v2 true HorizontalPodAutoscaler",
        "networkpolicies netpol networking.k8s.io/v1 true NetworkPolicy",
        "storageclasses sc storage.k8s.io/v1 false StorageClass",
    ] {
        assert!(
            resources
                .lines()
                .any(|printed| columns(printed).join(" ") == line),
            "no line {line:?} in:\n{resources}"
        );
    }
    let versions = cluster.kubectl("api-versions");
    for version in [
        "v1",
        "apps/v1",
        "batch/v1",
        "autoscaling/v1",
        "autoscaling/v2",
        "rbac.authorization.k8s.io/v1",
    ] {
        assert!(versions.lines().any(|line| line == version), "{versions}");
    }
    let explained = cluster.kubectl("explain deployment.spec.strategy.rollingUpdate.maxSurge");
    assert!(
        explained.contains("GROUP:      apps") && explained.contains("IntOrString"),
        "{explained}"
    );
    assert!(
        cluster
            .kubectl("explain pod.spec --recursive")
            .contains("terminationGracePeriodSeconds\t<integer>")
    );
    let info = cluster.kubectl("cluster-info");
    assert!(info.contains("Kubernetes control plane"), "{info}");
    assert!(info.contains("CoreDNS"), "{info}");
    let version = cluster.kubectl("version");
    assert!(version.contains("Server Version: v1.36."), "{version}");
}

#[test]
fn the_administrator_is_known() {
    let cluster = Cluster::shared();
    let view = cluster.kubectl("config view");
    assert!(
        view.contains("current-context: default") && view.contains("DATA+OMITTED"),
        "{view}"
    );
    let whoami = cluster.kubectl("auth whoami");
    assert!(whoami.contains("system:masters"), "{whoami}");
    assert_eq!(
        cluster.kubectl("auth can-i create deployments").trim(),
        "yes"
    );
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(cluster.kubeconfig())
        .expect("there is a kubeconfig")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_missing_is_said_as_upstream_says_it() {
    let namespace = Cluster::shared().namespace();
    assert_eq!(
        namespace.kubectl_fails("get configmap none"),
        "Error from server (NotFound): configmaps \"none\" not found\n"
    );
    assert_eq!(
        namespace.kubectl_fails("get nonsense"),
        "error: the server doesn't have a resource type \"nonsense\"\n"
    );
    let empty = namespace
        .cluster
        .kubectl_command(&namespace.scoped("get pods"))
        .output()
        .expect("kubectl runs");
    assert_eq!(
        String::from_utf8_lossy(&empty.stderr),
        format!("No resources found in {} namespace.\n", namespace.name)
    );
}
