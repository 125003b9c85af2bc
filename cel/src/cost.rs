//! What it costs at most to evaluate the selector of a device, in CEL's units.
//!
//! Enter at [`most`]. Sizes are those that a device can have by validation. Where upstream's
//! estimate needs to know more than is known here, this one is lower, so that nothing is refused
//! that upstream takes.
//!
//! Upstream: `checker/cost.go` of cel-go, `dynamic-resource-allocation/cel`.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators,
};

const LIST: u64 = 10;
const MAP: u64 = 30;
const STRUCTURE: u64 = 40;

/// What is declared of a part of a device.
struct Part {
    /// Of a text its length, of a map its entries.
    size: u64,
    fields: &'static [(&'static str, &'static Part)],
    key: Option<&'static Part>,
    value: Option<&'static Part>,
}

const fn plain(size: u64) -> Part {
    Part {
        size,
        fields: &[],
        key: None,
        value: None,
    }
}

const fn map(key: &'static Part, value: &'static Part) -> Part {
    Part {
        size: 32,
        fields: &[],
        key: Some(key),
        value: Some(value),
    }
}

static FLAG: Part = plain(1);
static DOMAIN: Part = plain(63);
static NAME: Part = plain(32);
static VALUE: Part = plain(64);
static VALUES: Part = map(&NAME, &VALUE);
static ATTRIBUTES: Part = map(&DOMAIN, &VALUES);
static DEVICE: Part = Part {
    size: 1,
    fields: &[
        ("driver", &DOMAIN),
        ("allowMultipleAllocations", &FLAG),
        ("attributes", &ATTRIBUTES),
        ("capacity", &ATTRIBUTES),
    ],
    key: None,
    value: None,
};

/// What is known of an expression's value.
#[derive(Clone, Copy, Default)]
struct Known {
    cost: u64,
    size: Option<u64>,
    part: Option<&'static Part>,
}

impl Known {
    fn of(part: &'static Part) -> Self {
        Known {
            cost: 0,
            size: Some(part.size),
            part: Some(part),
        }
    }

    fn sized(size: u64) -> Self {
        Known {
            size: Some(size),
            ..Known::default()
        }
    }

    fn costing(self, cost: u64) -> Self {
        Known { cost, ..self }
    }

    /// What it costs to walk through it.
    fn walk(&self) -> u64 {
        tenths(self.size.unwrap_or(1))
    }
}

fn tenths(size: u64) -> u64 {
    size.div_ceil(10)
}

/// The most that it costs to evaluate the expression.
pub fn most(expression: &IdedExpr) -> u64 {
    let device = ("device", Known::of(&DEVICE));
    Estimate(vec![device]).of(expression).cost
}

/// The variables, the innermost last.
struct Estimate<'e>(Vec<(&'e str, Known)>);

