//! Cases of `testdata/apply.yaml`: what objects and configurations become, and who owns what.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::schema;

/// One object and what is done to it, one step after the other.
#[derive(Deserialize)]
struct Case {
    name: String,
    /// `apps.v1.Deployment`
    of: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    apply: Option<Value>,
    #[serde(default)]
    update: Option<Value>,
    manager: String,
    #[serde(default)]
    force: bool,
    /// The object after it; as before when it is not there.
    #[serde(default)]
    object: Option<Value>,
    /// The owners after it, by name.
    #[serde(default)]
    owners: Option<Value>,
    /// The conflicts instead.
    #[serde(default)]
    conflicts: Option<Vec<String>>,
}

struct OneVersion(Model);

impl Versions for OneVersion {
    fn convert(&self, _: &Value, _: &str, _: &str) -> Option<Value> {
        None
    }

    fn model(&self, version: &str) -> Option<Model> {
        (version == "v1").then_some(self.0)
    }
}

#[test]
fn steps() {
    let cases: Vec<Case> =
        serde_yaml_ng::from_str(include_str!("../../testdata/apply.yaml")).unwrap();
    for case in cases {
        let model = Model::of_type(schema::named(&case.of).unwrap());
        let mut live = model.empty().unwrap().into_owned();
        let mut entries = Vec::new();
        for (at, step) in case.steps.iter().enumerate() {
            let what = format!("{}, step {at}", case.name);
            let writer = Writer {
                version: "v1",
                model,
                subresource: "",
                manager: &step.manager,
                filter: &Filter::except(&["status"]),
                versions: &OneVersion(model),
                now: Time(Timestamp::from_second(i64::try_from(at).unwrap()).unwrap()),
            };
            if let Some(new) = &step.update {
                entries = writer.update(&live, new, entries).unwrap();
                live = new.clone();
            }
            if let Some(config) = &step.apply {
                let owners = decode(&entries).unwrap();
                match writer.apply(&live, config, owners, at > 0, step.force) {
                    Ok(applied) => {
                        assert!(step.conflicts.is_none(), "{what}");
                        live = applied.object.unwrap_or(live);
                        entries = encode(applied.owners);
                    }
                    Err(ApplyError::Conflicts(conflicts)) => {
                        let shown: Vec<String> = conflicts
                            .iter()
                            .map(|c| format!("{}: {}", c.manager, ShowPath(&c.path)))
                            .collect();
                        assert_eq!(Some(shown), step.conflicts, "{what}");
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
            if let Some(object) = &step.object {
                assert_eq!(&live, object, "{what}");
            }
            if let Some(owners) = &step.owners {
                let shown: serde_json::Map<String, Value> = entries
                    .iter()
                    .map(|entry| {
                        let fields = entry.fields_v1.clone().unwrap().0;
                        (entry.manager.clone().unwrap(), fields)
                    })
                    .collect();
                assert_eq!(&Value::Object(shown), owners, "{what}");
            }
        }
    }
}

fn model(of: &str) -> Model {
    Model::of_type(schema::named(of).unwrap())
}

#[test]
fn a_merged_list_keeps_both_orders_as_far_as_they_agree() {
    let names = |names: &str| -> Value {
        names
            .chars()
            .map(|name| json!({"name": name.to_string()}))
            .collect()
    };
    let cases = [
        ("abc", "", "abc"),
        ("", "ab", "ab"),
        ("abc", "b", "abc"),
        ("abc", "cb", "acb"),
        ("abc", "xa", "xabc"),
        ("abc", "ax", "abcx"),
        ("abcd", "dx", "abcdx"),
        ("abc", "axc", "abxc"),
        ("1234", "4x31", "24x31"),
    ];
    for (live, config, expected) in cases {
        let object = |list: &str| json!({"containers": names(list)});
        let merged = merge(model("core.v1.PodSpec"), &object(live), &object(config)).unwrap();
        let shown: String = merged["containers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|item| item["name"].as_str())
            .collect();
        assert_eq!(shown, expected, "{live} + {config}");
    }
}

#[test]
fn what_does_not_fit_the_schema_is_said() {
    let deployment = model("apps.v1.Deployment");
    let cases = [
        (
            json!({"spec": {"foo": 1}}),
            ".spec.foo: field not declared in schema",
        ),
        (
            json!({"spec": {"replicas": "1"}}),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (
            json!({"spec": {"paused": "x"}}),
            ".spec.paused: expected boolean, got &{x}",
        ),
        (json!({"spec": []}), ".spec: expected map, got &{[]}"),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}}),
            r#".spec.template.spec.containers: duplicate entries for key [name="a"]"#,
        ),
        (
            json!({"metadata": {"labels": {"a": 1}, "finalizers": [{}]}}),
            "errors:\n  .metadata.finalizers: element 0: associative list without keys has an element that's a map type\n  .metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
    ];
    for (object, expected) in cases {
        let said = validate(deployment, &object, Duplicates::Refused)
            .unwrap_err()
            .to_string();
        assert_eq!(said, expected);
    }
    let twice =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}});
    assert_eq!(validate(deployment, &twice, Duplicates::Allowed), Ok(()));
}

