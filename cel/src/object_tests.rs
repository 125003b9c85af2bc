//! What is wrong with the expressions of objects of each kind that has some.

use coracle_api::{kinds, object::Object, strategy::Strategy};
use serde_json::{Value, json};

use crate::check;

/// An object, and what is set in it.
struct Case {
    object: Value,
    pointer: &'static str,
    strategy: &'static dyn Strategy,
}

impl Case {
    fn new(api_version: &str, kind: &str, content: &str) -> Self {
        let (group, version) = api_version.split_once('/').expect("a group");
        let found = kinds::find(group, version, kind).expect("a kind");
        let mut object: Value = serde_json::from_str(content).expect("JSON");
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        Case {
            object,
            pointer: "",
            strategy: &*found.strategy,
        }
    }

    fn at(&mut self, pointer: &'static str) -> &mut Self {
        self.pointer = pointer;
        self
    }

    fn with(&self, value: &Value) -> Box<dyn Object> {
        let mut object = self.object.clone();
        *object.pointer_mut(self.pointer).expect("a field") = value.clone();
        let json = object.to_string();
        let object = self.strategy.decode(json.as_bytes(), &mut Vec::new());
        object.expect("an object")
    }

    /// What is wrong at a create with this value, each without the marked line.
    fn created(&self, value: &Value) -> Vec<String> {
        self.told(&*self.with(value), None)
    }

    fn updated(&self, old: &Value, new: &Value) -> Vec<String> {
        self.told(&*self.with(new), Some(&*self.with(old)))
    }

    fn told(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        let old = old.map_or_else(Vec::new, |old| self.strategy.expressions(old));
        let errors = check(&self.strategy.expressions(new), &old);
        let lines = errors.into_iter().map(|error| {
            let told = error.to_string();
            told.lines().next().unwrap_or_default().to_owned()
        });
        lines.collect()
    }
}

fn nothing() -> Vec<String> {
    Vec::new()
}

const POLICY: &str = r#"{ "metadata": { "name": "p" }, "spec": {
    "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
    "matchConditions": [{ "name": "a", "expression": "true" }],
    "variables": [{ "name": "one", "expression": "1" }, { "name": "two", "expression": "variables.one + 1" }],
    "validations": [{ "expression": "variables.two > 1", "messageExpression": "'m'" }],
    "auditAnnotations": [{ "key": "k", "valueExpression": "'v'" }] } }"#;

#[test]
fn validating_policies() {
    let mut policy = Case::new(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        POLICY,
    );
    let expression = "/spec/validations/0/expression";
    assert_eq!(
        policy
            .at(expression)
            .created(&json!("object.a == params.b")),
        nothing()
    );
    for (pointer, value, expected) in [
        (
            expression,
            "object.",
            "spec.validations[0].expression: Invalid value: \"object.\": compilation failed: ERROR: <input>:1:8: Syntax error: ",
        ),
        (
            expression,
            "objekt.a == 1",
            "spec.validations[0].expression: Invalid value: \"objekt.a == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'objekt' (in container '')",
        ),
        (
            expression,
            "object.a.nope()",
            "spec.validations[0].expression: Invalid value: \"object.a.nope()\": compilation failed: ERROR: <input>:1:14: undeclared reference to 'nope' (in container '')",
        ),
        (
            expression,
            "1",
            "spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
        ),
        (
            expression,
            "object.a",
            "spec.validations[0].expression: Invalid value: \"object.a\": must evaluate to bool but got dyn",
        ),
        (
            expression,
            "variables.three",
            "spec.validations[0].expression: Invalid value: \"variables.three\": compilation failed: ERROR: <input>:1:10: undefined field 'three'",
        ),
        (
            "/spec/validations/0/messageExpression",
            "true",
            "spec.validations[0].messageExpression: Invalid value: \"true\": must evaluate to string but got bool",
        ),
        (
            "/spec/validations/0/messageExpression",
            "authorizer.path('/').check('get').reason()",
            "spec.validations[0].messageExpression: Invalid value: \"authorizer.path('/').check('get').reason()\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer' (in container '')",
        ),
        (
            "/spec/matchConditions/0/expression",
            " 'a' ",
            "spec.matchConditions[0].expression: Invalid value: \"'a'\": must evaluate to bool but got string",
        ),
        (
            "/spec/matchConditions/0/expression",
            "variables.one == 1",
            "spec.matchConditions[0].expression: Invalid value: \"variables.one == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'variables' (in container '')",
        ),
        (
            "/spec/variables/1/expression",
            "variables.two",
            "spec.variables[1].expression: Invalid value: \"variables.two\": compilation failed: ERROR: <input>:1:10: undefined field 'two'",
        ),
        (
            "/spec/auditAnnotations/0/valueExpression",
            " 1 ",
            "spec.auditAnnotations[0].valueExpression: Invalid value: \" 1 \": must evaluate to one of [string null_type] but got int",
        ),
    ] {
        let told = policy.at(pointer).created(&json!(value));
        assert!(
            matches!(told.as_slice(), [one] if one.starts_with(expected)),
            "{value}: {told:?}"
        );
    }
    let blank = policy.at(expression).created(&json!(" "));
    assert_eq!(blank, nothing(), "it is refused as such");
    let without = policy.at("/spec/paramKind").created(&Value::Null);
    assert_eq!(without, nothing());
}

