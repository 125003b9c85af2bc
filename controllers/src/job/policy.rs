//! What a Job says about pods that fail, and about when it has succeeded.

use k8s_openapi::api::{
    batch::v1::{
        PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
        PodFailurePolicyOnPodConditionsPattern, SuccessPolicy,
    },
    core::v1::{ContainerStatus, Pod, PodStatus},
};
use kube::ResourceExt as _;

use super::indexes::Indexes;

/// What a failed pod leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts towards the backoff limit.
    Count,
    Ignore,
    /// Its index is not tried again.
    FailIndex,
    /// The whole Job fails, for this reason.
    FailJob(String),
}

impl Verdict {
    pub fn counts(&self) -> bool {
        *self != Verdict::Ignore
    }

    /// As a rule has it.
    pub fn action(&self) -> &'static str {
        match self {
            Verdict::Count => "Count",
            Verdict::Ignore => "Ignore",
            Verdict::FailIndex => "FailIndex",
            Verdict::FailJob(_) => "FailJob",
        }
    }
}

/// The first rule of the policy that matches decides.
pub(super) fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    matching(policy, pod).unwrap_or(Verdict::Count)
}

/// What the first rule that matches says; `None` when no rule is about the pod.
pub(super) fn matching(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Option<Verdict> {
    let rules = policy.map_or(&[][..], |policy| &policy.rules);
    let status = pod.status.as_ref()?;
    let name = || {
        let namespace = pod.namespace().unwrap_or_default();
        format!("{namespace}/{}", pod.name_any())
    };
    for (index, rule) in rules.iter().enumerate() {
        let action = &rule.action;
        let found = if let Some(codes) = &rule.on_exit_codes {
            exited(status, codes).map(|(container, code)| {
                format!(
                    "Container {container} for pod {} failed with exit code {code} matching \
                     {action} rule at index {index}",
                    name()
                )
            })
        } else {
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            condition(status, patterns).map(|type_| {
                format!(
                    "Pod {} has condition {type_} matching {action} rule at index {index}",
                    name()
                )
            })
        };
        let Some(message) = found else {
            continue;
        };
        return Some(match action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(message),
            "Count" => Verdict::Count,
            _ => continue,
        });
    }
    None
}

/// The name and the code of the first container whose end the rule is about.
fn exited<'a>(
    status: &'a PodStatus,
    rule: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    let matching = |status: &'a ContainerStatus| {
        let ended = status.state.as_ref()?.terminated.as_ref()?;
        let code = ended.exit_code;
        let named = rule
            .container_name
            .as_ref()
            .is_none_or(|name| *name == status.name);
        let listed = rule.values.contains(&code);
        let wanted = match rule.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (named && code != 0 && wanted).then_some((status.name.as_str(), code))
    };
    let containers = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    containers.chain(init).find_map(matching)
}

fn condition<'a>(
    status: &'a PodStatus,
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
) -> Option<&'a str> {
    let mut conditions = status.conditions.iter().flatten();
    let found = conditions.find(|condition| {
        patterns.iter().any(|pattern| {
            let status = pattern.status.as_deref().unwrap_or("True");
            pattern.type_ == condition.type_ && status == condition.status
        })
    });
    found.map(|condition| condition.type_.as_str())
}

/// Why these indexes are enough; `None` when they are not.
pub(super) fn success(
    policy: Option<&SuccessPolicy>,
    completions: i32,
    succeeded: &Indexes,
) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let rules = policy.map_or(&[][..], |policy| &policy.rules);
    let met = rules.iter().position(|rule| {
        let count = rule.succeeded_count;
        let Some(wanted) = &rule.succeeded_indexes else {
            return count.is_some_and(|count| succeeded.count() >= count);
        };
        let wanted = Indexes::parse(wanted, completions);
        let shared = wanted.shared_with(succeeded);
        !wanted.is_empty()
            && (shared == wanted.count() || count.is_some_and(|count| shared >= count))
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(code: i32, condition: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns" },
            "status": {
                "conditions": [{ "type": condition, "status": "True" }],
                "containerStatuses": [
                    { "name": "main", "image": "", "imageID": "", "ready": false,
                        "restartCount": 0, "state": { "terminated": { "exitCode": code } } },
                    { "name": "side", "image": "", "imageID": "", "ready": false,
                        "restartCount": 0, "state": { "running": {} } },
                ],
            },
        }))
        .expect("a pod")
    }

    fn verdict(rules: &Value, pod: &Pod) -> Verdict {
        let policy = serde_json::from_value(json!({ "rules": rules })).expect("a policy");
        judge(Some(&policy), pod)
    }

    fn codes(action: &str, operator: &str, values: &[i32], container: Option<&str>) -> Value {
        json!({ "action": action, "onExitCodes": {
            "operator": operator, "values": values, "containerName": container } })
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let failed = pod(3, "DisruptionTarget");
        let disrupted = json!({ "action": "Ignore", "onPodConditions": [
            { "type": "DisruptionTarget", "status": "True" }] });
        let fail = codes("FailJob", "In", &[1, 3], None);
        assert_eq!(judge(None, &failed), Verdict::Count);
        assert_eq!(verdict(&json!([]), &failed), Verdict::Count);
        assert_eq!(verdict(&json!([disrupted, fail]), &failed), Verdict::Ignore);
        assert_eq!(
            verdict(&json!([fail, disrupted]), &failed),
            Verdict::FailJob(
                "Container main for pod ns/p failed with exit code 3 matching FailJob rule at \
                 index 0"
                    .to_owned()
            )
        );
        let condition = json!({ "action": "FailJob", "onPodConditions": [
            { "type": "DisruptionTarget" }] });
        assert_eq!(
            verdict(
                &json!([codes("Count", "In", &[9], None), condition]),
                &failed
            ),
            Verdict::FailJob(
                "Pod ns/p has condition DisruptionTarget matching FailJob rule at index 1"
                    .to_owned()
            )
        );
        let cases = [
            (codes("FailIndex", "NotIn", &[1], None), Verdict::FailIndex),
            (codes("Ignore", "NotIn", &[3], None), Verdict::Count),
            (codes("Ignore", "In", &[3], Some("main")), Verdict::Ignore),
            (codes("Ignore", "In", &[3], Some("side")), Verdict::Count),
        ];
        for (rule, expected) in cases {
            assert_eq!(verdict(&json!([rule]), &failed), expected, "{rule}");
        }
        // A container that ended well is not what the rules are about.
        let well = pod(0, "Other");
        let any = codes("Ignore", "NotIn", &[7], None);
        assert_eq!(verdict(&json!([any]), &well), Verdict::Count);
    }

    #[test]
    fn indexes_or_their_number_are_enough() {
        let met = |rules: Value, succeeded: &str| {
            let policy: SuccessPolicy =
                serde_json::from_value(json!({ "rules": rules })).expect("a policy");
            success(Some(&policy), 10, &Indexes::parse(succeeded, 10))
        };
        let text = |index: usize| Some(format!("Matched rules at index {index}"));
        let both = || json!([{ "succeededIndexes": "0-2" }, { "succeededCount": 5 }]);
        assert_eq!(met(both(), ""), None);
        assert_eq!(met(both(), "0,1,5"), None);
        assert_eq!(met(both(), "0-2"), text(0));
        assert_eq!(met(both(), "3-7"), text(1));
        let some = || json!([{ "succeededIndexes": "0-5", "succeededCount": 2 }]);
        assert_eq!(met(some(), "5,9"), None);
        assert_eq!(met(some(), "4,5"), text(0));
        assert_eq!(success(None, 10, &Indexes::parse("0-9", 10)), None);
    }
}
