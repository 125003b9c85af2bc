use serde_json::{Value, json};

use super::*;
use crate::{
    kinds,
    schema::{Field, Presence, Shape, ValueType},
};

fn there_and_back(object: &Value) -> Value {
    let bytes =
        from_json(object.to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}: {object}"));
    let json = to_json(&bytes, "", "").unwrap_or_else(|e| panic!("{e}: {object}"));
    serde_json::from_slice(&json)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&json)))
}

#[test]
fn a_pod_survives() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "labels": {"app": "web", "empty": ""},
            "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 7,
            "managedFields": [{"manager": "m", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {}}}}]},
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "100m"}},
                "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 3},
                "readinessProbe": {"tcpSocket": {"port": 8080}}}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"tolerationSeconds": 0}],
        },
        "status": {"phase": "Running"},
    });
    assert_eq!(there_and_back(&pod), pod);
}

#[test]
fn special_types_survive() {
    for object in [
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {},
            "eventTime": "2026-01-02T03:04:05.000006Z", "source": {}, "involvedObject": {},
            "reportingComponent": "", "reportingInstance": ""}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"a": "aGVsbG8="}}),
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "code": 404, "details": {"causes": [{"field": "x"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "propagationPolicy": "Foreground", "preconditions": {"uid": "x"}}),
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {},
            "data": {"spec": {"template": {"a": [1, 2.5, null]}}}, "revision": 3}),
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {}, "status": {},
            "spec": {"request": "YQ==", "signerName": "s", "extra": {"k": ["a", "b"]}}}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {}, "status": {"conditions": null, "acceptedNames":
            {"plural": "", "kind": ""}, "storedVersions": null},
        "spec": {"group": "g", "scope": "Namespaced",
            "names": {"plural": "p", "kind": "K"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema":
                {"openAPIV3Schema": {"type": "object", "properties": {
                    "a": {"type": "array", "items": {"type": "string"}, "maximum": 2.5},
                    "b": {"additionalProperties": false, "default": {"x": 1}},
                    "c": {"additionalProperties": {"type": "integer"}, "enum": ["a", 1]},
                }}}}]}}),
    ] {
        let mut expected = object.clone();
        remove_nulls(&mut expected);
        let mut found = there_and_back(&object);
        remove_nulls(&mut found);
        assert_eq!(found, expected);
    }
}

/// Except in what is any JSON.
fn remove_nulls(value: &mut Value) {
    if let Value::Object(entries) = value {
        entries.retain(|_, value| !value.is_null());
        entries.values_mut().for_each(remove_nulls);
    }
}

#[test]
fn the_envelope_may_leave_the_kind_to_the_url() {
    let bytes = from_json(br#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"b"}}"#).unwrap();
    // Without the type: the tag, its length, and what follows.
    let raw = decode::envelope(&bytes[4..]).unwrap().raw;
    let mut bare = MAGIC.to_vec();
    wire::bytes(&mut bare, 2, raw);
    let json = to_json(&bare, "v1", "ConfigMap").unwrap();
    assert_eq!(
        String::from_utf8(json).unwrap(),
        r#"{"kind":"ConfigMap","apiVersion":"v1","data":{"a":"b"}}"#
    );
}

#[test]
fn what_is_no_object_is_refused() {
    assert_eq!(to_json(b"{}", "v1", "Pod"), Err(ProtobufError::NoMagic));
    assert_eq!(
        to_json(b"k8s\0\x12\x05ab", "v1", "Pod"),
        Err(ProtobufError::Truncated)
    );
    assert_eq!(
        from_json(br#"{"apiVersion":"example.com/v1","kind":"Boat"}"#),
        Err(ProtobufError::UnknownKind {
            api_version: "example.com/v1".to_owned(),
            kind: "Boat".to_owned()
        })
    );
}

#[test]
fn a_watch_event_is_framed() {
    let object = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#;
    let frame = watch_frame("ADDED", object).unwrap();
    let (length, event) = frame.split_at(4);
    assert_eq!(
        u32::from_be_bytes(length.try_into().unwrap()) as usize,
        event.len()
    );
    let entries = wire::entries(event).unwrap();
    assert_eq!(decode::text(entries[0], "type"), Ok("ADDED"));
    let raw = wire::entries(decode::message(entries[1], "object").unwrap()).unwrap();
    let held = to_json(decode::message(raw[0], "raw").unwrap(), "", "").unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&held).unwrap(),
        serde_json::from_slice::<Value>(object).unwrap()
    );
}