#[test]
fn what_a_policy_had_is_not_looked_at_again_unless_it_speaks_of_something_else() {
    let mut policy = Case::new(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        POLICY,
    );
    let (bad, worse) = (json!("nope == 1"), json!("nope == 2"));
    let expression = policy.at("/spec/validations/0/expression");
    assert_eq!(expression.updated(&bad, &bad), nothing());
    assert_eq!(expression.updated(&bad, &worse).len(), 1);
    policy.object["spec"]["validations"][0]["expression"] = json!("params.a == 1");
    let kind = policy.object["spec"]["paramKind"].clone();
    let kind = policy.at("/spec/paramKind").updated(&kind, &Value::Null);
    assert_eq!(kind.len(), 1, "{kind:?}");
    policy.object["spec"]["validations"][0]["expression"] = json!("variables.two > 1");
    let variable = policy.at("/spec/variables/1/name");
    let variable = variable.updated(&json!("two"), &json!("three"));
    assert_eq!(variable.len(), 1, "{variable:?}");
}

#[test]
fn mutating_policies() {
    const POLICY: &str = r#"{ "metadata": { "name": "p" }, "spec": { "mutations": [
        { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": "Object{}" } },
        { "patchType": "JSONPatch", "jsonPatch": { "expression": "[]" } }] } }"#;
    let mut policy = Case::new(
        "admissionregistration.k8s.io/v1",
        "MutatingAdmissionPolicy",
        POLICY,
    );
    let applied = "/spec/mutations/0/applyConfiguration/expression";
    let patch = "/spec/mutations/1/jsonPatch/expression";
    for (pointer, value, expected) in [
        (
            applied,
            "Object{metadata: Object.metadata{labels: {'a': 'b'}}}",
            "",
        ),
        (applied, "has(object.a) ? Object{a: 1} : Object{}", ""),
        (
            applied,
            "{}",
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"{}\": must evaluate to Object but got map(dyn, dyn)",
        ),
        (patch, "[JSONPatch{op: 'test', path: '/a', value: 1}]", ""),
        (
            patch,
            "[JSONPatch{op: 'test', path: 1}]",
            "spec.mutations[1].jsonPatch.expression: Invalid value: \"[JSONPatch{op: 'test', path: 1}]\": compilation failed: ERROR: <input>:1:28: expected type of field 'path' is 'string' but provided type is 'int'",
        ),
        (
            patch,
            "'a'",
            "spec.mutations[1].jsonPatch.expression: Invalid value: \"'a'\": must evaluate to list(JSONPatch) but got string",
        ),
    ] {
        let told = policy.at(pointer).created(&json!(value));
        // An empty list may be of anything, and so is not of patches.
        let told: Vec<_> = told.iter().filter(|one| !one.contains("\"[]\"")).collect();
        let expected: Vec<&str> = [expected]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        assert_eq!(told, expected, "{value}");
    }
}

