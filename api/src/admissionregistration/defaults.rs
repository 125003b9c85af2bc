//! The defaults of webhooks, and of what policies and their bindings match.

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchResources, MutatingWebhook, NamedRuleWithOperations, ValidatingWebhook,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::zero::list_mut;

const TIMEOUT_SECONDS: i32 = 10;
const HTTPS_PORT: i32 = 443;

pub fn failure_policy(policy: &mut Option<String>) {
    policy.get_or_insert_with(|| "Fail".to_owned());
}

fn matching(
    policy: &mut Option<String>,
    namespaces: &mut Option<LabelSelector>,
    objects: &mut Option<LabelSelector>,
) {
    policy.get_or_insert_with(|| "Equivalent".to_owned());
    namespaces.get_or_insert_default();
    objects.get_or_insert_default();
}

fn scope(scope: &mut Option<String>) {
    scope.get_or_insert_with(|| "*".to_owned());
}

/// Both kinds of webhooks have these fields, each in a type of its own.
macro_rules! webhook {
    ($hook:expr) => {{
        failure_policy(&mut $hook.failure_policy);
        matching(
            &mut $hook.match_policy,
            &mut $hook.namespace_selector,
            &mut $hook.object_selector,
        );
        if let Some(service) = &mut $hook.client_config.service {
            service.port.get_or_insert(HTTPS_PORT);
        }
        for rule in list_mut(&mut $hook.rules) {
            scope(&mut rule.scope);
        }
        $hook.timeout_seconds.get_or_insert(TIMEOUT_SECONDS);
    }};
}

pub fn validating(hook: &mut ValidatingWebhook) {
    webhook!(hook);
}

pub fn mutating(hook: &mut MutatingWebhook) {
    webhook!(hook);
    hook.reinvocation_policy
        .get_or_insert_with(|| "Never".to_owned());
}

/// What a policy or its binding matches.
pub fn match_resources(resources: &mut MatchResources) {
    matching(
        &mut resources.match_policy,
        &mut resources.namespace_selector,
        &mut resources.object_selector,
    );
    let named = |rules: &mut Option<Vec<NamedRuleWithOperations>>| {
        for rule in list_mut(rules) {
            scope(&mut rule.scope);
        }
    };
    named(&mut resources.resource_rules);
    named(&mut resources.exclude_resource_rules);
}
