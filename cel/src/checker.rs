//! Which type an expression has, and what in it does not go together.
//!
//! Enter at [`check`]. Upstream: `checker` of cel-go, whose words these are.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, ListExpr, LiteralValue,
    SelectExpr, StructExpr, operators,
};

use crate::{
    declarations::Overload,
    scope::Scope,
    types::{Bindings, Type},
};

/// What is wrong with the part of an expression that has this number.
#[derive(Debug)]
pub struct Fault {
    pub id: u64,
    pub message: String,
}

/// The type of the expression.
///
/// # Errors
/// All that is wrong.
pub fn check(expression: &IdedExpr, scope: &Scope) -> Result<Type, Vec<Fault>> {
    let mut checker = Checker {
        scope,
        locals: Vec::new(),
        bindings: Bindings::default(),
        faults: Vec::new(),
    };
    let found = checker.type_of(expression);
    if checker.faults.is_empty() {
        return Ok(checker.bindings.settled(&found));
    }
    Err(checker.faults)
}

struct Checker<'e> {
    scope: &'e Scope,
    /// The variables of the loops around, the innermost last.
    locals: Vec<(&'e str, Type)>,
    bindings: Bindings,
    faults: Vec<Fault>,
}

impl<'e> Checker<'e> {
    fn fault(&mut self, id: u64, message: String) -> Type {
        self.faults.push(Fault { id, message });
        Type::Error
    }

    fn undeclared(&mut self, id: u64, name: &str) -> Type {
        let message = format!("undeclared reference to '{name}' (in container '')");
        self.fault(id, message)
    }

    fn mismatch(&mut self, id: u64, expected: &Type, found: &Type) -> Type {
        let message = format!("expected type '{expected}' but found '{found}'");
        self.fault(id, message)
    }

    fn find(&self, name: &str) -> Option<Type> {
        let locals = self.locals.iter().rev();
        match name.strip_prefix('.') {
            Some(name) => self.scope.find(name),
            None => locals
                .filter(|(local, _)| *local == name)
                .map(|(_, of)| of.clone())
                .next()
                .or_else(|| self.scope.find(name)),
        }
    }

