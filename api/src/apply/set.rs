//! Sets of fields, as trees of path elements.
//!
//! A field that holds others is in a set on its own account or not at all: `spec.replicas` in a
//! set does not put `spec` there.

use std::{cmp::Ordering, fmt};

use serde_json::{Map, Value};

use super::element::{ElementError, PathElement};

/// The name under which a `FieldsV1` object says that the field itself is in the set.
const SELF: &str = ".";

/// Fields. No node in it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(
    /// Sorted.
    Vec<(PathElement, Node)>,
);

/// A field, whether it is in the set, and what is in the set below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub is_member: bool,
    pub children: Set,
}

/// Why JSON is no set of fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    #[error("parsing key as path element: {0}")]
    Element(#[from] ElementError),
    #[error("expected an object of fields, got {0}")]
    NoObject(String),
}

impl Node {
    /// The field alone.
    pub const MEMBER: Self = Node {
        is_member: true,
        children: Set(Vec::new()),
    };

    pub fn is_empty(&self) -> bool {
        !self.is_member && self.children.is_empty()
    }
}

impl Set {
    pub const fn new() -> Self {
        Set(Vec::new())
    }

    /// A set of fields of records, each written as `spec.replicas`.
    pub fn of_fields(paths: &[&'static str]) -> Self {
        let mut set = Set::new();
        for path in paths {
            set.insert(path.split('.').map(PathElement::field));
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Below this set: each element with its node, sorted.
    pub fn nodes(&self) -> &[(PathElement, Node)] {
        &self.0
    }

    pub fn get(&self, element: &PathElement) -> Option<&Node> {
        self.position(element).ok().map(|at| &self.0[at].1)
    }

    fn position(&self, element: &PathElement) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(element))
    }

    /// Whether the field itself is in the set.
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|node| node.is_member),
            [first, rest @ ..] => self.get(first).is_some_and(|node| node.children.has(rest)),
        }
    }

    /// Adds a field; the object itself, an empty path, is never in a set.
    pub fn insert(&mut self, path: impl IntoIterator<Item = PathElement>) {
        let mut path = path.into_iter();
        if let Some(first) = path.next() {
            self.node_mut(first).insert(path);
        }
    }

    /// Adds what is in `node` at `element`, which must not be there yet.
    pub(super) fn put(&mut self, element: PathElement, node: Node) {
        if node.is_empty() {
            return;
        }
        match self.0.last() {
            Some((last, _)) if *last >= element => match self.position(&element) {
                Ok(at) => self.0[at].1 = node,
                Err(at) => self.0.insert(at, (element, node)),
            },
            _ => self.0.push((element, node)),
        }
    }

    fn node_mut(&mut self, element: PathElement) -> &mut Node {
        let at = match self.position(&element) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (element, Node::default()));
                at
            }
        };
        &mut self.0[at].1
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, &|pair| match pair {
            Pair::Left(node) | Pair::Right(node) => node.clone(),
            Pair::Both(left, right) => Node {
                is_member: left.is_member || right.is_member,
                children: left.children.union(&right.children),
            },
        })
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, &|pair| match pair {
            Pair::Left(_) | Pair::Right(_) => Node::default(),
            Pair::Both(left, right) => Node {
                is_member: left.is_member && right.is_member,
                children: left.children.intersection(&right.children),
            },
        })
    }

    /// What is not in `other`. A field that holds others goes or stays on its own.
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, &|pair| match pair {
            Pair::Left(node) => node.clone(),
            Pair::Right(_) => Node::default(),
            Pair::Both(left, right) => Node {
                is_member: left.is_member && !right.is_member,
                children: left.children.difference(&right.children),
            },
        })
    }

    /// What is neither in `other` nor below a field in it.
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.combine(other, &|pair| match pair {
            Pair::Left(node) => node.clone(),
            Pair::Right(_) => Node::default(),
            Pair::Both(_, right) if right.is_member => Node::default(),
            Pair::Both(left, right) => Node {
                is_member: left.is_member,
                children: left.children.recursive_difference(&right.children),
            },
        })
    }

    fn combine(&self, other: &Self, merge: &dyn Fn(Pair<'_>) -> Node) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut set = Set(Vec::with_capacity(self.0.len()));
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => return set,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((left, _)), Some((right, _))) => left.cmp(right),
            };
            let from_left = if order.is_le() { left.next() } else { None };
            let from_right = if order.is_ge() { right.next() } else { None };
            let (element, node) = match (from_left, from_right) {
                (Some((element, left)), Some((_, right))) => {
                    (element, merge(Pair::Both(left, right)))
                }
                (Some((element, left)), None) => (element, merge(Pair::Left(left))),
                (None, Some((element, right))) => (element, merge(Pair::Right(right))),
                (None, None) => return set,
            };
            if !node.is_empty() {
                set.0.push((element.clone(), node));
            }
        }
    }

    /// The fields below which there is no other in the set.
    pub fn leaves(&self) -> Self {
        let leaves = self.0.iter().map(|(element, node)| {
            let node = if node.children.is_empty() {
                node.clone()
            } else {
                Node {
                    is_member: false,
                    children: node.children.leaves(),
                }
            };
            (element.clone(), node)
        });
        Set(leaves.collect())
    }

    /// Every field: those of a level before those below it.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<PathElement>, paths: &mut Vec<Vec<PathElement>>) {
        for (element, node) in &self.0 {
            if node.is_member {
                let mut path = prefix.clone();
                path.push(element.clone());
                paths.push(path);
            }
        }
        for (element, node) in &self.0 {
            prefix.push(element.clone());
            node.children.collect(prefix, paths);
            prefix.pop();
        }
    }

    /// Reads a `FieldsV1`.
    pub fn from_fields(fields: &Value) -> Result<Self, SetError> {
        Ok(Node::from_fields(fields)?.children)
    }

    /// As a `FieldsV1`.
    pub fn to_fields(&self) -> Value {
        Value::Object(self.to_map(false))
    }

    fn to_map(&self, with_self: bool) -> Map<String, Value> {
        let mut map = Map::new();
        if with_self && !self.is_empty() {
            map.insert(SELF.to_owned(), Value::Object(Map::new()));
        }
        for (element, node) in &self.0 {
            let below = node.children.to_map(node.is_member);
            map.insert(element.to_text(), Value::Object(below));
        }
        map
    }

    /// The text of a `FieldsV1`, in upstream's order: `.` first, then fields by name, items by
    /// their keys, values and indices.
    pub fn to_json(&self) -> String {
        let mut json = String::from("{");
        self.write_json(false, &mut json);
        json.push('}');
        json
    }

    fn write_json(&self, with_self: bool, json: &mut String) {
        let mut is_first = true;
        let mut comma = |json: &mut String| {
            if !std::mem::take(&mut is_first) {
                json.push(',');
            }
        };
        if with_self && !self.is_empty() {
            comma(json);
            json.push_str(r#"".":{}"#);
        }
        for (element, node) in &self.0 {
            comma(json);
            json.push_str(&Value::from(element.to_text()).to_string());
            json.push_str(":{");
            node.children.write_json(node.is_member, json);
            json.push('}');
        }
    }
}

