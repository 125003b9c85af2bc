//! What `kubectl` changes: create, apply, edit, patch, label, annotate, expose.

use crate::cluster::{Cluster, IMAGE};

#[test]
fn create_makes_objects_and_says_so() {
    let namespace = Cluster::shared().namespace();
    assert_eq!(
        namespace.kubectl("create configmap settings --from-literal=color=blue"),
        "configmap/settings created\n"
    );
    assert_eq!(
        namespace.kubectl_fails("create configmap settings --from-literal=color=red"),
        "error: failed to create configmap: configmaps \"settings\" already exists\n"
    );
    assert_eq!(
        namespace.kubectl("create secret generic password --from-literal=word=open"),
        "secret/password created\n"
    );
    assert_eq!(
        namespace.kubectl("get secret password -o jsonpath={.data.word}"),
        "b3Blbg=="
    );
    assert_eq!(
        namespace.kubectl("create serviceaccount robot"),
        "serviceaccount/robot created\n"
    );
    assert_eq!(
        namespace.kubectl(&format!(
            "create deployment web --image={IMAGE} --replicas=0"
        )),
        "deployment.apps/web created\n"
    );
    assert_eq!(
        namespace.kubectl("create service clusterip db --tcp=5432"),
        "service/db created\n"
    );
    assert_eq!(
        namespace.kubectl("expose deployment web --port=80 --target-port=8080"),
        "service/web exposed\n"
    );
    assert_eq!(
        namespace.kubectl(
            "get service web -o jsonpath={.spec.selector.app}:{.spec.ports[0].targetPort}"
        ),
        "web:8080"
    );
}

#[test]
fn apply_creates_then_changes_then_leaves_alone() {
    let namespace = Cluster::shared().namespace();
    let manifest = |color: &str, extra: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: paint}}\ndata: {{color: {color}{extra}}}\n"
        )
    };
    assert_eq!(
        namespace.apply(&manifest("red", ", shade: dark")),
        "configmap/paint created\n"
    );
    assert_eq!(
        namespace.apply(&manifest("red", ", shade: dark")),
        "configmap/paint unchanged\n"
    );
    assert_eq!(
        namespace.apply(&manifest("green", "")),
        "configmap/paint configured\n"
    );
    assert_eq!(
        namespace.kubectl("get cm paint -o jsonpath={.data}"),
        "{\"color\":\"green\"}"
    );
}

#[test]
fn apply_takes_a_folder_and_says_what_is_wrong_with_a_file() {
    let namespace = Cluster::shared().namespace();
    let folder = tempfile::tempdir().expect("a folder can be made");
    for name in ["one", "two"] {
        std::fs::write(
            folder.path().join(format!("{name}.yaml")),
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n"),
        )
        .expect("a file can be written");
    }
    let path = folder.path().display();
    assert_eq!(
        namespace.kubectl(&format!("apply -f {path}")),
        "configmap/one created\nconfigmap/two created\n"
    );
    assert_eq!(
        namespace.kubectl(&format!("apply -f {path}")),
        "configmap/one unchanged\nconfigmap/two unchanged\n"
    );
    std::fs::write(
        folder.path().join("bad.yaml"),
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: bad}}\nspec: {{containers: [{{name: Bad_Name, image: {IMAGE}}}]}}\n"),
    )
    .expect("a file can be written");
    let error = namespace.kubectl_fails(&format!("apply -f {path}/bad.yaml"));
    assert!(
        error.starts_with("The Pod \"bad\" is invalid: spec.containers[0].name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 label must consist of"),
        "{error}"
    );
    std::fs::write(
        folder.path().join("unknown.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: unknown}\ndatum: {}\n",
    )
    .expect("a file can be written");
    let error = namespace.kubectl_fails(&format!("apply -f {path}/unknown.yaml"));
    assert!(error.contains("unknown field \"datum\""), "{error}");
}

#[test]
fn the_three_patches_differ_on_lists() {
    let namespace = Cluster::shared().namespace();
    namespace.kubectl(&format!(
        "create deployment web --image={IMAGE} --replicas=0"
    ));
    let patch = |kind: &str, body: &str| {
        let output = namespace
            .cluster
            .kubectl_command(&namespace.scoped(&format!("patch deployment web --type={kind} -p")))
            .arg(body)
            .output()
            .expect("kubectl runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let containers = || {
        namespace.kubectl("get deployment web -o jsonpath={.spec.template.spec.containers[*].name}")
    };
    let container = |name: &str| {
        format!(
            r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"{name}","image":"{IMAGE}"}}]}}}}}}}}"#
        )
    };
    patch("strategic", &container("added"));
    assert_eq!(containers(), "added busybox");
    patch("merge", &container("alone"));
    assert_eq!(containers(), "alone");
    patch(
        "json",
        r#"[{"op":"replace","path":"/spec/template/spec/containers/0/name","value":"renamed"}]"#,
    );
    assert_eq!(containers(), "renamed");
}

#[test]
fn label_annotate_and_edit_change_the_object() {
    let namespace = Cluster::shared().namespace();
    namespace.kubectl("create configmap settings --from-literal=color=blue");
    assert_eq!(
        namespace.kubectl("label cm settings tier=web"),
        "configmap/settings labeled\n"
    );
    let refusal = namespace.kubectl_fails("label cm settings tier=db");
    assert!(refusal.contains("--overwrite is false"), "{refusal}");
    namespace.kubectl("label cm settings tier=db --overwrite");
    assert_eq!(
        namespace.kubectl("get cm settings -o jsonpath={.metadata.labels.tier}"),
        "db"
    );
    assert_eq!(
        namespace.kubectl("label cm settings tier-"),
        "configmap/settings unlabeled\n"
    );
    assert_eq!(
        namespace.kubectl("annotate cm settings note=kept"),
        "configmap/settings annotated\n"
    );
    assert_eq!(
        namespace.kubectl("get cm settings -o jsonpath={.metadata.annotations.note}"),
        "kept"
    );

    let edited = namespace
        .cluster
        .kubectl_command(&namespace.scoped("edit cm settings"))
        .env("EDITOR", "sed -i s/blue/teal/")
        .output()
        .expect("kubectl runs");
    assert_eq!(
        String::from_utf8_lossy(&edited.stdout),
        "configmap/settings edited\n"
    );
    assert_eq!(
        namespace.kubectl("get cm settings -o jsonpath={.data.color}"),
        "teal"
    );
}

#[test]
fn a_stale_replace_is_a_conflict() {
    let namespace = Cluster::shared().namespace();
    namespace.kubectl("create configmap settings --from-literal=color=blue");
    let before = namespace.kubectl("get cm settings -o yaml");
    namespace.kubectl("label cm settings tier=web");
    let mut command = namespace
        .cluster
        .kubectl_command(&namespace.scoped("replace -f -"));
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("kubectl runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), before.as_bytes())
        .expect("kubectl reads");
    let output = child.wait_with_output().expect("kubectl ends");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("Operation cannot be fulfilled on configmaps \"settings\": the object has been modified; please apply your changes to the latest version and try again"),
        "{error}"
    );
}