impl<'e> Estimate<'e> {
    fn of(&mut self, expression: &'e IdedExpr) -> Known {
        match &expression.expr {
            Expr::Literal(LiteralValue::String(text)) => {
                Known::sized(text.inner().chars().count() as u64)
            }
            Expr::Literal(LiteralValue::Bytes(bytes)) => Known::sized(bytes.inner().len() as u64),
            Expr::Literal(_) => Known::sized(1),
            Expr::Ident(name) => {
                let mut known = self.0.iter().rev();
                let found = known.find(|(known, _)| known == name);
                found
                    .map(|(_, known)| *known)
                    .unwrap_or_default()
                    .costing(1)
            }
            Expr::Select(select) => {
                let operand = self.of(&select.operand);
                let field = operand.part.and_then(|part| {
                    let named = part.fields.iter().find(|(name, _)| *name == select.field);
                    named.map(|(_, field)| *field).or(part.value)
                });
                let free = select.test || field.is_none();
                let cost = operand.cost.saturating_add(u64::from(!free));
                field.map(Known::of).unwrap_or_default().costing(cost)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let cost = self.all(&list.elements).saturating_add(LIST);
                Known::sized(list.elements.len() as u64).costing(cost)
            }
            Expr::Map(map) => {
                let mut cost = MAP;
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        let entry = self.of(&entry.key).cost + self.of(&entry.value).cost;
                        cost = cost.saturating_add(entry);
                    }
                }
                Known::sized(map.entries.len() as u64).costing(cost)
            }
            Expr::Struct(made) => {
                let mut cost = STRUCTURE;
                for entry in &made.entries {
                    if let EntryExpr::StructField(field) = &entry.expr {
                        cost = cost.saturating_add(self.of(&field.value).cost);
                    }
                }
                Known::default().costing(cost)
            }
            Expr::Comprehension(repeated) => self.comprehension(repeated),
            Expr::Unspecified => Known::default(),
        }
    }

    fn all(&mut self, expressions: &'e [IdedExpr]) -> u64 {
        expressions.iter().fold(0, |sum: u64, one| {
            let cost = self.of(one).cost;
            sum.saturating_add(cost)
        })
    }

    fn call(&mut self, call: &'e CallExpr) -> Known {
        let target = call.target.as_ref().map(|target| self.of(target));
        let arguments: Vec<Known> = call.args.iter().map(|one| self.of(one)).collect();
        let parts = target.iter().chain(&arguments);
        let before = parts.fold(0, |sum: u64, part| sum.saturating_add(part.cost));
        let least = || arguments.iter().filter_map(|one| one.size).min();
        let of_target = target.unwrap_or_default();
        let (own, result) = match (call.func_name.as_str(), arguments.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, _) => (0, Known::sized(1)),
            (operators::CONDITIONAL, [condition, one, other]) => {
                let cost = condition.cost.saturating_add(one.cost.max(other.cost));
                let size = one.size.zip(other.size).map(|(one, other)| one.max(other));
                let known = Known {
                    size,
                    ..Known::default()
                };
                return known.costing(cost);
            }
            (operators::EQUALS | operators::NOT_EQUALS, _) => {
                (tenths(least().unwrap_or(1)), Known::sized(1))
            }
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                _,
            ) => (tenths(least().unwrap_or(1)).max(1), Known::sized(1)),
            (operators::IN, [_, container]) => {
                let is_map = container.part.is_some();
                let cost = if is_map {
                    1
                } else {
                    container.size.unwrap_or(1)
                };
                (cost, Known::sized(1))
            }
            (operators::INDEX, [container, _]) => {
                let value = container.part.and_then(|part| part.value);
                (1, value.map(Known::of).unwrap_or_default())
            }
            (operators::ADD, [one, other]) => {
                let size = one.size.zip(other.size);
                let size = size.map(|(one, other)| one.saturating_add(other));
                let known = Known {
                    size,
                    ..Known::default()
                };
                (1, known)
            }
            ("startsWith" | "endsWith", [part]) => (part.walk(), Known::sized(1)),
            ("contains", [part]) => (
                of_target.walk().saturating_mul(part.walk()),
                Known::sized(1),
            ),
            ("matches", [pattern]) => {
                let text = tenths(of_target.size.unwrap_or(0).saturating_add(1));
                let pattern = pattern.size.unwrap_or(1).div_ceil(4);
                (text.saturating_mul(pattern), Known::sized(1))
            }
            (
                "lowerAscii" | "upperAscii" | "trim" | "replace" | "split" | "find" | "findAll",
                _,
            ) => (of_target.walk(), Known::default()),
            _ => (1, Known::default()),
        };
        result.costing(before.saturating_add(own))
    }

    fn comprehension(&mut self, repeated: &'e ComprehensionExpr) -> Known {
        let range = self.of(&repeated.iter_range);
        let start = self.of(&repeated.accu_init);
        let outside = self.0.len();
        self.0.push((&repeated.accu_var, start));
        // The first variable is of keys, but of elements in a list with one variable.
        let key = range.part.and_then(|part| part.key);
        let key = key.map(Known::of).unwrap_or_default();
        let value = range.part.and_then(|part| part.value);
        self.0.push((&repeated.iter_var, key));
        if let Some(second) = &repeated.iter_var2 {
            let value = value.map(Known::of).unwrap_or_default();
            self.0.push((second, value));
        }
        let each = self.of(&repeated.loop_cond).cost;
        let each = each.saturating_add(self.of(&repeated.loop_step).cost);
        self.0.truncate(outside + 1);
        let result = self.of(&repeated.result);
        self.0.truncate(outside);
        let count = range.size.unwrap_or(1);
        let cost = range.cost.saturating_add(start.cost);
        let cost = cost.saturating_add(result.cost);
        let is_list = matches!(repeated.accu_init.expr, Expr::List(_) | Expr::Map(_));
        let known = if is_list { Known::sized(count) } else { result };
        known.costing(cost.saturating_add(count.saturating_mul(each)))
    }
}
