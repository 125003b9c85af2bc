//! How much of a device's capacity a request takes, where several may share the device.

use std::collections::BTreeMap;

use coracle_api::quantity::Amount;
use k8s_openapi::{
    api::resource::v1::{CapacityRequestPolicy, CapacityRequirements, Device, DeviceCapacity},
    apimachinery::pkg::api::resource::Quantity,
};

/// Amounts by the name of the capacity.
pub(crate) type Consumed = BTreeMap<String, Amount>;

/// Whether the device can give what the request asks for beside what others have taken of it.
pub(super) fn fits<'a>(
    wanted: Option<&CapacityRequirements>,
    device: &Device,
    taken: impl Fn(&str) -> Amount + 'a,
) -> bool {
    let empty = BTreeMap::new();
    let capacity = device.capacity.as_ref().unwrap_or(&empty);
    let requests = wanted.and_then(|wanted| wanted.requests.as_ref());
    let known = |name: &String| capacity.contains_key(name);
    if requests.is_some_and(|requests| !requests.keys().all(known)) {
        return false;
    }
    capacity.iter().all(|(name, has)| {
        let asked = requests.and_then(|requests| requests.get(name));
        let takes = rounded(asked, has);
        !violates(takes, has.request_policy.as_ref())
            && takes.plus(taken(name)) <= Amount::from(&has.value)
    })
}

/// What the request takes of each capacity of the device.
pub(super) fn consumed(wanted: Option<&CapacityRequirements>, device: &Device) -> Consumed {
    let requests = wanted.and_then(|wanted| wanted.requests.as_ref());
    let of = |(name, has): (&String, &DeviceCapacity)| {
        let asked = requests.and_then(|requests| requests.get(name));
        (name.clone(), rounded(asked, has))
    };
    device.capacity.iter().flatten().map(of).collect()
}

/// What is asked for, rounded up to what the policy allows. Without a request it is the policy's
/// default, or all there is.
fn rounded(asked: Option<&Quantity>, has: &DeviceCapacity) -> Amount {
    let policy = has.request_policy.as_ref();
    let Some(asked) = asked.map(Amount::from) else {
        let default = policy.and_then(|policy| policy.default.as_ref());
        return Amount::from(default.unwrap_or(&has.value));
    };
    let Some(policy) = policy else {
        return asked;
    };
    if let Some(range) = &policy.valid_range {
        let least = Amount::from(&range.min);
        let step = range
            .step
            .as_ref()
            .map_or(0, |step| Amount::from(step).value());
        if asked < least {
            return least;
        }
        if step <= 0 {
            return asked;
        }
        let steps = (asked.value() - least.value() + step - 1) / step;
        return Amount::from_integer(least.value() + steps * step);
    }
    let mut values = policy.valid_values.iter().flatten().map(Amount::from);
    values.find(|value| asked <= *value).unwrap_or(asked)
}

fn violates(amount: Amount, policy: Option<&CapacityRequestPolicy>) -> bool {
    let Some(policy) = policy else {
        return false;
    };
    if policy.default.as_ref().map(Amount::from) == Some(amount) {
        return false;
    }
    if let Some(range) = &policy.valid_range {
        let step = range
            .step
            .as_ref()
            .map_or(0, |step| Amount::from(step).value());
        let least = Amount::from(&range.min).value();
        let too_much = range
            .max
            .as_ref()
            .is_some_and(|max| amount > Amount::from(max));
        return too_much || step > 0 && (amount.value() - least) % step != 0;
    }
    match policy.valid_values.as_deref() {
        None | Some([]) => false,
        Some(values) => !values.iter().any(|value| Amount::from(value) == amount),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn requests_are_rounded_to_what_the_policy_allows() {
        let range =
            json!({ "default": "2", "validRange": { "min": "2", "max": "8", "step": "3" } });
        let values = json!({ "default": "3", "validValues": ["3", "5"] });
        let cases: [(Value, Value, Option<i64>); 12] = [
            (Value::Null, Value::Null, Some(10)),
            (Value::Null, json!("4"), Some(4)),
            (Value::Null, json!("11"), None),
            (range.clone(), Value::Null, Some(2)),
            (range.clone(), json!("1"), Some(2)),
            (range.clone(), json!("3"), Some(5)),
            (range.clone(), json!("8"), Some(8)),
            (range, json!("9"), None),
            (values.clone(), Value::Null, Some(3)),
            (values.clone(), json!("2"), Some(3)),
            (values.clone(), json!("4"), Some(5)),
            (values, json!("6"), None),
        ];
        for (policy, asked, expected) in cases {
            let device: Device = serde_json::from_value(json!({ "name": "d",
                "capacity": { "c": { "value": "10", "requestPolicy": policy } } }))
            .unwrap();
            let wanted = (!asked.is_null()).then(|| {
                serde_json::from_value::<CapacityRequirements>(
                    json!({ "requests": { "c": asked } }),
                )
                .unwrap()
            });
            let fits = fits(wanted.as_ref(), &device, |_| Amount::ZERO);
            let takes = fits.then(|| consumed(wanted.as_ref(), &device)["c"].value());
            assert_eq!(takes, expected, "{policy} {asked}");
        }
    }

    #[test]
    fn what_others_took_counts_and_unknown_capacities_cannot_be_had() {
        let device: Device = serde_json::from_value(json!({ "name": "d",
            "capacity": { "c": { "value": "10" } } }))
        .unwrap();
        let ask = |name: &str, taken: i64| {
            let wanted = json!({ "requests": { name: "4" } });
            let wanted: CapacityRequirements = serde_json::from_value(wanted).unwrap();
            fits(Some(&wanted), &device, |_| Amount::from_integer(taken))
        };
        assert!(ask("c", 6));
        assert!(!ask("c", 7));
        assert!(!ask("other", 0));
    }
}