#[test]
fn a_list_takes_encoded_items() {
    let item = |name: &str| {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        from_json(object.to_string().as_bytes()).unwrap()
    };
    let items = [item("a"), item("b")];
    let bytes = list(
        "v1",
        "ConfigMapList",
        &json!({"resourceVersion": "7"}),
        items.iter().map(Ok),
    );
    let json = to_json(&bytes.unwrap(), "", "").unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&json).unwrap(),
        json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"},
            "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]})
    );
}

/// An object of the type in which every field has a value that is not zero. Types within
/// themselves, of which there are the schemas of custom resources, end at the second level.
fn filled(of: &'static Type, within: &mut Vec<&'static str>) -> Value {
    let mut object = serde_json::Map::new();
    within.push(of.name);
    of.for_each_field(&mut |field| {
        if let Some(value) = filled_field(field, within) {
            object.insert(field.name.to_owned(), value);
        }
    });
    within.pop();
    Value::Object(object)
}

fn filled_field(field: &'static Field, within: &mut Vec<&'static str>) -> Option<Value> {
    let one = filled_value(field.value_type(), within)?;
    Some(match field.shape {
        Shape::One => one,
        Shape::List => json!([one]),
        Shape::Map => json!({"one": one}),
        Shape::MapOfLists => json!({"one": [one], "two": [one, one]}),
    })
}

fn filled_value(of: ValueType, within: &mut Vec<&'static str>) -> Option<Value> {
    Some(match of {
        ValueType::Object(of) if within.contains(&of.name) => return None,
        ValueType::Object(of) => filled(of, within),
        ValueType::String => json!("text \u{e9}\""),
        ValueType::Int32 => json!(-7),
        ValueType::Int64 => json!(1_i64 << 40),
        ValueType::Bool => json!(true),
        ValueType::Double => json!(0.5),
        ValueType::Bytes => json!("AAEC"),
        ValueType::Quantity => json!("1500m"),
        ValueType::Time => json!("2026-01-02T03:04:05Z"),
        ValueType::MicroTime => json!("2026-01-02T03:04:05.000006Z"),
        ValueType::Duration => json!("1m0.5s"),
        ValueType::IntOrString => json!("25%"),
        ValueType::RawExtension | ValueType::FieldsV1 => json!({"any": [1, "x", {}]}),
        ValueType::Json => json!([1, "x"]),
        ValueType::JsonSchemaPropsOrArray => json!([{"type": "string"}]),
        ValueType::JsonSchemaPropsOrBool => json!({"type": "string"}),
        ValueType::JsonSchemaPropsOrStringArray => json!(["a", "b"]),
    })
}

#[test]
fn every_kind_survives_with_all_its_fields() {
    for kind in kinds::builtin() {
        let of = crate::schema::of_kind(&kind.group, &kind.version, &kind.kind).unwrap();
        let mut object = filled(of, &mut Vec::new());
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.kind);
        assert_eq!(there_and_back(&object), object, "{}", kind.kind);
        let mut problems = Vec::new();
        let typed = kind.strategy.decode_value(&object, &mut problems);
        assert!(typed.is_ok(), "{}: {:?}", kind.kind, typed.err());
        assert_eq!(problems, Vec::<String>::new(), "{}", kind.kind);
    }
}

#[test]
fn a_pointer_keeps_its_zero_and_a_value_does_not() {
    let spec = crate::schema::named("core.v1.PodSpec").unwrap();
    let presence = |name: &str| spec.field(name).unwrap().presence;
    assert_eq!(presence("hostNetwork"), Presence::Omitted);
    assert_eq!(presence("enableServiceLinks"), Presence::Pointer);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "status": {},
        "spec": {"hostNetwork": false, "enableServiceLinks": false}});
    assert_eq!(
        there_and_back(&pod)["spec"],
        json!({"enableServiceLinks": false})
    );
}
