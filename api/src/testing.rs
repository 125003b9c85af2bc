//! Tests of kinds, read from `testdata/{kind}.yaml`. Each document of a file holds
//!
//! - `valid`: an object without errors, as a client writes it;
//! - `defaults`: for each `input`, fields that it `becomes`, and pointers that are `absent` then;
//! - `invalid`: what to `set` in the valid object, and the `errors` that a create then has;
//! - `updates`: what to `set` in the stored object (and in the `old` one before), through which
//!   `subresource`, and the `errors` that the update then has;
//! - `warnings`: what to `set` in the valid object, and the `warnings` that a create then has;
//! - `columns`: what to `set` in the stored object, and the `cells` at 2026-01-01T01:00:00Z.
//!
//! Metadata is checked as well where a case sets something of it.
//!
//! What is set is a map of JSON pointers to values; null removes, and a last `-` appends.

use std::fmt::{self, Write};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    field::ErrorList,
    kinds::{self, Storage},
    meta,
    object::Object,
    strategy::{Behaviour, Builtin, Strategy, Subresource},
};

type Changes = Map<String, Value>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    valid: Value,
    #[serde(default)]
    defaults: Vec<Default_>,
    #[serde(default)]
    invalid: Vec<Invalid>,
    #[serde(default)]
    updates: Vec<Update>,
    #[serde(default)]
    warnings: Vec<Warning>,
    #[serde(default)]
    columns: Vec<Columns>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Default_ {
    input: Value,
    becomes: Value,
    #[serde(default)]
    absent: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalid {
    set: Changes,
    errors: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default)]
    old: Changes,
    set: Changes,
    subresource: Option<String>,
    errors: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Warning {
    #[serde(default)]
    set: Changes,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Columns {
    #[serde(default)]
    set: Changes,
    cells: Vec<Value>,
}

/// Runs all cases of a file for a kind.
pub fn run<T: Behaviour>(yaml: &str) {
    let mut failures = Failures::default();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let cases = Cases::deserialize(document).expect("a document of cases");
        run_cases::<T>(&cases, &mut failures);
    }
    assert!(failures.0.is_empty(), "\n{}", failures.0);
}

fn run_cases<T: Behaviour>(cases: &Cases, failures: &mut Failures) {
    let strategy = Builtin::<T>::default();
    let created = |set: &Changes| {
        let mut object = decode::<T>(&changed(&cases.valid, set));
        strategy.default_fields(object.as_mut());
        strategy.prepare_for_create(object.as_mut());
        object
    };
    let valid = created(&Changes::new());
    failures.compare(
        &strategy.validate_create(valid.as_ref()),
        &[],
        &"the valid object",
    );
    let stored = valid.to_value();

    for case in &cases.defaults {
        check_defaults::<T>(&strategy, case);
    }
    for case in &cases.invalid {
        let object = created(&case.set);
        let mut errors = ErrorList::new();
        let kind = kinds::find(T::GROUP, T::VERSION, T::KIND);
        let sets_metadata = case.set.keys().any(|key| key.starts_with("/metadata"));
        if let Some(kind) =
            kind.filter(|kind| sets_metadata && !matches!(kind.storage, Storage::Virtual))
        {
            errors = meta::validate_created(kind, object.meta());
        }
        errors.extend(strategy.validate_create(object.as_ref()));
        failures.compare(&errors, &case.errors, &case.set);
    }
    for case in &cases.updates {
        check_update::<T>(&strategy, &stored, case, failures);
    }
    for case in &cases.warnings {
        let object = created(&case.set);
        let warnings = strategy.warnings(object.as_ref(), None, None);
        failures.compare(&warnings, &case.warnings, &case.set);
    }
    for case in &cases.columns {
        let mut object = decode::<T>(&changed(&stored, &case.set));
        let created = "2026-01-01T00:00:00Z".parse().expect("a time");
        object.meta_mut().creation_timestamp = Some(Time(created));
        let now = "2026-01-01T01:00:00Z".parse().expect("a time");
        let cells = strategy.cells(object.as_ref(), now);
        assert_eq!(cells, case.cells, "{:?}", case.set);
        assert_eq!(cells.len(), strategy.columns().len(), "cells and columns");
    }
}

fn check_defaults<T: Behaviour>(strategy: &Builtin<T>, case: &Default_) {
    let mut object = decode::<T>(&case.input);
    strategy.default_fields(object.as_mut());
    let value = object.to_value();
    assert_contains(&value, &case.becomes, "");
    for pointer in &case.absent {
        assert_eq!(value.pointer(pointer), None, "{pointer} of {}", case.input);
    }
    // Defaults are also applied to what is read back: nothing may change then.
    let mut again = decode::<T>(&value);
    strategy.default_fields(again.as_mut());
    assert_eq!(again.to_value(), value, "defaults are stable");
}

fn check_update<T: Behaviour>(
    strategy: &Builtin<T>,
    stored: &Value,
    case: &Update,
    failures: &mut Failures,
) {
    let subresource = case.subresource.as_deref().map(|name| match name {
        "status" => Subresource::Status,
        "resize" => Subresource::Resize,
        "ephemeralcontainers" => Subresource::EphemeralContainers,
        "finalize" => Subresource::Finalize,
        "approval" => Subresource::Approval,
        other => panic!("no subresource {other}"),
    });
    let old = changed(stored, &case.old);
    let mut new = decode::<T>(&changed(&old, &case.set));
    let mut old = decode::<T>(&old);
    strategy.default_fields(old.as_mut());
    strategy.default_fields(new.as_mut());
    strategy.prepare_for_update(new.as_mut(), old.as_ref(), subresource);
    let errors = strategy.validate_update(new.as_ref(), old.as_ref(), subresource);
    failures.compare(&errors, &case.errors, &case.set);
}

