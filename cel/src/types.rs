//! The types of expressions, and which of them go together.
//!
//! Upstream: `checker/types.go` of cel-go.

use std::{fmt, sync::Arc};

/// The type of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Of what is wrong and was told of; it goes with everything.
    Error,
    /// Not known before it is evaluated.
    Dyn,
    /// As [`Type::Dyn`], by another name.
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    /// A structure, or a thing that only functions look into.
    Object(Arc<str>),
    /// What a declared function leaves open, by its letter.
    Open(char),
    /// What is still to be found out, by its number in [`Bindings`].
    Free(usize),
}

impl Type {
    pub fn object(name: &str) -> Self {
        Type::Object(name.into())
    }

    pub fn list(of: Type) -> Self {
        Type::List(Arc::new(of))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(of: Type) -> Self {
        Type::Optional(Arc::new(of))
    }

    pub(crate) fn is_dynamic(&self) -> bool {
        matches!(self, Type::Dyn | Type::Any)
    }

    /// What an optional may hold, or the type itself.
    pub(crate) fn unwrapped(&self) -> (&Type, bool) {
        match self {
            Type::Optional(of) => (of, true),
            other => (other, false),
        }
    }

    fn parts(&self) -> Vec<&Type> {
        match self {
            Type::List(of) | Type::Optional(of) | Type::Type(of) => vec![of],
            Type::Map(key, value) => vec![key, value],
            _ => Vec::new(),
        }
    }

    /// The type with its parts changed, and so on with theirs.
    fn with_parts(&self, change: &mut impl FnMut(&Type) -> Type) -> Type {
        match self {
            Type::List(of) => Type::list(change(of)),
            Type::Optional(of) => Type::optional(change(of)),
            Type::Type(of) => Type::Type(Arc::new(change(of))),
            Type::Map(key, value) => {
                let key = change(key);
                Type::map(key, change(value))
            }
            other => other.clone(),
        }
    }

    /// Has what a function leaves open stand for what is to be found out.
    pub(crate) fn opened(&self, letters: &mut impl FnMut(char) -> usize) -> Type {
        match self {
            Type::Open(letter) => Type::Free(letters(*letter)),
            other => other.with_parts(&mut |part| part.opened(letters)),
        }
    }

    /// Whether it says less than the other, with which it goes.
    fn is_wider(&self, other: &Type) -> bool {
        if self.is_dynamic() || matches!(self, Type::Free(_)) {
            return true;
        }
        if other.is_dynamic() || matches!(other, Type::Free(_)) {
            return false;
        }
        match (self, other) {
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(one), Type::List(other)) | (Type::Optional(one), Type::Optional(other)) => {
                one.is_wider(other)
            }
            (Type::Map(key, value), Type::Map(other_key, other_value)) => {
                key.is_wider(other_key) && value.is_wider(other_value)
            }
            _ => self == other,
        }
    }

    /// The wider of two that go together.
    pub(crate) fn wider(one: &Type, other: &Type) -> Type {
        let wider = if one.is_wider(other) { one } else { other };
        wider.clone()
    }

    /// How the type of a whole expression is called, which for some is not how it is called
    /// elsewhere.
    pub fn declared_name(&self) -> String {
        match self {
            Type::Any => "google.protobuf.Any".to_owned(),
            Type::Null => "null_type".to_owned(),
            Type::Timestamp => "google.protobuf.Timestamp".to_owned(),
            Type::Duration => "google.protobuf.Duration".to_owned(),
            other => {
                let parts = other.parts();
                let parts: Vec<String> = parts.iter().map(|part| part.declared_name()).collect();
                other.print(&parts)
            }
        }
    }

