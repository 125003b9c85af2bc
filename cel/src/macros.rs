//! What is written as a call and means something else: `cel.bind`, `optMap`, and loops over two
//! variables.
//!
//! Upstream: `ext/bindings.go`, `ext/comprehensions.go` and `cel/library.go` of cel-go.

use cel::{
    ParseError,
    common::ast::{
        CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, operators,
    },
    parser::{Macro, MacroExprHelper},
};

/// The variable in which a loop keeps its result.
const RESULT: &str = "@result";
const MAP_INSERT: &str = "cel.@mapInsert";

/// Those that every expression may use.
pub(crate) fn common() -> Vec<Macro> {
    let mut all = vec![
        Macro::receiver("optMap", 2, |helper, target, arguments| {
            optional(helper, target, arguments, "optMap")
        }),
        Macro::receiver("optFlatMap", 2, |helper, target, arguments| {
            optional(helper, target, arguments, "optFlatMap")
        }),
    ];
    for (name, count, what) in [
        ("all", 3, Loop::All),
        ("exists", 3, Loop::Exists),
        ("existsOne", 3, Loop::ExistsOne),
        ("exists_one", 3, Loop::ExistsOne),
        ("transformList", 3, Loop::List),
        ("transformList", 4, Loop::List),
        ("transformMap", 3, Loop::Map),
        ("transformMap", 4, Loop::Map),
        ("transformMapEntry", 3, Loop::MapEntry),
        ("transformMapEntry", 4, Loop::MapEntry),
    ] {
        all.push(Macro::receiver(
            name,
            count,
            move |helper, target, arguments| over_two(helper, target, arguments, what),
        ));
    }
    all
}

/// `cel.bind(name, value, expression)`: a loop over nothing whose result is the expression.
pub(crate) fn bind() -> Macro {
    Macro::receiver("bind", 3, |helper, target, arguments| {
        let is_ours = target
            .as_ref()
            .is_some_and(|target| matches!(&target.expr, Expr::Ident(name) if name == "cel"));
        let name = match arguments.first().map(|name| &name.expr) {
            Some(Expr::Ident(name)) if is_ours => name.clone(),
            _ => return Ok(None),
        };
        let mut arguments = std::mem::take(arguments).into_iter().skip(1);
        let (Some(value), Some(result)) = (arguments.next(), arguments.next()) else {
            return Ok(None);
        };
        Ok(Some(bound(helper, name, value, result)))
    })
}

fn bound(
    helper: &mut MacroExprHelper<'_>,
    name: String,
    value: IdedExpr,
    result: IdedExpr,
) -> IdedExpr {
    let bound = ComprehensionExpr {
        iter_range: helper.next_expr(Expr::List(ListExpr::new(Vec::new()))),
        iter_var: "#unused".to_owned(),
        iter_var2: None,
        accu_init: value,
        loop_cond: helper.next_expr(Expr::Literal(LiteralValue::Boolean(false.into()))),
        loop_step: helper.next_expr(Expr::Ident(name.clone())),
        accu_var: name,
        result,
    };
    helper.next_expr(Expr::Comprehension(Box::new(bound)))
}

/// `target.optMap(name, expression)`: the expression of what the target holds, if it holds
/// something. With `optFlatMap` the expression is an optional itself.
fn optional(
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    arguments: &mut Vec<IdedExpr>,
    function: &str,
) -> Result<Option<IdedExpr>, ParseError> {
    let name = match arguments.first() {
        Some(IdedExpr {
            expr: Expr::Ident(name),
            ..
        }) => name.clone(),
        other => {
            let id = other.map_or(0, |other| other.id);
            let message = format!("{function}() variable name must be a simple identifier");
            return Err(helper.new_error(id, message));
        }
    };
    let (Some(target), Some(result)) = (target.take(), arguments.pop()) else {
        return Ok(None);
    };
    let has_value = method(helper, target.clone(), "hasValue");
    let value = method(helper, target, "value");
    let mut found = bound(helper, name, value, result);
    if function == "optMap" {
        found = call(helper, "optional.of", vec![found]);
    }
    let none = call(helper, "optional.none", Vec::new());
    let parts = vec![has_value, found, none];
    Ok(Some(call(helper, operators::CONDITIONAL, parts)))
}

/// A loop over both the keys and the values of a map, or the numbers and elements of a list.
#[derive(Clone, Copy)]
enum Loop {
    All,
    Exists,
    ExistsOne,
    List,
    Map,
    MapEntry,
}

