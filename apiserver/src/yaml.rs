//! YAML as clients send it: its first document as JSON, and the keys that stand twice in a map.
//!
//! Errors have the words of Go's library, because clients show them.

mod plain;

use std::{collections::HashMap, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use plain::Marked;

/// A document of YAML.
#[derive(Default)]
pub struct Document {
    pub value: Value,
    /// `line 9: key "paused" already set in map`, for each.
    pub repeated: Vec<String>,
}

impl Document {
    /// What a strict reader says of the keys that stand twice.
    pub fn strict_error(&self) -> Option<String> {
        (!self.repeated.is_empty())
            .then(|| format!("yaml: unmarshal errors:\n  {}", self.repeated.join("\n  ")))
    }
}

/// Reads the first document; of a key that stands twice the last value counts.
///
/// # Errors
/// Go's text, `yaml: line 3: …`.
pub fn read(yaml: &[u8]) -> Result<Document, String> {
    let mut reader = Reader::default();
    // JSON is YAML, and the faster reader also tells where it is wrong.
    let json = &mut serde_json::Deserializer::from_slice(yaml);
    let value = match (&mut reader).deserialize(&mut *json) {
        Ok(value) if json.end().is_ok() => value,
        _ => {
            let text = std::str::from_utf8(yaml)
                .map_err(|_| "yaml: invalid leading UTF-8 octet".to_owned())?;
            let (marked, text) = Marked::new(text);
            reader = Reader {
                marked,
                ..Reader::default()
            };
            match serde_yaml_ng::Deserializer::from_str(&text).next() {
                None => Value::Null,
                Some(document) => (&mut reader).deserialize(document).map_err(|error| {
                    let error = error.to_string();
                    go_error(&reader.marked.text(&error), yaml)
                })?,
            }
        }
    };
    let text = String::from_utf8_lossy(yaml);
    let repeated = reader.repeated.iter().map(|(name, time)| {
        let line = line_of(&text, name, *time);
        format!("line {line}: key {name:?} already set in map")
    });
    Ok(Document {
        value,
        repeated: repeated.collect(),
    })
}

/// `did not find expected key at line 3 column 1, while parsing …` as Go has it.
fn go_error(error: &str, yaml: &[u8]) -> String {
    if let Some(at) = OWN_ERRORS.iter().find_map(|own| error.find(own)) {
        let own = &error[at..];
        return own.split(" at line ").next().unwrap_or(own).to_owned();
    }
    let (problem, place) = match error.split_once(" at line ") {
        Some((problem, place)) => (problem, Some(place)),
        None => (error.split([',']).next().unwrap_or(error), None),
    };
    let numbers = place.map(|place| {
        place
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse::<usize>().ok())
            .collect::<Vec<_>>()
    });
    let problem = problem.split(" at position").next().unwrap_or(problem);
    let (line, column) = match numbers.as_deref() {
        Some([line, column, ..]) => (*line, *column),
        _ => (1, 1),
    };
    if problem == "unknown anchor" {
        let text = String::from_utf8_lossy(yaml);
        let alias = text.lines().nth(line - 1).unwrap_or_default();
        let name: String = alias
            .chars()
            .skip(column)
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
            .collect();
        return format!("yaml: unknown anchor '{name}' referenced");
    }
    // Go counts from 0 where the grammar is broken, and from 1 where a token is, and does not
    // tell the first line.
    let is_token = ["found ", "mapping ", "could not ", "block "]
        .iter()
        .any(|start| problem.starts_with(start));
    match (line - 1, is_token) {
        (0, _) => format!("yaml: {problem}"),
        (line, true) => format!("yaml: line {}: {problem}", line + 1),
        (line, false) => format!("yaml: line {line}: {problem}"),
    }
}

/// The line on which a key stands for the given time, both from 1.
fn line_of(text: &str, name: &str, time: usize) -> usize {
    let is_key = |at: usize| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let quote = before
            .chars()
            .next_back()
            .filter(|c| matches!(c, '"' | '\''));
        let (before, after) = match quote {
            Some(quote) => (&before[..at - 1], after.strip_prefix(quote)),
            None => (before, Some(after)),
        };
        before
            .chars()
            .next_back()
            .is_none_or(|c| c.is_whitespace() || matches!(c, '{' | ','))
            && after.is_some_and(|after| after.trim_start_matches(' ').starts_with(':'))
    };
    let found = text
        .match_indices(name)
        .map(|(at, _)| at)
        .filter(|at| is_key(*at))
        .nth(time - 1);
    found.map_or(1, |at| text[..at].matches('\n').count() + 1)
}

/// Errors that are already Go's.
const OWN_ERRORS: [&str; 3] = [
    "json: unsupported value: ",
    "unsupported map key of type: ",
    BAD_MERGE,
];
const BAD_MERGE: &str = "yaml: map merge requires map or sequence of maps as the value";

/// Reads any value and notes the keys that stand twice in a map.
#[derive(Default)]
struct Reader {
    marked: Marked,
    /// How often each key was read so far, anywhere.
    seen: HashMap<String, usize>,
    /// The keys that stand twice, and which of all their places in the text it is.
    repeated: Vec<(String, usize)>,
}

