use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{Event, Pod, Secret},
};
use serde_json::json;

use super::*;

fn pod(json: &str) -> Result<(Pod, Vec<String>), String> {
    let mut problems = Vec::new();
    from_slice(json.as_bytes(), &mut problems)
        .map(|pod| (pod, problems))
        .map_err(|error| error.to_string())
}

#[test]
fn unknown_and_duplicate_fields_have_their_path() {
    let (pod, problems) = pod(r#"{
        "metadata": {"name": "a", "name": "b", "labels": {"x": "1", "x": "2"}},
        "spec": {"containers": [{"name": "c"}, {"name": "d", "foo": {"bar": 1}}]},
        "extra": 1
    }"#)
    .unwrap();
    assert_eq!(pod.metadata.name.as_deref(), Some("b"));
    assert_eq!(
        problems,
        [
            "duplicate field \"metadata.name\"",
            "duplicate field \"metadata.labels.x\"",
            "unknown field \"spec.containers[1].foo\"",
            "unknown field \"extra\"",
        ]
    );
}

#[test]
fn null_is_absent_and_so_is_an_empty_collection() {
    let (pod, problems) = pod(r#"{
        "metadata": {"creationTimestamp": null, "labels": {}, "finalizers": []},
        "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}, "status": {}
    }"#)
    .unwrap();
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(pod.metadata, Default::default());
    let volumes = pod.spec.unwrap().volumes.unwrap();
    assert!(volumes[0].empty_dir.is_some());
}

#[test]
fn zero_values_are_absent_unless_upstream_has_a_pointer() {
    let (pod, _) = pod(r#"{"spec": {
        "hostNetwork": false, "nodeName": "", "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "", "stdin": false,
            "env": [{"name": "e", "value": ""}]}]
    }}"#)
    .unwrap();
    assert_eq!(
        serde_json::to_value(&pod).unwrap(),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {}, "status": {},
            "spec": {"automountServiceAccountToken": false,
                "containers": [{"name": "c", "env": [{"name": "e"}], "resources": {}}]},
        })
    );
}

#[test]
fn quantities_and_times_become_canonical() {
    let (pod, _) = pod(r#"{
        "metadata": {"creationTimestamp": "2026-01-02T03:04:05.678+01:00"},
        "spec": {"containers": [{"name": "c", "resources": {
            "limits": {"cpu": 0.5, "memory": "1024Mi", "x/y": 3}}}]}
    }"#)
    .unwrap();
    let json = serde_json::to_value(&pod).unwrap();
    assert_eq!(
        json["metadata"]["creationTimestamp"],
        "2026-01-02T02:04:05Z"
    );
    assert_eq!(
        json["spec"]["containers"][0]["resources"]["limits"],
        json!({"cpu": "500m", "memory": "1Gi", "x/y": "3"})
    );
    let event: Event = from_slice(
        br#"{"eventTime": "2026-01-02T04:04:05.000000+01:00", "involvedObject": {}, "metadata": {}}"#,
        &mut Vec::new(),
    )
    .unwrap();
    let json = serde_json::to_value(&event).unwrap();
    assert_eq!(json["eventTime"], "2026-01-02T03:04:05.000000Z");
}

#[test]
fn errors_are_gos() {
    for (json, message) in [
        (
            r#"{"spec": {"containers": {}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type \
             []v1.Container",
        ),
        (
            r#"{"spec": {"containers": [{"name": 5}]}}"#,
            "json: cannot unmarshal number into Go struct field Container.spec.containers.name \
             of type string",
        ),
        (
            r#"{"spec": {"dnsPolicy": 5}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.dnsPolicy of type \
             v1.DNSPolicy",
        ),
        (
            r#"{"spec": {"hostNetwork": "yes"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type \
             bool",
        ),
        (
            r#"{"spec": {"terminationGracePeriodSeconds": 1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field \
             PodSpec.spec.terminationGracePeriodSeconds of type int64",
        ),
        (
            r#"{"metadata": {"labels": {"a": 1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of \
             type string",
        ),
        (
            r#"[]"#,
            "json: cannot unmarshal array into Go value of type v1.Pod",
        ),
        (
            r#"{"metadata": {"creationTimestamp": "now"}}"#,
            "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \
             \"2006\"",
        ),
        (
            r#"{"spec": {"overhead": {"cpu": "1x"}}}"#,
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        assert_eq!(pod(json).map(|_| ()), Err(message.to_owned()), "{json}");
    }
}

#[test]
fn a_secret_and_a_deployment_survive() {
    let json = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "data": {"a": "aGVsbG8="}});
    let secret: Secret = from_value(&json, &mut Vec::new()).unwrap();
    assert_eq!(serde_json::to_value(&secret).unwrap(), json);
    let json = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 0, "selector": {}, "strategy": {"rollingUpdate": {"maxSurge": "25%",
            "maxUnavailable": 1}}, "template": {"metadata": {}, "spec": {"containers": []}}},
        "status": {}});
    let deployment: Deployment = from_value(&json, &mut Vec::new()).unwrap();
    assert_eq!(serde_json::to_value(&deployment).unwrap(), json);
}

#[test]
fn untyped_json_knows_what_is_given_twice() {
    let mut problems = Vec::new();
    let value = untyped(
        br#"{"a": {"b": 1, "b": 2}, "c": [{"d": 1, "d": 1}]}"#,
        &mut problems,
    );
    assert_eq!(value.unwrap(), json!({"a": {"b": 2}, "c": [{"d": 1}]}));
    assert_eq!(
        problems,
        ["duplicate field \"a.b\"", "duplicate field \"c[0].d\""]
    );
}

#[test]
fn the_claims_of_a_stateful_set_are_claims_whatever_they_say() {
    let json = br#"{"spec": {"volumeClaimTemplates": [{"kind": "Other", "apiVersion": "v9",
        "metadata": {"name": "v"}}]}}"#;
    let set: StatefulSet = from_slice(json, &mut Vec::new()).unwrap();
    let claims = set.spec.unwrap().volume_claim_templates.unwrap();
    assert_eq!(claims[0].metadata.name.as_deref(), Some("v"));
}