/// `target.f(key, value, expression)`, for some with a filter before the expression.
fn over_two(
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    arguments: &mut Vec<IdedExpr>,
    what: Loop,
) -> Result<Option<IdedExpr>, ParseError> {
    let Some(target) = target.take() else {
        return Ok(None);
    };
    let mut arguments = std::mem::take(arguments).into_iter();
    let (first, second) = (arguments.next(), arguments.next());
    let (key, value) = (name(helper, first)?, name(helper, second)?);
    let mut rest: Vec<IdedExpr> = arguments.collect();
    let body = rest.pop().unwrap_or_default();
    let result = |helper: &mut MacroExprHelper<'_>| ident(helper, RESULT);
    let truth = |helper: &mut MacroExprHelper<'_>, truth: bool| {
        helper.next_expr(Expr::Literal(LiteralValue::Boolean(truth.into())))
    };
    let mut goes_on = truth(helper, true);
    let so_far = result(helper);
    let mut whole = result(helper);
    let (start, step) = match what {
        Loop::All => {
            let kept = result(helper);
            goes_on = call(helper, operators::NOT_STRICTLY_FALSE, vec![kept]);
            let start = truth(helper, true);
            (
                start,
                call(helper, operators::LOGICAL_AND, vec![so_far, body]),
            )
        }
        Loop::Exists => {
            let found = result(helper);
            let not_found = call(helper, operators::LOGICAL_NOT, vec![found]);
            goes_on = call(helper, operators::NOT_STRICTLY_FALSE, vec![not_found]);
            let start = truth(helper, false);
            (
                start,
                call(helper, operators::LOGICAL_OR, vec![so_far, body]),
            )
        }
        Loop::ExistsOne => {
            let one = number(helper, 1);
            let counted = call(helper, operators::ADD, vec![so_far, one]);
            let same = result(helper);
            let step = call(helper, operators::CONDITIONAL, vec![body, counted, same]);
            let one = number(helper, 1);
            whole = call(helper, operators::EQUALS, vec![whole, one]);
            (number(helper, 0), step)
        }
        Loop::List => {
            let start = helper.next_expr(Expr::List(ListExpr::new(Vec::new())));
            let one = helper.next_expr(Expr::List(ListExpr::new(vec![body])));
            (start, call(helper, operators::ADD, vec![so_far, one]))
        }
        Loop::Map => {
            let start = helper.next_expr(Expr::Map(MapExpr::default()));
            let key = ident(helper, &key);
            (start, call(helper, MAP_INSERT, vec![so_far, key, body]))
        }
        Loop::MapEntry => {
            let start = helper.next_expr(Expr::Map(MapExpr::default()));
            (start, call(helper, MAP_INSERT, vec![so_far, body]))
        }
    };
    let step = match rest.pop() {
        Some(filter) => {
            let same = result(helper);
            call(helper, operators::CONDITIONAL, vec![filter, step, same])
        }
        None => step,
    };
    let repeated = ComprehensionExpr {
        iter_range: target,
        iter_var: key,
        iter_var2: Some(value),
        accu_var: RESULT.to_owned(),
        accu_init: start,
        loop_cond: goes_on,
        loop_step: step,
        result: whole,
    };
    Ok(Some(
        helper.next_expr(Expr::Comprehension(Box::new(repeated))),
    ))
}

fn name(
    helper: &mut MacroExprHelper<'_>,
    argument: Option<IdedExpr>,
) -> Result<String, ParseError> {
    let argument = argument.unwrap_or_default();
    match argument.expr {
        Expr::Ident(name) => Ok(name),
        _ => Err(helper.new_error(argument.id, "argument must be a simple name")),
    }
}

fn ident(helper: &mut MacroExprHelper<'_>, name: &str) -> IdedExpr {
    helper.next_expr(Expr::Ident(name.to_owned()))
}

fn number(helper: &mut MacroExprHelper<'_>, number: i64) -> IdedExpr {
    helper.next_expr(Expr::Literal(LiteralValue::Int(number.into())))
}

fn call(helper: &mut MacroExprHelper<'_>, function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    helper.next_expr(Expr::Call(CallExpr {
        func_name: function.to_owned(),
        target: None,
        args,
    }))
}

fn method(helper: &mut MacroExprHelper<'_>, target: IdedExpr, function: &str) -> IdedExpr {
    helper.next_expr(Expr::Call(CallExpr {
        func_name: function.to_owned(),
        target: Some(Box::new(target)),
        args: Vec::new(),
    }))
}
