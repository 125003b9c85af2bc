//! Generated objects of every kind, through protobuf and through the kinds' own types: nothing is
//! lost on the way.

use serde_json::{Value, json};

use super::{from_json, to_json};
use crate::{
    Object, kinds,
    schema::{Field, Presence, Shape, Type, ValueType},
    strategy::Strategy,
};

/// Objects of each kind.
const OBJECTS: u64 = 10;
/// Types deeper than this get no objects, or they would never end.
const DEPTH: usize = 9;

/// Numbers that are the same in every run (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()].clone()
    }
}

fn object(of: &'static Type, depth: usize, numbers: &mut Numbers) -> Value {
    let mut object = serde_json::Map::new();
    of.for_each_field(&mut |field| {
        // Sparse below, so that objects stay small.
        let wanted = numbers.below(depth as u64 + 2) < 2;
        // A required quantity that is absent is no object of the API.
        let required = matches!(field.presence, Presence::Always | Presence::Value)
            || matches!(field.value_type(), ValueType::Quantity);
        if (wanted || required)
            && let Some(value) = values(field, depth, numbers)
        {
            object.insert(field.name.to_owned(), value);
        }
    });
    Value::Object(object)
}

fn values(field: &'static Field, depth: usize, numbers: &mut Numbers) -> Option<Value> {
    let mut one = || value(field.value_type(), depth, numbers);
    Some(match field.shape {
        Shape::One => one()?,
        Shape::List => json!([one()?, one()?]),
        Shape::Map => json!({"one": one()?, "t/wo": one()?}),
        Shape::MapOfLists => json!({"one": [one()?], "two": [one()?, one()?]}),
    })
}

fn value(of: ValueType, depth: usize, numbers: &mut Numbers) -> Option<Value> {
    Some(match of {
        ValueType::Object(_) if depth == DEPTH => return None,
        ValueType::Object(of) => object(of, depth + 1, numbers),
        ValueType::String => numbers.of(&[
            json!("a"),
            json!("\u{1F6F6} \"\\\n\u{1}"),
            json!("x".repeat(130)),
        ]),
        ValueType::Int32 => numbers.of(&[json!(1), json!(-1), json!(i32::MAX), json!(i32::MIN)]),
        ValueType::Int64 => numbers.of(&[json!(1), json!(i64::MAX), json!(i64::MIN), json!(300)]),
        ValueType::Bool => json!(true),
        ValueType::Double => numbers.of(&[json!(0.5), json!(-1e300), json!(3.0)]),
        ValueType::Bytes => numbers.of(&[json!("AAEC"), json!("/w=="), json!("////")]),
        ValueType::Quantity => {
            numbers.of(&[json!("1500m"), json!("3Gi"), json!("7"), json!("1e3")])
        }
        ValueType::Time => {
            numbers.of(&[json!("2026-01-02T03:04:05Z"), json!("1969-12-31T23:59:59Z")])
        }
        ValueType::MicroTime => numbers.of(&[
            json!("2026-01-02T03:04:05.000006Z"),
            json!("1969-12-31T23:59:59.999999Z"),
        ]),
        ValueType::Duration => numbers.of(&[json!("1m0.5s"), json!("72h0m0s")]),
        ValueType::IntOrString => numbers.of(&[json!("25%"), json!(3)]),
        ValueType::RawExtension | ValueType::FieldsV1 => json!({"any": [1, "x", {}]}),
        ValueType::Json => numbers.of(&[json!([1, "x"]), json!("text"), json!({"a": null})]),
        ValueType::JsonSchemaPropsOrArray => json!([{"type": "string"}]),
        ValueType::JsonSchemaPropsOrBool => numbers.of(&[json!({"type": "string"}), json!(true)]),
        ValueType::JsonSchemaPropsOrStringArray => json!(["a", "b"]),
    })
}

fn typed(strategy: &dyn Strategy, object: &Value) -> Box<dyn Object> {
    let mut problems = Vec::new();
    let typed = strategy.decode_value(object, &mut problems);
    assert_eq!(problems, Vec::<String>::new());
    typed.unwrap_or_else(|error| panic!("{error:?}: {object}"))
}

/// Where two values differ first, and how.
fn difference(a: &Value, b: &Value) -> Option<String> {
    let below = |key: String, (a, b)| Some(format!(".{key}{}", difference(a, b)?));
    match (a, b) {
        (Value::Object(of_a), Value::Object(of_b)) if of_a.keys().eq(of_b.keys()) => of_a
            .iter()
            .find_map(|(key, a)| below(key.clone(), (a, &of_b[key]))),
        (Value::Array(of_a), Value::Array(of_b)) if of_a.len() == of_b.len() => {
            let mut pairs = of_a.iter().zip(of_b).enumerate();
            pairs.find_map(|(index, pair)| below(index.to_string(), pair))
        }
        (a, b) => (a != b).then(|| format!(": {a} and {b}")),
    }
}

#[test]
fn nothing_is_lost_between_json_protobuf_and_types() {
    for kind in kinds::builtin() {
        let of = crate::schema::of_kind(&kind.group, &kind.version, &kind.kind).unwrap();
        for seed in 0..OBJECTS {
            let mut sent = object(of, 0, &mut Numbers(seed));
            sent["apiVersion"] = json!(kind.api_version());
            sent["kind"] = json!(kind.kind);
            let first = typed(&*kind.strategy, &sent).to_value();
            let encoded = from_json(first.to_string().as_bytes()).unwrap();
            let decoded: Value =
                serde_json::from_slice(&to_json(&encoded, "", "").unwrap()).unwrap();
            let second = typed(&*kind.strategy, &decoded).to_value();
            let differs = difference(&first, &second);
            assert_eq!(differs, None, "{} of seed {seed}", kind.kind);
            let again = from_json(second.to_string().as_bytes()).unwrap();
            assert_eq!(again, encoded, "{} of seed {seed}", kind.kind);
        }
    }
}
