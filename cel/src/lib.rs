//! CEL expressions as Kubernetes has them.
//!
//! [`compile`] is the one way from a text to a program, for whoever evaluates it and for whoever
//! only wants to know whether it is one: it knows which names and functions there are by
//! [`Scope`], and of which types. [`check`] does so for all expressions of an object, and tells what
//! is wrong with them as upstream's validation does. `Program`s are evaluated with
//! [`Scope::language`].
//!
//! Upstream's API server and scheduler use cel-go; parsing here is by the `cel` library, whose
//! grammar is the same and which does not check types, so that is done here.

mod checker;
mod cost;
mod declarations;
mod library;
mod macros;
#[cfg(test)]
mod object_tests;
mod objects;
mod scope;
#[cfg(test)]
mod tests;
mod types;

use std::fmt::Write as _;

use cel::Program;

pub use library::{Quantity, Semver};
pub use objects::check;
pub use scope::Scope;
pub use types::Type;

/// A text that is an expression.
#[derive(Debug)]
pub struct Compiled {
    pub program: Program,
    /// The type of its value.
    pub result: Type,
}

/// What is wrong with a text, each with its place in it, in cel-go's words. Where a text breaks
/// the grammar, the parser may expect something else than cel-go's tells.
#[derive(Debug, thiserror::Error)]
#[error("compilation failed: {0}")]
pub struct CompileError(String);

/// Reads an expression that may speak of what is in the scope.
///
/// # Errors
/// It breaks the grammar, or speaks of what there is not, or its types do not go together.
pub fn compile(source: &str, scope: &Scope) -> Result<Compiled, CompileError> {
    let program = scope.language().compile(source).map_err(|errors| {
        let errors = errors.errors.iter();
        tell(source, errors.map(|error| (error.pos, error.msg.as_str())))
    })?;
    let result = checker::check(program.expression(), scope).map_err(|faults| {
        let position = |id| match program.source_info().offset_for(id) {
            Some((start, _)) => position(source, start as usize),
            None => (1, 1),
        };
        let faults = faults.iter();
        tell(
            source,
            faults.map(|fault| (position(fault.id), fault.message.as_str())),
        )
    })?;
    Ok(Compiled { program, result })
}

/// The line and column, both from one on.
fn position(source: &str, offset: usize) -> (isize, isize) {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line as isize, column as isize)
}

/// Each fault with its line of the text, and below it a mark.
fn tell<'f>(source: &str, faults: impl Iterator<Item = ((isize, isize), &'f str)>) -> CompileError {
    const WIDE_DOT: char = '\u{ff0e}';
    const WIDE_MARK: char = '\u{ff3e}';
    let mut faults: Vec<_> = faults.collect();
    faults.sort_by_key(|(place, _)| *place);
    let mut told = String::new();
    for ((line, column), message) in faults {
        if !told.is_empty() {
            told.push('\n');
        }
        let _ = write!(told, "ERROR: <input>:{line}:{column}: {message}");
        let index = usize::try_from(line - 1).unwrap_or_default();
        let Some(text) = source.split('\n').nth(index) else {
            continue;
        };
        let text = text.replace('\t', " ");
        let mut characters = text.chars();
        let before = usize::try_from(column - 1).unwrap_or_default();
        let dots: String = characters
            .by_ref()
            .take(before)
            .map(|one| if one.is_ascii() { '.' } else { WIDE_DOT })
            .collect();
        let is_wide = characters.next().is_some_and(|one| !one.is_ascii());
        let mark = if is_wide { WIDE_MARK } else { '^' };
        let _ = write!(told, "\n | {text}\n | {dots}{mark}");
    }
    CompileError(told)
}