    fn type_of(&mut self, expression: &'e IdedExpr) -> Type {
        let id = expression.id;
        match &expression.expr {
            Expr::Literal(literal) => type_of_literal(literal),
            Expr::Ident(name) => match self.find(name) {
                Some(found) => found,
                None => self.undeclared(id, name),
            },
            Expr::Select(select) => self.selection(expression, select),
            Expr::Call(call) => self.call(id, call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(&map.entries),
            Expr::Struct(made) => self.structure(id, made),
            Expr::Comprehension(repeated) => self.comprehension(repeated),
            Expr::Unspecified => Type::Error,
        }
    }

    fn selection(&mut self, whole: &'e IdedExpr, select: &'e SelectExpr) -> Type {
        if let Some(name) = qualified_name(whole)
            && let Some(found) = self.find(&name)
        {
            return found;
        }
        let found = self.field(whole.id, &select.operand, &select.field, false);
        match select.test {
            true => Type::Bool,
            false => self.bindings.known(&found),
        }
    }

    fn field(&mut self, id: u64, operand: &'e IdedExpr, field: &str, optional: bool) -> Type {
        let of = self.type_of(operand);
        let of = self.bindings.known(&of);
        let (target, was_optional) = of.unwrapped();
        let found = match target {
            Type::Map(_, value) => Type::clone(value),
            Type::Object(name) => match self.scope.field(name, field) {
                Ok(Some(found)) => found,
                Ok(None) => self.fault(id, format!("undefined field '{field}'")),
                Err(()) => self.fault(id, format!("unexpected failed resolution of '{name}'")),
            },
            Type::Free(_) => {
                self.bindings.unify(&Type::Dyn, target);
                Type::Dyn
            }
            Type::Dyn | Type::Any | Type::Error => Type::Dyn,
            other => {
                self.fault(
                    id,
                    format!("type '{other}' does not support field selection"),
                );
                Type::Dyn
            }
        };
        match optional || was_optional {
            true => Type::optional(found),
            false => found,
        }
    }

    fn call(&mut self, id: u64, call: &'e CallExpr) -> Type {
        let name = call.func_name.as_str();
        if name == operators::OPT_SELECT {
            return self.optional_selection(id, call);
        }
        let mut arguments: Vec<Type> = call.args.iter().map(|one| self.type_of(one)).collect();
        let Some(target) = &call.target else {
            return match self.scope.function(name) {
                Some(overloads) => self.resolve(id, call, overloads, false, &arguments),
                None => self.undeclared(id, name),
            };
        };
        // `a.b.c()` is the function `a.b.c`, or else `c` of what `a.b` is.
        let qualified = qualified_name(target).map(|prefix| format!("{prefix}.{name}"));
        if let Some(overloads) = qualified.and_then(|name| self.scope.function(&name)) {
            return self.resolve(id, call, overloads, false, &arguments);
        }
        arguments.insert(0, self.type_of(target));
        match self.scope.function(name) {
            Some(overloads) => self.resolve(id, call, overloads, true, &arguments),
            None => self.undeclared(id, name),
        }
    }

    fn optional_selection(&mut self, id: u64, call: &'e CallExpr) -> Type {
        let [operand, field] = call.args.as_slice() else {
            let message = format!(
                "unsupported optional field selection: incorrect signature. argument count: {}",
                call.args.len()
            );
            return self.fault(id, message);
        };
        let Expr::Literal(LiteralValue::String(field)) = &field.expr else {
            let message = "unsupported optional field selection".to_owned();
            return self.fault(field.id, message);
        };
        let found = self.field(id, operand, field.inner(), true);
        self.bindings.known(&found)
    }

    /// The type of what the call returns, by all overloads that it may mean.
    fn resolve(
        &mut self,
        id: u64,
        call: &'e CallExpr,
        overloads: &[Overload],
        member: bool,
        arguments: &[Type],
    ) -> Type {
        let name = call.func_name.as_str();
        if matches!(name, operators::LOGICAL_AND | operators::LOGICAL_OR) {
            return self.logical(call, arguments);
        }
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|one| one.member == member) {
            let mut letters = Vec::new();
            let bindings = &mut self.bindings;
            let mut number_of = |letter: char| {
                let known = letters.iter().find(|(known, _)| *known == letter);
                known.map(|(_, number)| *number).unwrap_or_else(|| {
                    let number = bindings.free();
                    letters.push((letter, number));
                    number
                })
            };
            let wanted: Vec<Type> = overload
                .arguments
                .iter()
                .map(|one| one.opened(&mut number_of))
                .collect();
            let returned = overload.result.opened(&mut number_of);
            if !self.bindings.unify_all(arguments, &wanted) {
                continue;
            }
            let returned = self.bindings.known(&returned);
            result = Some(match result {
                Some(known) if !known.is_dynamic() && known != returned => Type::Dyn,
                Some(known) => known,
                None => returned,
            });
        }
        result.unwrap_or_else(|| {
            let known: Vec<_> = arguments
                .iter()
                .map(|one| self.bindings.settled(one).to_string())
                .collect();
            let applied = match known.as_slice() {
                [target, rest @ ..] if member => format!("{target}.({})", rest.join(", ")),
                all => format!("({})", all.join(", ")),
            };
            // A function with a prefix is told with it, as it was found.
            let name = match (&call.target, member) {
                (Some(target), false) => {
                    format!("{}.{name}", qualified_name(target).unwrap_or_default())
                }
                _ => name.to_owned(),
            };
            let message = format!("found no matching overload for '{name}' applied to '{applied}'");
            self.fault(id, message)
        })
    }

    fn logical(&mut self, call: &'e CallExpr, arguments: &[Type]) -> Type {
        let mut result = Type::Bool;
        for (argument, found) in call.args.iter().zip(arguments) {
            if !self.bindings.unify(found, &Type::Bool) {
                let found = self.bindings.known(found);
                result = self.mismatch(argument.id, &Type::Bool, &found);
            }
        }
        result
    }

    fn list(&mut self, list: &'e ListExpr) -> Type {
        let mut joined: Option<Type> = None;
        for (index, element) in list.elements.iter().enumerate() {
            let found = self.type_of(element);
            let optional = list.optional_indices.contains(&index);
            let found = self.held(element.id, found, optional);
            joined = Some(self.join(element.id, joined, found));
        }
        Type::list(joined.unwrap_or_else(|| Type::Free(self.bindings.free())))
    }

    /// What is put into a list, map or structure if it may be left out there.
    fn held(&mut self, id: u64, found: Type, optional: bool) -> Type {
        if !optional {
            return found;
        }
        let (inner, was_optional) = found.unwrapped();
        if !was_optional && !found.is_dynamic() {
            self.mismatch(id, &Type::optional(found.clone()), &found);
        }
        inner.clone()
    }