    fn print(&self, parts: &[String]) -> String {
        let name = match self {
            Type::Error => "!error!",
            Type::Dyn => "dyn",
            Type::Any => "any",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "timestamp",
            Type::Duration => "duration",
            Type::List(_) => "list",
            Type::Map(..) => "map",
            Type::Optional(_) => "optional_type",
            Type::Type(_) => "type",
            Type::Object(name) => name,
            Type::Open(letter) => return letter.to_string(),
            Type::Free(number) => return format!("_var{number}"),
        };
        match parts {
            [] => name.to_owned(),
            parts => format!("{name}({})", parts.join(", ")),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts();
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        f.write_str(&self.print(&parts))
    }
}

/// What was found out of free types.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bindings(Vec<Option<Type>>);

impl Bindings {
    pub fn free(&mut self) -> usize {
        self.0.push(None);
        self.0.len() - 1
    }

    /// The type with what is known by now put in.
    pub fn known(&self, of: &Type) -> Type {
        match of {
            Type::Free(number) => match &self.0[*number] {
                Some(bound) => self.known(bound),
                None => of.clone(),
            },
            other => other.with_parts(&mut |part| self.known(part)),
        }
    }

    /// The same, where nothing more will be found out.
    pub fn settled(&self, of: &Type) -> Type {
        fn settle(of: &Type) -> Type {
            match of {
                Type::Free(_) => Type::Dyn,
                other => other.with_parts(&mut settle),
            }
        }
        settle(&self.known(of))
    }

    /// Whether values of the types go together, each with the one at its place. What this needs
    /// free types to be is kept if so.
    pub fn unify_all(&mut self, ones: &[Type], others: &[Type]) -> bool {
        if ones.len() != others.len() {
            return false;
        }
        let before = self.clone();
        let fits = ones
            .iter()
            .zip(others)
            .all(|(one, other)| self.fits(one, other));
        if !fits {
            *self = before;
        }
        fits
    }

    pub fn unify(&mut self, one: &Type, other: &Type) -> bool {
        self.unify_all(std::slice::from_ref(one), std::slice::from_ref(other))
    }

    fn fits(&mut self, one: &Type, other: &Type) -> bool {
        if let Type::Free(number) = *other {
            match self.bind(number, one) {
                Bound::Agrees => return true,
                Bound::Contradicts => return false,
                Bound::Circular => {}
            }
        }
        if let Type::Free(number) = *one {
            return self.bind(number, other) == Bound::Agrees;
        }
        let is_vague = |of: &Type| of.is_dynamic() || *of == Type::Error;
        if is_vague(one) || is_vague(other) {
            return true;
        }
        match (one, other) {
            (Type::Null, of) | (of, Type::Null) => matches!(
                of,
                Type::Null | Type::Object(_) | Type::Optional(_) | Type::Timestamp | Type::Duration
            ),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(one), Type::List(other)) | (Type::Optional(one), Type::Optional(other)) => {
                self.fits(one, other)
            }
            (Type::Map(key, value), Type::Map(other_key, other_value)) => {
                self.fits(key, other_key) && self.fits(value, other_value)
            }
            (one, other) => one == other,
        }
    }

    fn bind(&mut self, number: usize, to: &Type) -> Bound {
        if *to == Type::Free(number) {
            return Bound::Agrees;
        }
        let Some(known) = self.0[number].clone() else {
            if self.mentions(to, number) {
                return Bound::Circular;
            }
            self.0[number] = Some(to.clone());
            return Bound::Agrees;
        };
        if known == *to {
            return Bound::Agrees;
        }
        if !self.fits(to, &known) {
            return Bound::Contradicts;
        }
        let wider = Type::wider(to, &known);
        if !self.mentions(&wider, number) {
            self.0[number] = Some(wider);
        }
        Bound::Agrees
    }

    fn mentions(&self, within: &Type, number: usize) -> bool {
        match within {
            Type::Free(other) if *other == number => true,
            Type::Free(other) => {
                let bound = self.0[*other].as_ref();
                bound.is_some_and(|bound| self.mentions(bound, number))
            }
            other => other.parts().iter().any(|part| self.mentions(part, number)),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Bound {
    Agrees,
    Contradicts,
    /// The type is a part of what it should be.
    Circular,
}