impl<'de> DeserializeSeed<'de> for &mut Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(self.marked.value(value).cloned().unwrap_or(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        plain::number(value).ok_or_else(|| {
            let name = match value {
                f64::INFINITY => "+Inf",
                f64::NEG_INFINITY => "-Inf",
                _ => "NaN",
            };
            E::custom(format_args!("json: unsupported value: {name}"))
        })
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(self.marked.text(value).into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(&mut *self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<Value>()? {
            if key.is_null() {
                let value = fields.next_value_seed(&mut *self)?;
                return Err(A::Error::custom(null_key(&value)));
            }
            let Some(key) = self.key(key) else {
                let merged = fields.next_value_seed(&mut *self)?;
                merge(&mut map, merged).ok_or_else(|| A::Error::custom(BAD_MERGE))?;
                continue;
            };
            let times = self.seen.entry(key.clone()).or_default();
            *times += 1;
            let time = *times;
            let field = fields.next_value_seed(&mut *self)?;
            if map.insert(key.clone(), field).is_some() {
                self.repeated.push((key, time));
            }
        }
        Ok(Value::Object(map))
    }
}

impl Reader {
    /// The name of a field, which may be written as a number or a boolean. `None`: what follows
    /// is merged.
    fn key(&self, key: Value) -> Option<String> {
        match key {
            Value::String(name) => Some(self.marked.text(&name).into_owned()),
            Value::Number(number) => match number.as_u64().and_then(|mark| self.marked.value(mark))
            {
                Some(Value::String(_)) => None,
                Some(meaning) => Some(meaning.to_string()),
                None => Some(number.to_string()),
            },
            other => Some(other.to_string()),
        }
    }
}

/// Go's words for a key that is null.
fn null_key(value: &Value) -> String {
    let shown = match value {
        Value::Null => "<nil>".to_owned(),
        value => value.to_string(),
    };
    format!("unsupported map key of type: %!s(<nil>), key: <nil>, value: {shown}")
}

/// Takes over the fields of a map, or of several of which the first counts most.
fn merge(map: &mut Map<String, Value>, merged: Value) -> Option<()> {
    match merged {
        Value::Object(fields) => map.extend(fields),
        Value::Array(items) => {
            for item in items.into_iter().rev() {
                let Value::Object(fields) = item else {
                    return None;
                };
                map.extend(fields);
            }
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_stand_twice_are_told_with_their_line() {
        let yaml = "a: {name: x}\nb:\n  name: y\n  c: 1\n  c: 2\nname: z\nname: q\n";
        let document = read(yaml.as_bytes()).unwrap();
        assert_eq!(document.value["name"], json!("q"));
        assert_eq!(
            document.repeated,
            [
                r#"line 5: key "c" already set in map"#,
                r#"line 7: key "name" already set in map"#
            ]
        );
        let document = read(br#"{"a":1,"b":{"a":2,"a":3}}"#).unwrap();
        assert_eq!(document.repeated, [r#"line 1: key "a" already set in map"#]);
    }

    #[test]
    fn unquoted_words_are_those_of_yaml_1_1() {
        let yaml = "on: y\nmode: 0777\nlist: [no, 'no', \"yes\", say yes]\ntext: |-\n  yes\n\
                    float: 1.0\ntagged: !!str off # off\n";
        assert_eq!(
            read(yaml.as_bytes()).unwrap().value,
            json!({
                "true": true, "mode": 511, "list": [false, "no", "yes", "say yes"], "text": "yes",
                "float": 1, "tagged": "off",
            })
        );
        let yaml = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n'<<': 4\n";
        let value = json!({"a": {"x": 1, "true": 2}, "b": {"x": 3, "true": 2}, "<<": 4});
        assert_eq!(read(yaml.as_bytes()).unwrap().value, value);
        assert_eq!(
            read(b"a: .inf").err().unwrap(),
            "json: unsupported value: +Inf"
        );
        assert_eq!(read(b"<<: 1").err().unwrap(), BAD_MERGE);
        assert_eq!(
            read(b"a: {~: x}").err().unwrap(),
            "unsupported map key of type: %!s(<nil>), key: <nil>, value: \"x\""
        );
    }

    #[test]
    fn only_the_first_document_counts() {
        assert_eq!(read(b"a: 1\n---\na: 2\n").unwrap().value, json!({"a": 1}));
        assert_eq!(read(b"").unwrap().value, Value::Null);
    }

    #[test]
    fn errors_have_gos_words() {
        for (yaml, expected) in [
            ("{", "yaml: line 1: did not find expected node content"),
            (
                "a: b: c",
                "yaml: mapping values are not allowed in this context",
            ),
            ("a: *nope", "yaml: unknown anchor 'nope' referenced"),
            ("\t", "yaml: found character that cannot start any token"),
        ] {
            assert_eq!(
                read(yaml.as_bytes()).err().as_deref(),
                Some(expected),
                "{yaml:?}"
            );
        }
    }
}