    fn join(&mut self, id: u64, joined: Option<Type>, found: Type) -> Type {
        let Some(joined) = joined else {
            return found;
        };
        if self.bindings.unify(&joined, &found) {
            return Type::wider(&joined, &found);
        }
        let (joined, found) = (self.bindings.known(&joined), self.bindings.known(&found));
        self.mismatch(id, &joined, &found)
    }

    fn map(&mut self, entries: &'e [IdedEntryExpr]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else {
                continue;
            };
            let key = self.type_of(&entry.key);
            keys = Some(self.join(entry.key.id, keys, key));
            let value = self.type_of(&entry.value);
            let value = self.held(entry.value.id, value, entry.optional);
            values = Some(self.join(entry.value.id, values, value));
        }
        let key = keys.unwrap_or_else(|| Type::Free(self.bindings.free()));
        let value = values.unwrap_or_else(|| Type::Free(self.bindings.free()));
        Type::map(key, value)
    }

    fn structure(&mut self, id: u64, made: &'e StructExpr) -> Type {
        let type_name = made.type_name.trim_start_matches('.');
        let Some(found) = self.scope.find(type_name) else {
            return self.undeclared(id, &made.type_name);
        };
        let name = match &found {
            Type::Type(of) => match &**of {
                Type::Object(name) => name.clone(),
                other => {
                    let message = format!("'{}' is not a message type", other.declared_name());
                    return self.fault(id, message);
                }
            },
            other => {
                let message = format!("'{}' is not a type", other.declared_name());
                return self.fault(id, message);
            }
        };
        for entry in &made.entries {
            let EntryExpr::StructField(field) = &entry.expr else {
                continue;
            };
            let given = self.type_of(&field.value);
            let wanted = match self.scope.field(&name, &field.field) {
                Ok(Some(wanted)) => wanted,
                _ => {
                    let message = format!("undefined field '{}'", field.field);
                    self.fault(entry.id, message)
                }
            };
            let given = self.held(field.value.id, given, field.optional);
            if !self.bindings.unify(&wanted, &given) {
                let message = format!(
                    "expected type of field '{}' is '{wanted}' but provided type is '{}'",
                    field.field,
                    self.bindings.known(&given),
                );
                self.fault(entry.id, message);
            }
        }
        Type::Object(name)
    }

    fn comprehension(&mut self, repeated: &'e ComprehensionExpr) -> Type {
        let range = self.type_of(&repeated.iter_range);
        let accumulated = self.type_of(&repeated.accu_init);
        let range = self.bindings.known(&range);
        let outside = self.locals.len();
        self.locals.push((&repeated.accu_var, accumulated.clone()));
        let two = repeated.iter_var2.as_deref();
        let (first, second) = match &range {
            Type::List(of) if two.is_some() => (Type::Int, Type::clone(of)),
            Type::List(of) => (Type::clone(of), Type::Dyn),
            Type::Map(key, value) => (Type::clone(key), Type::clone(value)),
            Type::Dyn | Type::Any | Type::Error | Type::Free(_) => {
                self.bindings.unify(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be \
                     list, map, or dynamic)"
                );
                self.fault(repeated.iter_range.id, message);
                (Type::Error, Type::Error)
            }
        };
        let inside = self.locals.len();
        self.locals.push((&repeated.iter_var, first));
        if let Some(name) = two {
            self.locals.push((name, second));
        }
        self.expect(&repeated.loop_cond, &Type::Bool);
        self.expect(&repeated.loop_step, &accumulated);
        self.locals.truncate(inside);
        let result = self.type_of(&repeated.result);
        self.locals.truncate(outside);
        self.bindings.known(&result)
    }

    fn expect(&mut self, expression: &'e IdedExpr, wanted: &Type) {
        let found = self.type_of(expression);
        if !self.bindings.unify(wanted, &found) {
            let (wanted, found) = (self.bindings.known(wanted), self.bindings.known(&found));
            self.mismatch(expression.id, &wanted, &found);
        }
    }
}

fn type_of_literal(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}

/// `a.b.c`, if the expression is no more than that.
fn qualified_name(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            let prefix = qualified_name(&select.operand)?;
            Some(format!("{prefix}.{}", select.field))
        }
        _ => None,
    }
}
