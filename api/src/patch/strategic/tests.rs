use serde_json::json;

use super::*;
use crate::schema;

fn patched(of: &str, document: Value, patch: Value) -> Result<Value, String> {
    apply(document, patch, schema::named(of).unwrap()).map_err(|error| error.to_string())
}

fn pod_spec(document: Value, patch: Value) -> Result<Value, String> {
    patched("core.v1.PodSpec", document, patch)
}

#[test]
fn lists_of_objects_merge_by_key() {
    let document = json!({"containers": [
        {"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}], "args": ["p", "q"]},
        {"name": "b", "image": "1"},
    ]});
    assert_eq!(
        pod_spec(
            document.clone(),
            json!({"containers": [{"name": "a", "image": "2", "args": ["r"],
                "env": [{"name": "y", "value": "2"}]}]})
        ),
        Ok(json!({"containers": [
            {"name": "a", "image": "2", "args": ["r"],
             "env": [{"name": "y", "value": "2"}, {"name": "x", "value": "1"}]},
            {"name": "b", "image": "1"},
        ]}))
    );
    assert_eq!(
        pod_spec(
            document.clone(),
            json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "c"}]})
        ),
        Ok(json!({"containers": [{"name": "c"}, {"name": "b", "image": "1"}]}))
    );
    assert_eq!(
        pod_spec(
            document,
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}]})
        ),
        Ok(json!({"containers": [{"name": "c"}]}))
    );
}

#[test]
fn set_element_order_orders_and_keeps_what_the_server_added() {
    let document = json!({"containers": [
        {"name": "a"}, {"name": "s"}, {"name": "b"}, {"name": "c"},
    ]});
    assert_eq!(
        pod_spec(
            document.clone(),
            json!({
                "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
                "containers": [{"name": "b", "image": "2"}],
            })
        ),
        Ok(json!({"containers": [
            {"name": "s"}, {"name": "c"}, {"name": "b", "image": "2"}, {"name": "a"},
        ]}))
    );
    assert_eq!(
        pod_spec(
            document,
            json!({
                "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
                "containers": [{"name": "c", "$patch": "delete"}],
            })
        ),
        Ok(json!({"containers": [{"name": "a"}, {"name": "s"}, {"name": "b"}]}))
    );
}

#[test]
fn primitive_lists_merge_and_shrink() {
    let meta = |document, patch| patched("meta.v1.ObjectMeta", document, patch);
    let document = json!({"finalizers": ["a", "b", "c"]});
    assert_eq!(
        meta(document.clone(), json!({"finalizers": ["d", "b"]})),
        Ok(json!({"finalizers": ["d", "a", "b", "c"]}))
    );
    assert_eq!(
        meta(
            document,
            json!({
                "$deleteFromPrimitiveList/finalizers": ["b"],
                "$setElementOrder/finalizers": ["c", "a"],
            })
        ),
        Ok(json!({"finalizers": ["c", "a"]}))
    );
}

#[test]
fn retain_keys_drops_the_other_members_of_a_union() {
    let deployment = |document, patch| patched("apps.v1.DeploymentSpec", document, patch);
    assert_eq!(
        deployment(
            json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}})
        ),
        Ok(json!({"strategy": {"type": "Recreate"}}))
    );
    assert_eq!(
        deployment(
            json!({"strategy": {}}),
            json!({"strategy": {"$retainKeys": [], "type": "Recreate"}})
        ),
        Err("invalid patch format of retainKeys".to_owned())
    );
}

#[test]
fn objects_are_replaced_and_deleted() {
    let document = json!({"securityContext": {"runAsUser": 1}, "nodeSelector": {"a": "b"}});
    assert_eq!(
        pod_spec(
            document.clone(),
            json!({"securityContext": {"$patch": "replace", "runAsGroup": 2},
                "nodeSelector": {"c": "d", "a": null}})
        ),
        Ok(json!({"securityContext": {"runAsGroup": 2}, "nodeSelector": {"c": "d"}}))
    );
    assert_eq!(
        pod_spec(
            document,
            json!({"securityContext": {"$patch": "delete"}, "nodeSelector": null,
                "affinity": {"nodeAffinity": null, "podAffinity": {"$patch": "delete"}}})
        ),
        Ok(json!({"securityContext": {}, "affinity": {}}))
    );
}

#[test]
fn errors_are_upstreams() {
    let document = json!({"containers": [{"name": "a"}], "restartPolicy": "Always"});
    for (patch, error) in [
        (
            json!({"containers": [{"image": "x"}]}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"containers": [{"name": "a", "$patch": "foo"}]}),
            "unknown patch type: foo in map: map[$patch:foo name:a]",
        ),
        (
            json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}),
            "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n\
             [map[name:b]]\n",
        ),
        (
            json!({"$setElementOrder/foo": []}),
            "unable to find api field in struct PodSpec for the json field \"foo\"",
        ),
        (
            json!({"$setElementOrder/nodeSelector": []}),
            "expected slice or array type, but got: struct",
        ),
        (
            json!({"$setElementOrder/containers": {}}),
            "expected a []interface {}, but received a map[string]interface {}",
        ),
        (
            json!({"$setElementOrder/restartPolicy": []}),
            "expected a []interface {}, but received a string",
        ),
        (
            json!({"containers": [{"name": "a", "$patch": 5}]}),
            "unknown patch type: %!s(int64=5) in map: map[$patch:5 name:a]",
        ),
        (
            json!({"containers": [{"name": "a", "$patch": {"b": null, "c": [true, 1.5]}}]}),
            "unknown patch type: map[b:%!s(<nil>) c:[%!s(bool=true) %!s(float64=1.5)]] in map: \
             map[$patch:map[b:<nil> c:[true 1.5]] name:a]",
        ),
    ] {
        assert_eq!(
            pod_spec(document.clone(), patch.clone()),
            Err(error.to_owned()),
            "{patch}"
        );
    }
}