#[test]
fn items_that_are_the_same_are_owned_together() {
    let pod = model("core.v1.PodSpec");
    let list = |ports: &[i32]| {
        json!({"containers": [{"name": "a", "env": ports.iter()
        .map(|port| json!({"name": "x", "value": port.to_string()})).collect::<Vec<_>>()}]})
    };
    let fields = |set: &Set| set.to_json();
    let one = compare(pod, &list(&[1]), &list(&[1, 2])).unwrap();
    assert_eq!(
        fields(&one.added),
        r#"{"f:containers":{"k:{\"name\":\"a\"}":{"f:env":{"k:{\"name\":\"x\"}":{}}}}}"#
    );
    assert!(!one.removed.is_empty() && one.modified.is_empty());
    let both = compare(pod, &list(&[1, 2]), &list(&[1, 3])).unwrap();
    assert!(both.added.is_empty() && both.removed.is_empty() && !both.modified.is_empty());
    assert!(
        compare(pod, &list(&[1, 2]), &list(&[1, 2]))
            .unwrap()
            .is_same()
    );
}

#[test]
fn a_part_is_extracted_with_what_holds_it() {
    let object =
        json!({"spec": {"replicas": 1, "paused": true, "selector": {"matchLabels": {"a": "b"}}}});
    let set = Set::of_fields(&["spec.replicas"]);
    let deployment = model("apps.v1.Deployment");
    assert_eq!(
        extract_items(deployment, &object, &set),
        json!({"spec": {"replicas": 1}})
    );
    let removed = remove_items(deployment, &object, &set);
    assert_eq!(removed["spec"]["replicas"], Value::Null);
    assert_eq!(removed["spec"]["paused"], true);
}

#[test]
fn who_owned_a_part_of_what_is_atomic_owns_it_whole() {
    let set = Set::from_fields(&json!({"f:spec": {"f:selector": {"f:matchLabels": {"f:a": {}}}}}));
    let reconciled = reconcile(model("apps.v1.Deployment"), &set.unwrap()).unwrap();
    assert_eq!(reconciled.to_json(), r#"{"f:spec":{"f:selector":{}}}"#);
    assert_eq!(reconcile(model("apps.v1.Deployment"), &reconciled), None);
}

#[test]
fn the_oldest_of_many_updates_become_one() {
    let mut owners = Owners::new();
    for at in 0..12 {
        let owned = Owned {
            api_version: "v1".to_owned(),
            fields: Set::from_fields(&json!({format!("f:{at}"): {}})).unwrap(),
            time: Some(Time(Timestamp::from_second(at).unwrap())),
        };
        owners.insert(Manager::updating(&format!("m{at}"), "v1", ""), owned);
    }
    owners::cap(&mut owners);
    assert_eq!(owners.len(), MAX_UPDATE_MANAGERS);
    let entries = encode(owners);
    assert_eq!(entries[0].manager.as_deref(), Some("ancient-changes"));
    let fields = &entries[0].fields_v1.as_ref().unwrap().0;
    assert_eq!(fields, &json!({"f:0": {}, "f:1": {}, "f:2": {}}));
}

#[test]
fn managed_fields_that_are_not_understood() {
    type Change = fn(&mut ManagedFieldsEntry);
    let entry = |change: Change| {
        let mut entry = ManagedFieldsEntry {
            api_version: Some("v1".to_owned()),
            operation: Some("Apply".to_owned()),
            fields_type: Some("FieldsV1".to_owned()),
            ..ManagedFieldsEntry::default()
        };
        change(&mut entry);
        decode(&[entry])
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(entry(|_| {}), Ok(()));
    let cases: [(Change, &str); 4] = [
        (
            |entry| entry.operation = None,
            "operation must be `Apply` or `Update`",
        ),
        (
            |entry| entry.api_version = None,
            "apiVersion must not be empty",
        ),
        (
            |entry| entry.fields_type = None,
            "missing fieldsType in managed fields entry 0",
        ),
        (
            |entry| entry.fields_type = Some("x".to_owned()),
            r#"invalid fieldsType "x" in managed fields entry 0"#,
        ),
    ];
    for (change, message) in cases {
        assert_eq!(entry(change), Err(message.to_owned()));
    }
    assert!(is_reset(Some(&[])) && is_reset(Some(&[ManagedFieldsEntry::default()])));
    assert!(!is_reset(None));
}

#[test]
fn only_what_an_endpoint_can_change_passes() {
    let set = Set::from_fields(&json!({"f:spec": {"f:nodeName": {}, "f:containers": {
        "k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:resources": {"f:limits": {}}}}}}));
    let filter = Filter::Below(&[&["spec", "containers", "*", "resources"]]);
    assert_eq!(
        filter.apply(&set.unwrap()).to_json(),
        r#"{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:resources":{"f:limits":{}}}}}}"#
    );
}
