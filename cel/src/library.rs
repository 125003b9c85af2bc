//! What upstream adds to CEL: quantities and semantic versions.

use std::any::Any;

use cel::{
    Env, ExecutionError,
    common::{
        types::{CelBool, CelDouble, CelInt, CelString, Type},
        value::{StaticVal, Val},
    },
};
use coracle_api::quantity::Amount;
use semver::Version;

type Evaluated<T> = Result<T, ExecutionError>;

macro_rules! plain_value {
    ($name:ident, $type:ident, $text:literal) => {
        static $type: Type = Type::new_unspecified_type($text);

        impl Val for $name {
            fn get_type(&self) -> &Type {
                &$type
            }

            fn cel_type() -> &'static Type {
                &$type
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other
                    .downcast_ref::<$name>()
                    .is_some_and(|other| order(self, other).is_eq())
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $name {}

        fn order(one: &$name, other: &$name) -> std::cmp::Ordering {
            one.order(other)
        }

        pub(super) fn compare_to(one: &$name, other: &$name) -> CelInt {
            CelInt::from(order(one, other) as i64)
        }

        pub(super) fn is_greater_than(one: &$name, other: &$name) -> CelBool {
            CelBool::from(order(one, other).is_gt())
        }

        pub(super) fn is_less_than(one: &$name, other: &$name) -> CelBool {
            CelBool::from(order(one, other).is_lt())
        }
    };
}

/// `kubernetes.Quantity`
#[derive(Clone, Debug)]
pub struct Quantity(pub Amount);

impl Quantity {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// `kubernetes.Semver`
#[derive(Clone, Debug)]
pub struct Semver(pub Version);

impl Semver {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp_precedence(&other.0)
    }
}

mod quantity_value {
    use super::{Any, CelBool, CelInt, Quantity, StaticVal, Type, Val};

    plain_value!(Quantity, TYPE, "kubernetes.Quantity");
}

mod semver_value {
    use super::{Any, CelBool, CelInt, Semver, StaticVal, Type, Val};

    plain_value!(Semver, TYPE, "kubernetes.Semver");
}

pub(crate) fn quantities(environment: &mut Env) -> Result<(), cel::DeclarationError> {
    use quantity_value::{compare_to, is_greater_than, is_less_than};

    fn failed(error: impl ToString) -> ExecutionError {
        ExecutionError::function_error("quantity", error)
    }
    fn quantity(text: &CelString<'_>) -> Evaluated<Quantity> {
        Amount::parse(text.inner()).map(Quantity).map_err(failed)
    }
    fn is_quantity(text: &CelString<'_>) -> CelBool {
        CelBool::from(Amount::parse(text.inner()).is_ok())
    }
    fn sign(this: &Quantity) -> CelInt {
        CelInt::from(this.0.cmp(&Amount::ZERO) as i64)
    }
    fn is_integer(this: &Quantity) -> CelBool {
        CelBool::from(this.0.is_integer())
    }
    fn as_integer(this: &Quantity) -> Evaluated<CelInt> {
        if this.0.is_integer() {
            return Ok(CelInt::from(this.0.value()));
        }
        Err(failed("cannot convert value to integer"))
    }
    fn as_float(this: &Quantity) -> CelDouble {
        CelDouble::from(this.0.as_f64())
    }
    fn add(this: &Quantity, other: &Quantity) -> Quantity {
        Quantity(this.0.plus(other.0))
    }
    fn add_int(this: &Quantity, other: &CelInt) -> Quantity {
        Quantity(this.0.plus(Amount::from_integer(*other.inner())))
    }
    fn sub(this: &Quantity, other: &Quantity) -> Quantity {
        Quantity(this.0.minus(other.0))
    }
    fn sub_int(this: &Quantity, other: &CelInt) -> Quantity {
        Quantity(this.0.minus(Amount::from_integer(*other.inner())))
    }

    environment.add_type(<Quantity as Val>::cel_type().to_owned())?;
    cel::add_overload!(environment, fn quantity: (CelString<'_>) -> Result<Quantity>, name = "quantity")?;
    cel::add_overload!(environment, fn is_quantity: (CelString<'_>) -> CelBool, name = "isQuantity")?;
    cel::add_overload!(environment, fn sign: (Quantity) -> CelInt, name = "sign")?;
    cel::add_member_overload!(environment, fn is_integer: (Quantity) -> CelBool, name = "isInteger")?;
    cel::add_member_overload!(environment, fn as_integer: (Quantity) -> Result<CelInt>, name = "asInteger")?;
    cel::add_member_overload!(environment, fn as_float: (Quantity) -> CelDouble, name = "asApproximateFloat")?;
    cel::add_member_overload!(environment, fn compare_to: (Quantity, Quantity) -> CelInt, name = "compareTo")?;
    cel::add_member_overload!(environment, fn is_greater_than: (Quantity, Quantity) -> CelBool, name = "isGreaterThan")?;
    cel::add_member_overload!(environment, fn is_less_than: (Quantity, Quantity) -> CelBool, name = "isLessThan")?;
    cel::add_member_overload!(environment, fn add: (Quantity, Quantity) -> Quantity, name = "add")?;
    cel::add_member_overload!(environment, fn add_int: (Quantity, CelInt) -> Quantity, name = "add")?;
    cel::add_member_overload!(environment, fn sub: (Quantity, Quantity) -> Quantity, name = "sub")?;
    cel::add_member_overload!(environment, fn sub_int: (Quantity, CelInt) -> Quantity, name = "sub")?;
    Ok(())
}

pub(crate) fn versions(environment: &mut Env) -> Result<(), cel::DeclarationError> {
    use semver_value::{compare_to, is_greater_than, is_less_than};

    fn parsed(text: &str) -> Evaluated<Semver> {
        let parsed = Version::parse(text).map(Semver);
        parsed.map_err(|error| ExecutionError::function_error("semver", error))
    }
    fn semver(text: &CelString<'_>) -> Evaluated<Semver> {
        parsed(text.inner())
    }
    fn semver_normal(text: &CelString<'_>, normalize: &CelBool) -> Evaluated<Semver> {
        match normalize.inner() {
            true => parsed(&normalized(text.inner())),
            false => parsed(text.inner()),
        }
    }
    fn is_semver(text: &CelString<'_>) -> CelBool {
        CelBool::from(semver(text).is_ok())
    }
    fn is_semver_normal(text: &CelString<'_>, normalize: &CelBool) -> CelBool {
        CelBool::from(semver_normal(text, normalize).is_ok())
    }
    fn part(number: u64) -> CelInt {
        CelInt::from(i64::try_from(number).unwrap_or(i64::MAX))
    }
    fn major(this: &Semver) -> CelInt {
        part(this.0.major)
    }
    fn minor(this: &Semver) -> CelInt {
        part(this.0.minor)
    }
    fn patch(this: &Semver) -> CelInt {
        part(this.0.patch)
    }

    environment.add_type(<Semver as Val>::cel_type().to_owned())?;
    cel::add_overload!(environment, fn semver: (CelString<'_>) -> Result<Semver>, name = "semver")?;
    cel::add_overload!(environment, fn semver_normal: (CelString<'_>, CelBool) -> Result<Semver>, name = "semver")?;
    cel::add_overload!(environment, fn is_semver: (CelString<'_>) -> CelBool, name = "isSemver")?;
    cel::add_overload!(environment, fn is_semver_normal: (CelString<'_>, CelBool) -> CelBool, name = "isSemver")?;
    cel::add_member_overload!(environment, fn major: (Semver) -> CelInt, name = "major")?;
    cel::add_member_overload!(environment, fn minor: (Semver) -> CelInt, name = "minor")?;
    cel::add_member_overload!(environment, fn patch: (Semver) -> CelInt, name = "patch")?;
    cel::add_member_overload!(environment, fn compare_to: (Semver, Semver) -> CelInt, name = "compareTo")?;
    cel::add_member_overload!(environment, fn is_greater_than: (Semver, Semver) -> CelBool, name = "isGreaterThan")?;
    cel::add_member_overload!(environment, fn is_less_than: (Semver, Semver) -> CelBool, name = "isLessThan")?;
    Ok(())
}

/// The version without a leading `v` and leading zeros, and with all three of its parts.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut parts: Vec<&str> = numbers.split('.').collect();
    for part in &mut parts {
        let plain = part.trim_start_matches('0');
        *part = if plain.is_empty() && !part.is_empty() {
            "0"
        } else {
            plain
        };
    }
    while parts.len() < 3 {
        parts.push("0");
    }
    format!("{}{rest}", parts.join("."))
}
