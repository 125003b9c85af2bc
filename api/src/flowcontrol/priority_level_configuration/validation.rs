//! What is wrong with a PriorityLevelConfiguration.
//!
//! Upstream: `pkg/apis/flowcontrol/validation`.

use k8s_openapi::api::flowcontrol::v1::{
    LimitedPriorityLevelConfiguration, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
    QueuingConfiguration,
};
use serde_json::{Value, json};

use crate::{
    field::{ErrorList, Path, value_of},
    zero::{list, text},
};

const EXEMPT: &str = "exempt";
/// Bits that a hash has for dealing hands of queues.
const HASH_BITS: u32 = 60;

pub fn object(level: &PriorityLevelConfiguration) -> ErrorList {
    const PRESERVE: &str = "flowcontrol.k8s.io/preserve-zero-concurrency-shares";
    let mut errors = ErrorList::new();
    let annotations = level.metadata.annotations.as_ref();
    if annotations.is_some_and(|annotations| annotations.contains_key(PRESERVE)) {
        let message = format!("annotation '{PRESERVE}' is forbidden");
        errors.push(Path::new("metadata.annotations").forbidden(message));
    }
    let (name, path) = (text(&level.metadata.name), Path::new("spec"));
    if let Some(level) = &level.spec {
        spec(level, name, &path, &mut errors);
        mandatory(level, name, &path, &mut errors);
    }
    errors.extend(status(level));
    errors
}

pub fn status(level: &PriorityLevelConfiguration) -> ErrorList {
    let status = level.status.as_ref();
    let conditions = status.map_or(&[][..], |status| list(&status.conditions));
    let types: Vec<&str> = conditions.iter().map(|one| text(&one.type_)).collect();
    crate::flowcontrol::condition_types(&types)
}

/// Two levels must be as they are.
fn mandatory(
    spec: &PriorityLevelConfigurationSpec,
    name: &str,
    path: &Path,
    errors: &mut ErrorList,
) {
    let (fixed, but) = match name {
        EXEMPT => (json!({"type": "Exempt"}), " except the 'spec.exempt' field"),
        "catch-all" => (
            json!({
                "type": "Limited",
                "limited": {
                    "nominalConcurrencyShares": 5,
                    "limitResponse": {"type": "Reject"},
                    "lendablePercent": 0,
                },
            }),
            "",
        ),
        _ => return,
    };
    let mut value = value_of(spec);
    if let (EXEMPT, Value::Object(fields)) = (name, &mut value) {
        fields.remove("exempt");
    }
    if value != fixed {
        let message = format!("spec of '{name}'{but} must equal the fixed value");
        errors.push(path.invalid(value_of(spec), message));
    }
}

fn spec(spec: &PriorityLevelConfigurationSpec, name: &str, path: &Path, errors: &mut ErrorList) {
    let type_path = path.child("type");
    let of = spec.type_.as_str();
    if (name == EXEMPT) != (of == "Exempt") {
        let message = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(type_path.invalid(of, message));
    }
    let (exempt_path, limited_path) = (path.child("exempt"), path.child("limited"));
    match of {
        "Exempt" => {
            if spec.limited.is_some() {
                errors.push(limited_path.forbidden("must be nil if the type is not Limited"));
            }
            if let Some(exempt) = &spec.exempt {
                shares(exempt.nominal_concurrency_shares, &exempt_path, errors);
                lendable(exempt.lendable_percent, &exempt_path, errors);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.push(exempt_path.forbidden("must be nil if the type is Limited"));
            }
            match &spec.limited {
                None => {
                    errors.push(limited_path.required("must not be empty when type is Limited"))
                }
                Some(level) => limited(level, &limited_path, errors),
            }
        }
        other => errors.push(type_path.not_supported(other, &["Exempt", "Limited"])),
    }
}

fn shares(shares: Option<i32>, path: &Path, errors: &mut ErrorList) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        let path = path.child("nominalConcurrencyShares");
        errors.push(path.invalid(shares, "must be a non-negative integer"));
    }
}

fn lendable(percent: Option<i32>, path: &Path, errors: &mut ErrorList) {
    if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
        let path = path.child("lendablePercent");
        errors.push(path.invalid(percent, "must be between 0 and 100, inclusive"));
    }
}

fn limited(level: &LimitedPriorityLevelConfiguration, path: &Path, errors: &mut ErrorList) {
    shares(level.nominal_concurrency_shares, path, errors);
    let response = level.limit_response.clone().unwrap_or_default();
    let response_path = path.child("limitResponse");
    let queuing_path = response_path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => errors.push(
            queuing_path.forbidden("must be nil if limited.limitResponse.type is not Limited"),
        ),
        ("Queue", Some(config)) => queuing(config, &queuing_path, errors),
        ("Queue", None) => errors.push(
            queuing_path.required("must not be empty if limited.limitResponse.type is Limited"),
        ),
        (other, _) => {
            let path = response_path.child("type");
            errors.push(path.not_supported(other, &["Queue", "Reject"]));
        }
    }
    lendable(level.lendable_percent, path, errors);
    if let Some(percent) = level.borrowing_limit_percent.filter(|percent| *percent < 0) {
        errors.push(
            path.child("borrowingLimitPercent")
                .invalid(percent, "if specified, must be a non-negative integer"),
        );
    }
}

fn queuing(config: &QueuingConfiguration, path: &Path, errors: &mut ErrorList) {
    const MAX_QUEUES: i32 = 10_000_000;
    const POSITIVE: &str = "must be positive";
    let limit = config.queue_length_limit.unwrap_or_default();
    if limit <= 0 {
        errors.push(path.child("queueLengthLimit").invalid(limit, POSITIVE));
    }
    let (queues, queues_path) = (config.queues.unwrap_or_default(), path.child("queues"));
    if queues <= 0 {
        errors.push(queues_path.invalid(queues, POSITIVE));
    } else if queues > MAX_QUEUES {
        let message = format!("must not be greater than {MAX_QUEUES}");
        errors.push(queues_path.invalid(queues, message));
    }
    let (hand, hand_path) = (config.hand_size.unwrap_or_default(), path.child("handSize"));
    if hand <= 0 {
        errors.push(hand_path.invalid(hand, POSITIVE));
    } else if hand > queues {
        let message = format!("should not be greater than queues ({queues})");
        errors.push(hand_path.invalid(hand, message));
    } else if !fits_hash(queues, hand) {
        errors.push(hand_path.invalid(
            hand,
            format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be \
                 greater than {HASH_BITS}"
            ),
        ));
    }
}

/// Whether a hash has bits enough to deal such a hand out of so many queues.
fn fits_hash(queues: i32, hand: i32) -> bool {
    let bits = f64::from(queues).log2() * f64::from(hand);
    bits.ceil() <= f64::from(HASH_BITS)
}
