//! The CEL expressions in an object, for whoever knows CEL: a kind tells where they stand, what
//! they may speak of and what they must result in.

use crate::field::Path;

/// One expression.
#[derive(Clone, Debug)]
pub struct Expression<'o> {
    pub path: Path,
    pub source: &'o str,
    /// How an error shows it.
    pub given: &'o str,
    pub scope: Scope,
    pub result: Result<'o>,
}

/// What an expression may speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Admission(Admission),
    Device,
}

/// A request to be admitted, and with it these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Admission {
    pub params: bool,
    pub authorizer: bool,
    /// The policy's own variables, those that stand before the expression.
    pub variables: bool,
    /// The types that changes are made of.
    pub patches: bool,
}

/// What an expression must result in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Result<'o> {
    /// Whatever it is, it is a variable of this name for the expressions behind it.
    Variable(&'o str),
    Bool,
    Text,
    TextOrNull,
    /// What is laid over the object.
    Object,
    /// Operations of a JSON patch.
    Patches,
    /// Whether a device is selected, which may turn out only when there is a device.
    Selected,
}

impl<'o> Expression<'o> {
    /// An expression that is shown as it is.
    pub fn new(path: Path, source: &'o str, scope: Scope, result: Result<'o>) -> Self {
        Expression {
            path,
            source,
            given: source,
            scope,
            result,
        }
    }
}
