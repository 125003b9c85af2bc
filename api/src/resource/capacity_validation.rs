//! Checks of how much of a capacity one request may take. Enter at [`request_policy`].
//!
//! Upstream: `validateRequestPolicy` of `pkg/apis/resource/validation`.

use k8s_openapi::{
    api::resource::v1::{CapacityRequestPolicy, CapacityRequestPolicyRange},
    apimachinery::pkg::api::resource::Quantity,
};

use super::validation::is_short;
use crate::{
    check,
    field::{ErrorList, Path},
    quantity::Amount,
    zero::list,
};

const MAX_VALUES: usize = 10;

/// Checks a policy for a capacity of `most`.
pub fn request_policy(
    policy: &CapacityRequestPolicy,
    most: &Quantity,
    path: &Path,
    errors: &mut ErrorList,
) {
    let amount =
        |quantity: &Quantity, errors: &mut ErrorList| check::amount(quantity, path, errors);
    let values = list(&policy.valid_values);
    let field = match (values, &policy.valid_range) {
        ([], None) => return,
        ([_, ..], Some(_)) => {
            errors.push(path.forbidden(
                "exactly one policy can be specified, cannot specify \"validValues\" and \
                 \"validRange\" at the same time",
            ));
            return;
        }
        ([], Some(_)) => "validRange",
        ([_, ..], None) => "validValues",
    };
    let Some(default) = &policy.default else {
        let detail = format!("required when {field} is defined");
        errors.push(path.child("default").required(detail));
        return;
    };
    let limits = Limits {
        default: amount(default, errors),
        most: amount(most, errors),
    };
    let path = path.child(field);
    match &policy.valid_range {
        Some(range) => limits.check_range(range, &path, errors),
        None => {
            let values: Vec<Amount> = values.iter().map(|value| amount(value, errors)).collect();
            limits.check_values(&values, &path, errors);
        }
    }
}

struct Limits {
    default: Amount,
    most: Amount,
}

impl Limits {
    fn check_values(&self, values: &[Amount], path: &Path, errors: &mut ErrorList) {
        for (index, pair) in values.windows(2).enumerate() {
            if let [value, next] = pair
                && value > next
            {
                let detail = "values must be sorted in ascending order";
                errors.push(path.index(index + 1).invalid(next.to_string(), detail));
            }
        }
        let mut has_default = false;
        if is_short(values, MAX_VALUES, path, errors) {
            has_default = values.contains(&self.default);
            for (index, value) in values.iter().enumerate().filter(|(_, v)| **v > self.most) {
                let detail = format!("option is larger than capacity value: {}", self.most);
                errors.push(path.index(index).invalid(value.to_string(), detail));
            }
            let whole: Vec<i64> = values.iter().map(|value| value.value()).collect();
            for (index, value) in whole.iter().enumerate() {
                if whole[..index].contains(value) {
                    errors.push(path.index(index).duplicate(value.to_string()));
                }
            }
        }
        if !has_default {
            let detail = "default value is not valid according to the requestPolicy";
            errors.push(path.invalid(self.default.to_string(), detail));
        }
    }

    fn check_range(&self, range: &CapacityRequestPolicyRange, path: &Path, errors: &mut ErrorList) {
        let (default, most) = (self.default, self.most);
        let min_path = path.child("min");
        if range.min.0.is_empty() {
            errors.push(min_path.required("required when validRange is defined"));
            return;
        }
        let min = check::amount(&range.min, &min_path, errors);
        let max_path = path.child("max");
        let max = range
            .max
            .as_ref()
            .map(|max| check::amount(max, &max_path, errors));
        let mut complain = |is_wrong: bool, path: &Path, value: Amount, detail: String| {
            if is_wrong {
                errors.push(path.invalid(value.to_string(), detail));
            }
        };
        let larger = |what: &str| format!("{what} is larger than capacity value: {most}");
        complain(min > most, &min_path, min, larger("min"));
        let detail = format!("default is less than min: {min}");
        complain(default < min, &min_path, default, detail);
        if let Some(max) = max {
            let detail = format!("min is larger than max: {max}");
            complain(min > max, &max_path, min, detail);
            complain(max > most, &max_path, max, larger("max"));
            let detail = format!("default is more than max: {max}");
            complain(default > max, &max_path, default, detail);
        }
        if let Some(step) = &range.step {
            let path = path.child("step");
            let step = Amount::parse(&step.0).unwrap_or(Amount::ZERO);
            let first = min.plus(step);
            complain(
                first > most,
                &path,
                step,
                larger(&format!("one step {first}")),
            );
            for value in std::iter::once(default).chain(max) {
                let distance = value.value() - min.value();
                let is_off = distance.checked_rem(step.value()) != Some(0);
                let detail =
                    format!("value is not a multiple of a given step ({step}) from ({min})");
                complain(is_off, &path, value, detail);
            }
        }
    }
}