impl Node {
    fn insert(&mut self, mut path: impl Iterator<Item = PathElement>) {
        let mut node = self;
        loop {
            match path.next() {
                None => {
                    node.is_member = true;
                    return;
                }
                Some(element) => node = node.children.node_mut(element),
            }
        }
    }

    /// An object without known fields stands for the field itself.
    fn from_fields(fields: &Value) -> Result<Self, SetError> {
        let map = match fields {
            Value::Object(map) => map,
            Value::Null => return Ok(Node::MEMBER),
            other => return Err(SetError::NoObject(other.to_string())),
        };
        let mut node = Node::default();
        for (name, below) in map {
            if name == SELF {
                node.is_member = true;
            } else if let Some(element) = PathElement::parse(name)? {
                node.children.put(element, Node::from_fields(below)?);
            }
        }
        if node.children.is_empty() {
            node.is_member = true;
        }
        Ok(node)
    }
}

enum Pair<'n> {
    Left(&'n Node),
    Right(&'n Node),
    Both(&'n Node, &'n Node),
}

/// A path as messages show it: `.spec.containers[name="x"].image`.
pub struct ShowPath<'p>(pub &'p [PathElement]);

impl fmt::Display for ShowPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}

/// Whether a `FieldsV1` has anything at or below a field of the object, without reading it.
pub fn mentions(fields: &Value, element: &PathElement) -> bool {
    let PathElement::Field(name) = element else {
        return true;
    };
    let Value::Object(map) = fields else {
        return true;
    };
    map.keys()
        .any(|key| key.strip_prefix("f:").is_some_and(|key| key == name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(fields: &Value) -> Set {
        Set::from_fields(fields).unwrap()
    }

    #[test]
    fn the_text_of_fields_is_in_upstreams_order() {
        let json = r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:ports":{".":{},"k:{\"port\":80}":{".":{},"f:port":{}},"k:{\"port\":443}":{}}}}"#;
        let read = set(&serde_json::from_str(json).unwrap());
        assert_eq!(read.to_json(), json);
        assert_eq!(set(&read.to_fields()), read);
        let unknown = json!({"x:new": {"f:a": {}}, "f:b": null});
        assert_eq!(set(&unknown).to_json(), r#"{"f:b":{}}"#);
        for bad in [
            json!({"spec": {}}),
            json!({"f:a": 1}),
            json!([]),
            json!({"k:x": {}}),
        ] {
            assert!(Set::from_fields(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn operations_tell_a_field_from_those_below_it() {
        let a = json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}});
        let cases = [
            (
                json!({"f:a": {}}),
                "union",
                json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}}),
            ),
            (
                json!({"f:e": {}}),
                "union",
                json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}, "f:e": {}}),
            ),
            (
                json!({"f:a": {"f:b": {}}}),
                "intersection",
                json!({"f:a": {"f:b": {}}}),
            ),
            (json!({"f:a": {}}), "intersection", json!({"f:a": {}})),
            (
                json!({"f:a": {}}),
                "difference",
                json!({"f:a": {"f:b": {}, "f:c": {}}, "f:d": {}}),
            ),
            (
                json!({"f:a": {"f:b": {}}}),
                "difference",
                json!({"f:a": {".": {}, "f:c": {}}, "f:d": {}}),
            ),
            (json!({"f:a": {}}), "recursive", json!({"f:d": {}})),
            (
                json!({"f:a": {"f:b": {}}}),
                "recursive",
                json!({"f:a": {".": {}, "f:c": {}}, "f:d": {}}),
            ),
            (
                json!({}),
                "leaves",
                json!({"f:a": {"f:b": {}, "f:c": {}}, "f:d": {}}),
            ),
        ];
        let a = set(&a);
        for (b, operation, expected) in cases {
            let b = if b == json!({}) { Set::new() } else { set(&b) };
            let result = match operation {
                "union" => a.union(&b),
                "intersection" => a.intersection(&b),
                "difference" => a.difference(&b),
                "recursive" => a.recursive_difference(&b),
                _ => a.leaves(),
            };
            assert_eq!(result.to_fields(), expected, "{operation} {}", b.to_json());
        }
    }

    #[test]
    fn paths_of_a_level_come_before_those_below() {
        let set = set(&json!({"f:a": {"f:b": {}}, "f:c": {}}));
        let paths: Vec<String> = set
            .paths()
            .iter()
            .map(|path| ShowPath(path).to_string())
            .collect();
        assert_eq!(paths, [".c", ".a.b"]);
        let has = |path: &[&'static str]| {
            let path: Vec<PathElement> =
                path.iter().map(|&name| PathElement::field(name)).collect();
            set.has(&path)
        };
        assert!(has(&["a", "b"]) && has(&["c"]));
        assert!(!has(&["a"]) && !has(&[]) && !has(&["a", "b", "d"]));
        let fields = set.to_fields();
        assert!(mentions(&fields, &PathElement::field("a")));
        assert!(!mentions(&fields, &PathElement::field("b")));
    }
}
