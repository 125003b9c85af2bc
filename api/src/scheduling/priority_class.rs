//! PriorityClass.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use crate::{
    check,
    field::{ErrorList, Path},
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, column, name},
    zero::text,
};

const SYSTEM_PREFIX: &str = "system-";
const HIGHEST_OF_USERS: i32 = 1_000_000_000;
const SYSTEM_CRITICAL: i32 = 2 * HIGHEST_OF_USERS;

impl Behaviour for PriorityClass {
    fn default_fields(&mut self) {
        self.preemption_policy
            .get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    }

    fn prepare_for_create(&mut self) {
        // There is no other: what an update may change does not count as a spec.
        self.metadata.generation = Some(1);
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        if text(&self.metadata.name).starts_with(SYSTEM_PREFIX) {
            if let Err(problem) = known_system_class(self) {
                errors.push(Path::new("metadata.name").forbidden(format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system \
                     use only. error: {problem}"
                )));
            }
        } else if self.value.unwrap_or_default() > HIGHEST_OF_USERS {
            errors.push(Path::new("value").forbidden(format!(
                "maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}"
            )));
        }
        if let Some(policy) = &self.preemption_policy {
            let path = Path::new("preemptionPolicy");
            check::required_one_of(
                policy,
                &["PreemptLowerPriority", "Never"],
                &path,
                &mut errors,
            );
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        if self.value != old.value {
            errors.push(Path::new("value").forbidden("may not be changed in an update."));
        }
        check::immutable(
            &self.preemption_policy,
            &old.preemption_policy,
            &Path::new("preemptionPolicy"),
            &mut errors,
        );
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Value",
                "integer",
                "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.",
            ),
            column(
                "Global-Default",
                "boolean",
                "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of such global default PriorityClasses will be used as the default priority.",
            ),
            AGE,
            column(
                "PreemptionPolicy",
                "string",
                "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(self.value),
            Value::from(self.global_default.unwrap_or_default()),
            age(&self.metadata, now),
            Value::from(text(&self.preemption_policy)),
        ]
    }
}

/// Names with the prefix of the system's are only those of the system's.
fn known_system_class(class: &PriorityClass) -> Result<(), String> {
    let name = text(&class.metadata.name);
    let value = match name {
        "system-node-critical" => SYSTEM_CRITICAL + 1000,
        "system-cluster-critical" => SYSTEM_CRITICAL,
        _ => return Err(format!("{name} is not a known system priority class")),
    };
    if class.value.unwrap_or_default() != value {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if class.global_default == Some(true) {
        return Err(format!(
            "globalDefault of {name} PriorityClass must be false"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_classes() {
        crate::testing::run::<PriorityClass>(include_str!("../../testdata/priority_class.yaml"));
    }
}