#[test]
fn webhooks() {
    const HOOKS: &str = r#"{ "metadata": { "name": "h" }, "webhooks": [{ "name": "a.b.c",
        "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": { "url": "https://a" },
        "matchConditions": [{ "name": "a", "expression": "true" }] }] }"#;
    for kind in [
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
    ] {
        let mut hooks = Case::new("admissionregistration.k8s.io/v1", kind, HOOKS);
        let hooks = hooks.at("/webhooks/0/matchConditions/0/expression");
        for good in [
            "request.operation == 'CREATE'",
            "!(request.resource.group == 'coordination.k8s.io' && request.resource.resource == 'leases')",
            "!('system:nodes' in request.userInfo.groups)",
            "authorizer.group('a').resource('b').name('c').check('bypass').allowed()",
        ] {
            assert_eq!(hooks.created(&json!(good)), nothing(), "{good}");
        }
        for (bad, expected) in [
            (
                "params.a == 1",
                "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')",
            ),
            (
                "request.nope == ''",
                "compilation failed: ERROR: <input>:1:8: undefined field 'nope'",
            ),
            ("request.name", "must evaluate to bool but got string"),
        ] {
            let expected = format!(
                "webhooks[0].matchConditions[0].expression: Invalid value: \"{bad}\": {expected}"
            );
            assert_eq!(hooks.created(&json!(bad)), [expected]);
            assert_eq!(hooks.updated(&json!(bad), &json!(bad)), nothing());
        }
    }
}

#[test]
fn selectors_of_devices() {
    const CLASS: &str = r#"{ "metadata": { "name": "c" },
        "spec": { "selectors": [{ "cel": { "expression": "true" } }] } }"#;
    const CLAIM: &str = r#"{ "metadata": { "name": "c" }, "spec": { "devices": { "requests": [
        { "name": "a", "exactly": { "deviceClassName": "c", "selectors": [{ "cel": { "expression": "true" } }] } },
        { "name": "b", "firstAvailable": [{ "name": "c", "deviceClassName": "c",
            "selectors": [{ "cel": { "expression": "true" } }] }] }] } } }"#;
    let template = format!(r#"{{ "metadata": {{ "name": "t" }}, "spec": {CLAIM} }}"#);
    let (class, claim) = ("DeviceClass", "ResourceClaim");
    for (kind, content, pointer, path) in [
        (
            class,
            CLASS,
            "/spec/selectors/0/cel/expression",
            "spec.selectors[0].cel.expression",
        ),
        (
            claim,
            CLAIM,
            "/spec/devices/requests/0/exactly/selectors/0/cel/expression",
            "spec.devices.requests[0].exactly.selectors[0].cel.expression",
        ),
        (
            claim,
            CLAIM,
            "/spec/devices/requests/1/firstAvailable/0/selectors/0/cel/expression",
            "spec.devices.requests[1].firstAvailable[0].selectors[0].cel.expression",
        ),
        (
            "ResourceClaimTemplate",
            &template,
            "/spec/spec/devices/requests/0/exactly/selectors/0/cel/expression",
            "spec.spec.devices.requests[0].exactly.selectors[0].cel.expression",
        ),
    ] {
        let mut object = Case::new("resource.k8s.io/v1", kind, content);
        let object = object.at(pointer);
        for good in ["device.attributes['a'].b", "device.driver == 'a'"] {
            assert_eq!(object.created(&json!(good)), nothing(), "{good}");
        }
        for (bad, expected) in [
            (
                "device.driver",
                "must evaluate to bool or the unknown type, not string",
            ),
            (
                "dyn(true)",
                "must evaluate to bool or the unknown type, not dyn",
            ),
            (
                "device.nope",
                "compilation failed: ERROR: <input>:1:7: undefined field 'nope'",
            ),
            (
                "nope(device)",
                "compilation failed: ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')",
            ),
        ] {
            let expected = format!("{path}: Invalid value: \"{bad}\": {expected}");
            assert_eq!(object.created(&json!(bad)), [expected]);
        }
        let mut costly = "true".to_owned();
        for depth in 0..4 {
            costly = format!("device.attributes.all(x{depth}, {costly})");
        }
        let expected = format!("{path}: Forbidden: too complex, exceeds cost limit");
        assert_eq!(object.created(&json!(costly)), [expected]);
        let long = format!("'{}' == ''", "x".repeat(10 * 1024));
        assert_eq!(
            object.created(&json!(long)),
            nothing(),
            "it is refused as such"
        );
    }
}
