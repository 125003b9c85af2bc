//! Where in an object a value stands, as errors tell it.

use std::fmt;

use crate::schema::Type;

/// Where a value stands.
pub(super) enum Path<'p> {
    Root,
    Field {
        parent: &'p Path<'p>,
        name: &'p str,
        /// The type that has the field; empty for a key of a map.
        of: &'static str,
        /// What the tables know of that type.
        known: Option<&'static Type>,
    },
    Index {
        parent: &'p Path<'p>,
        index: usize,
    },
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Index { parent, index } => write!(f, "{parent}[{index}]"),
            Path::Field { parent, name, .. } => match parent {
                Path::Root => f.write_str(name),
                parent => write!(f, "{parent}.{name}"),
            },
        }
    }
}

impl Path<'_> {
    /// `field PodSpec.spec.containers`, or `value` at the root: the innermost type, and the
    /// fields from the root down. Go counts neither indices nor keys of maps.
    pub fn go_target(&self) -> String {
        let (mut owner, mut fields) = ("", Vec::new());
        let mut path = self;
        loop {
            match path {
                Path::Root => break,
                Path::Index { parent, .. } => path = parent,
                Path::Field {
                    parent,
                    name,
                    of,
                    known,
                } => {
                    if !of.is_empty() {
                        fields.push(*name);
                        // Go counts the struct that a field is embedded with.
                        let embedded = known.and_then(|known| known.inlined_with(name));
                        fields.extend(embedded.map(Type::go_name));
                        owner = if owner.is_empty() { *of } else { owner };
                    }
                    path = parent;
                }
            }
        }
        if fields.is_empty() {
            return "value".to_owned();
        }
        fields.reverse();
        format!("struct field {owner}.{}", fields.join("."))
    }

    /// The innermost field, with the type that has it.
    pub fn field(&self) -> Option<(&'static Type, &str)> {
        match self {
            Path::Root => None,
            Path::Index { parent, .. } => parent.field(),
            Path::Field { name, known, .. } => Some(((*known)?, name)),
        }
    }
}