fn decode<T: Behaviour>(value: &Value) -> Box<dyn Object> {
    let object: T = crate::decode::from_value(value, &mut Vec::new()).expect("an object");
    Box::new(object)
}

fn changed(value: &Value, changes: &Changes) -> Value {
    let mut value = value.clone();
    for (pointer, new) in changes {
        set(&mut value, pointer, new);
    }
    value
}

fn set(value: &mut Value, pointer: &str, new: &Value) {
    let mut steps = pointer.split('/').skip(1).peekable();
    let mut place = value;
    while let Some(step) = steps.next() {
        let step = step.replace("~1", "/").replace("~0", "~");
        if new.is_null() && steps.peek().is_none() {
            match place {
                Value::Object(fields) => drop(fields.remove(&step)),
                Value::Array(items) => drop(items.remove(step.parse().expect("an index"))),
                _ => {}
            }
            return;
        }
        place = match place {
            Value::Array(items) => {
                let index = if step == "-" {
                    items.push(Value::Null);
                    items.len() - 1
                } else {
                    step.parse().expect("an index")
                };
                &mut items[index]
            }
            other => &mut other[step],
        };
    }
    *place = new.clone();
}

/// Whether `value` has all that `expected` has; lists are compared item by item.
fn assert_contains(value: &Value, expected: &Value, pointer: &str) {
    match (value, expected) {
        (Value::Object(fields), Value::Object(expected)) if !expected.is_empty() => {
            for (name, expected) in expected {
                let pointer = format!("{pointer}/{name}");
                let Some(value) = fields.get(name) else {
                    // Upstream writes null where a list without `omitempty` is empty.
                    if expected.is_null() {
                        continue;
                    }
                    panic!("{pointer} is absent, expected {expected}");
                };
                assert_contains(value, expected, &pointer);
            }
        }
        (Value::Array(items), Value::Array(expected)) => {
            assert_eq!(items.len(), expected.len(), "{pointer}");
            for (index, (item, expected)) in items.iter().zip(expected).enumerate() {
                assert_contains(item, expected, &format!("{pointer}/{index}"));
            }
        }
        (Value::Array(items), Value::Null) if items.is_empty() => {}
        _ => assert_eq!(value, expected, "{pointer}"),
    }
}

/// Lines that are not as expected, of all cases, so that one run shows them all.
#[derive(Default)]
struct Failures(String);

impl Failures {
    fn compare(&mut self, actual: &[impl ToString], expected: &[String], case: &impl fmt::Debug) {
        let actual: Vec<String> = actual.iter().map(ToString::to_string).collect();
        if actual == expected {
            return;
        }
        let _ = writeln!(self.0, "{case:?}");
        for (sign, lines, others) in [('+', &actual[..], expected), ('-', expected, &actual)] {
            for line in lines.iter().filter(|line| !others.contains(line)) {
                let _ = writeln!(self.0, "  {sign} {line}");
            }
        }
        if actual.iter().all(|line| expected.contains(line)) {
            let _ = writeln!(self.0, "  in this order or number: {actual:#?}");
        }
    }
}

mod tests {
    use super::*;

    /// Kinds of which no object has anything wrong with it that has causes.
    const NEVER_INVALID: &[&str] = &[
        "ComponentStatus",
        "NodeMetrics",
        "PodMetrics",
        "SelfSubjectReview",
        "SelfSubjectRulesReview",
        "TokenReview",
    ];

    #[test]
    fn every_kind_has_a_table_of_bad_objects() {
        let mut missing = Vec::new();
        for kind in kinds::builtin() {
            if NEVER_INVALID.contains(&kind.kind.as_str()) {
                continue;
            }
            let file = file_of(kind);
            let count = bad_objects(&file);
            let least = match kind.kind.as_str() {
                "Pod" => 15,
                "Service"
                | "Deployment"
                | "Job"
                | "HorizontalPodAutoscaler"
                | "Ingress"
                | "NetworkPolicy"
                | "PersistentVolumeClaim" => 10,
                _ => 3,
            };
            if count < least {
                missing.push(format!("{file}: {count} of {least}"));
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
    }

    /// `csi_node.yaml`; a kind that is stored as another has its version in the name.
    fn file_of(kind: &kinds::Kind) -> String {
        let letters: Vec<char> = kind.kind.chars().collect();
        let mut file = String::new();
        for (index, letter) in letters.iter().enumerate() {
            let follows_lower = index > 0 && letters[index - 1].is_lowercase();
            let leads_lower = letters
                .get(index + 1)
                .is_some_and(|next| next.is_lowercase());
            if index > 0 && letter.is_uppercase() && (follows_lower || leads_lower) {
                file.push('_');
            }
            file.extend(letter.to_lowercase());
        }
        if matches!(kind.storage, Storage::Converted { .. }) {
            file = format!("{file}_{}", kind.version);
        }
        file + ".yaml"
    }

    fn bad_objects(file: &str) -> usize {
        let path = format!("{}/testdata/{file}", env!("CARGO_MANIFEST_DIR"));
        let yaml = std::fs::read_to_string(path).unwrap_or_default();
        serde_yaml_ng::Deserializer::from_str(&yaml)
            .map(|document| Cases::deserialize(document).expect("a document of cases"))
            .map(|cases| cases.invalid.len())
            .sum()
    }
}
