//! Pods and what each standard has against them.

use serde_json::{Value, json};

use super::{super::policy, *};

/// A pod that keeps to the strictest standard.
fn good() -> Value {
    json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [{"name": "i", "image": "i", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        }}],
        "containers": [{"name": "c", "image": "i", "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        }}],
    })
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(change)) if change.len() <= into.len() => {
            for (into, change) in into.iter_mut().zip(change) {
                merge(into, change);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

fn found(standard: &str, annotations: &Value, change: &Value) -> String {
    let (level, version) = standard.split_once(':').unwrap();
    let labels = [
        (policy::ENFORCE.to_owned(), level.to_owned()),
        (policy::ENFORCE_VERSION.to_owned(), version.to_owned()),
    ];
    let (policy, errors) = policy::Policy::of_labels(Some(&labels.into()));
    assert!(errors.is_empty(), "{standard}");
    let mut spec = good();
    merge(&mut spec, change);
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    let annotations: Option<BTreeMap<String, String>> =
        serde_json::from_value(annotations.clone()).unwrap();
    let subject = Subject::new(annotations.as_ref(), &spec);
    details(&evaluate(policy.enforce, &subject))
}

#[test]
fn a_hardened_pod_keeps_to_every_standard() {
    for standard in [
        "privileged:latest",
        "baseline:latest",
        "restricted:latest",
        "restricted:v1.0",
        "restricted:v1.99",
    ] {
        assert_eq!(found(standard, &Value::Null, &json!({})), "", "{standard}");
    }
}

#[test]
fn privileged_allows_everything() {
    let change =
        json!({"hostNetwork": true, "containers": [{"securityContext": {"privileged": true}}]});
    assert_eq!(found("privileged:latest", &Value::Null, &change), "");
}

/// The change of the good pod, the standard and what it says.
fn cases() -> Vec<(Value, &'static str, &'static str)> {
    let container = |security: Value| json!({"containers": [{"securityContext": security}]});
    let both = |security: Value| {
        json!({
            "containers": [{"securityContext": security}],
            "initContainers": [{"securityContext": security}],
        })
    };
    let pod = |security: Value| json!({"securityContext": security});
    vec![
        (
            pod(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "baseline:latest",
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            both(json!({"capabilities": {"add": ["SYS_ADMIN", "BPF", "CHOWN"]}})),
            "baseline:latest",
            "non-default capabilities (containers \"i\", \"c\" must not include \"BPF\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"hostNetwork": true, "hostPID": true, "hostIPC": true}),
            "baseline:latest",
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
        ),
        (
            json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "emptyDir": {}}]}),
            "baseline:latest",
            "hostPath volumes (volume \"a\")",
        ),
        (
            json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "nfs": {"server": "s", "path": "/"}}, {"name": "d"}]}),
            "restricted:latest",
            "restricted volume types (volumes \"a\", \"b\", \"d\" use restricted volume types \"hostPath\", \"nfs\", \"unknown\")",
        ),
        (
            json!({"containers": [{"ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 443}, {"containerPort": 3, "hostPort": 0}]}]}),
            "baseline:latest",
            "hostPort (container \"c\" uses hostPorts 443, 80)",
        ),
        (
            json!({
                "containers": [{"livenessProbe": {"httpGet": {"port": 1, "host": "a"}}, "lifecycle": {"preStop": {"tcpSocket": {"port": 1, "host": "b"}}}}],
                "initContainers": [{"readinessProbe": {"tcpSocket": {"port": 1, "host": "a"}}}],
            }),
            "baseline:latest",
            "probe or lifecycle host (containers \"c\", \"i\" use probe or lifecycle hosts \"a\", \"b\")",
        ),
        (
            json!({"containers": [{"livenessProbe": {"httpGet": {"port": 1, "host": "a"}}}]}),
            "baseline:v1.33",
            "",
        ),
        (
            container(json!({"privileged": true})),
            "baseline:latest",
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            container(json!({"procMount": "Unmasked"})),
            "baseline:latest",
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"hostUsers": false, "containers": [{"securityContext": {"procMount": "Unmasked"}}]}),
            "baseline:latest",
            "",
        ),
        (
            json!({"hostUsers": false, "containers": [{"securityContext": {"procMount": "Unmasked"}}]}),
            "restricted:latest",
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"hostUsers": false, "containers": [{"securityContext": {"procMount": "Unmasked"}}]}),
            "baseline:v1.34",
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({
                "securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}},
                "containers": [{"securityContext": {"seLinuxOptions": {"type": "container_engine_t", "role": "r"}}}],
            }),
            "baseline:latest",
            "seLinuxOptions (pod and container \"c\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set; role may not be set)",
        ),
        (
            pod(json!({"seLinuxOptions": {"type": "container_engine_t"}})),
            "baseline:v1.30",
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")",
        ),
        (
            both(json!({"seccompProfile": {"type": "Unconfined"}})),
            "baseline:latest",
            "seccompProfile (containers \"i\", \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            pod(
                json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net.ipv4.tcp_rmem", "value": "1"}]}),
            ),
            "baseline:latest",
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            pod(
                json!({"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}, {"name": "net.ipv4.tcp_fin_timeout", "value": "1"}]}),
            ),
            "baseline:v1.28",
            "forbidden sysctls (net.ipv4.tcp_rmem, net.ipv4.tcp_fin_timeout)",
        ),
        (
            pod(json!({"windowsOptions": {"hostProcess": true}})),
            "baseline:latest",
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            both(json!({"allowPrivilegeEscalation": true})),
            "restricted:latest",
            "allowPrivilegeEscalation != false (containers \"i\", \"c\" must set securityContext.allowPrivilegeEscalation=false)",
        ),
        (
            container(json!({"allowPrivilegeEscalation": null})),
            "restricted:v1.7",
            "",
        ),
        (
            both(json!({"capabilities": {"drop": ["NET_RAW"], "add": ["NET_ADMIN"]}})),
            "restricted:latest",
            "unrestricted capabilities (containers \"i\", \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; containers \"i\", \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            pod(json!({"runAsNonRoot": false})),
            "restricted:latest",
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (
            json!({"securityContext": {"runAsNonRoot": null}, "containers": [{"securityContext": {"runAsNonRoot": true}}]}),
            "restricted:latest",
            "runAsNonRoot != true (pod or container \"i\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            json!({"hostUsers": false, "securityContext": {"runAsNonRoot": false, "runAsUser": 0}}),
            "restricted:latest",
            "",
        ),
        (
            json!({"securityContext": {"runAsUser": 0}, "containers": [{"securityContext": {"runAsUser": 0}}]}),
            "restricted:latest",
            "runAsUser=0 (pod and container \"c\" must not set runAsUser=0)",
        ),
        (pod(json!({"runAsUser": 0})), "restricted:v1.22", ""),
        (
            json!({"securityContext": {"seccompProfile": null}, "containers": [{"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}}}]}),
            "restricted:latest",
            "seccompProfile (pod or container \"i\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
        (
            pod(json!({"seccompProfile": {"type": "Unconfined"}})),
            "restricted:latest",
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"os": {"name": "windows"}, "securityContext": {"seccompProfile": null}, "containers": [{"securityContext": null}]}),
            "restricted:latest",
            "",
        ),
        (
            json!({"os": {"name": "windows"}, "containers": [{"securityContext": null}]}),
            "restricted:v1.24",
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"])",
        ),
        (
            json!({
                "hostPID": true,
                "ephemeralContainers": [{"name": "e", "image": "i", "securityContext": {"privileged": true}}],
            }),
            "restricted:latest",
            "host namespaces (hostPID=true), privileged (container \"e\" must not set securityContext.privileged=true), allowPrivilegeEscalation != false (container \"e\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"e\" must set securityContext.capabilities.drop=[\"ALL\"])",
        ),
    ]
}

#[test]
fn every_rule_finds_what_it_forbids_from_its_release_on() {
    for (change, standard, wanted) in cases() {
        let said = found(standard, &Value::Null, &change);
        assert_eq!(said, wanted, "{standard} {change}");
    }
}

#[test]
fn annotations_count_as_the_fields_that_they_stood_for() {
    let armor = json!({"container.apparmor.security.beta.kubernetes.io/c": "unconfined"});
    assert_eq!(
        found("baseline:latest", &armor, &json!({})),
        "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\")"
    );
    let seccomp = json!({
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/c": "localhost/x",
    });
    assert_eq!(
        found("baseline:v1.18", &seccomp, &json!({})),
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"
    );
    assert_eq!(found("baseline:v1.19", &seccomp, &json!({})), "");
}
