//! `ResourceQuota`: refuses what would use more of a namespace than its quotas allow, and notes in
//! the quotas what it lets in.

use std::collections::BTreeMap;

use async_trait::async_trait;
use coracle_api::{
    Object,
    core::pod::resources::Part,
    quantity::{Amount, ResourceList},
    quota::{Subject, Usage},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, PersistentVolumeClaim, Pod, ResourceQuota as Quota, ResourceQuotaStatus, Service,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::{Admission, Attributes, Operation, typed};
use crate::{Lister, Registry, error::ApiError, verbs::rewrite};

/// Compute resources that every container has to name where a quota limits them.
const COMPUTE: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];

/// The plugin.
pub struct ResourceQuota {
    registry: Registry,
    quotas: Lister<Quota>,
}

/// A quota that the request has to do with, and what it would use of it.
struct Charge {
    quota: String,
    usage: Usage,
}

impl ResourceQuota {
    pub fn new(registry: Registry) -> Self {
        ResourceQuota {
            quotas: registry.lister(),
            registry,
        }
    }
}

fn subject<'a>(attributes: &Attributes<'a>, object: Option<&'a dyn Object>) -> Option<Subject<'a>> {
    let object = object?;
    let any = Some(object);
    Some(if let Some(pod) = typed::<Pod>(any) {
        Subject::Pod(pod)
    } else if let Some(claim) = typed::<PersistentVolumeClaim>(any) {
        Subject::Claim(claim)
    } else if let Some(service) = typed::<Service>(any) {
        Subject::Service(service)
    } else {
        Subject::Other {
            group: &attributes.kind.group,
            resource: &attributes.kind.resource,
        }
    })
}

/// Whether an update can change what is used, which it can of some kinds only.
fn update_matters(attributes: &Attributes<'_>, new: Subject<'_>, old: Subject<'_>) -> bool {
    let deadline = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.and_then(|spec| spec.active_deadline_seconds).is_some()
    };
    match (new, old) {
        (Subject::Pod(new), Subject::Pod(old)) => {
            attributes.subresource == "resize" || deadline(new) != deadline(old)
        }
        (Subject::Claim(_), _) => matches!(attributes.subresource, "" | "status"),
        (Subject::Service(_), _) => attributes.subresource.is_empty(),
        _ => false,
    }
}

/// What the request adds to what is used, without what stays as it is.
fn added(new: Usage, old: Usage) -> Usage {
    let mut added = new;
    for (name, amount) in old {
        let known = added.get(&name).copied().unwrap_or_default();
        added.insert(name, known.minus(amount));
    }
    added.retain(|_, amount| !amount.is_zero());
    added
}

/// `cpu=1,memory=2Gi`
fn printed<'a>(amounts: impl IntoIterator<Item = (&'a String, String)>) -> String {
    let parts: Vec<_> = amounts
        .into_iter()
        .map(|(name, amount)| format!("{name}={amount}"))
        .collect();
    parts.join(",")
}

/// Which containers do not say what the quota limits.
fn unsaid(quota: &ResourceQuotaStatus, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.resources.is_some() {
        return None;
    }
    let has = |container: &Container, name: &str| {
        let (part, plain) = match name.split_once('.') {
            Some(("limits", plain)) => (Part::Limits, plain),
            Some((_, plain)) => (Part::Requests, plain),
            None => (Part::Requests, name),
        };
        let list = part.of(container.resources.as_ref());
        list.is_some_and(|list| list.contains_key(plain))
    };
    let init = spec.init_containers.iter().flatten();
    let containers: Vec<_> = spec.containers.iter().chain(init).collect();
    let mut parts = Vec::new();
    for name in COMPUTE {
        let limited = quota
            .hard
            .as_ref()
            .is_some_and(|hard| hard.contains_key(name));
        let mut names: Vec<_> = containers
            .iter()
            .filter(|container| limited && !has(container, name))
            .map(|container| container.name.as_str())
            .collect();
        names.sort_unstable();
        if !names.is_empty() {
            parts.push(format!("{name} for: {}", names.join(",")));
        }
    }
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}

/// Why the quota does not allow this much more.
fn exceeded(name: &str, status: &ResourceQuotaStatus, usage: &Usage) -> Option<String> {
    let in_list = |list: Option<&ResourceList>, name: &str| {
        let quantity = list.and_then(|list| list.get(name));
        quantity.map(Amount::from)
    };
    let over: BTreeMap<&String, (Amount, Amount, Amount)> = usage
        .iter()
        .filter_map(|(name, amount)| {
            let limit = in_list(status.hard.as_ref(), name)?;
            let used = in_list(status.used.as_ref(), name).unwrap_or_default();
            let more = amount.is_positive() && used.plus(*amount) > limit;
            more.then_some((name, (*amount, used, limit)))
        })
        .collect();
    let show = |which: fn(&(Amount, Amount, Amount)) -> Amount| {
        printed(
            over.iter()
                .map(|(name, all)| (*name, which(all).to_string())),
        )
    };
    (!over.is_empty()).then(|| {
        format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            show(|all| all.0),
            show(|all| all.1),
            show(|all| all.2),
        )
    })
}

/// What the request uses of this quota; `None` when it has nothing to do with it.
fn charge(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    subject: Subject<'_>,
    quota: &Quota,
    added: &Usage,
) -> Result<Option<Charge>, ApiError> {
    let (Some(spec), Some(status)) = (&quota.spec, &quota.status) else {
        return Ok(None);
    };
    let name = quota.metadata.name.clone().unwrap_or_default();
    let limited: Vec<_> = status
        .hard
        .iter()
        .flatten()
        .map(|(name, _)| name)
        .filter(|name| subject.concerns(name))
        .collect();
    if limited.is_empty() || !subject.is_in_scope(spec) {
        return Ok(None);
    }
    if let Subject::Pod(pod) = subject
        && let Some(why) = unsaid(status, pod)
    {
        return Err(attributes.forbidden(object, format!("failed quota: {name}: {why}")));
    }
    let known = |name: &String| {
        let used = status.used.as_ref();
        used.is_some_and(|used| used.contains_key(name))
    };
    if !limited.iter().all(|name| known(name)) {
        let names: Vec<_> = limited.iter().map(|name| name.as_str()).collect();
        let why = format!(
            "status unknown for quota: {name}, resources: {}",
            names.join(",")
        );
        return Err(attributes.forbidden(object, why));
    }
    let usage: Usage = added
        .iter()
        .filter(|(name, _)| limited.contains(name))
        .map(|(name, amount)| (name.clone(), *amount))
        .collect();
    if let Some(why) = exceeded(&name, status, &usage) {
        return Err(attributes.forbidden(object, why));
    }
    Ok((!usage.is_empty()).then_some(Charge { quota: name, usage }))
}

/// Adds to what is used.
fn add(used: &mut BTreeMap<String, Quantity>, usage: &Usage) {
    for (name, amount) in usage {
        let known = used.get(name).map(Amount::from).unwrap_or_default();
        let sum = if known.is_zero() {
            *amount
        } else {
            known.plus(*amount)
        };
        used.insert(name.clone(), sum.to_quantity());
    }
}

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let creates =
            attributes.operation == Operation::Create && attributes.subresource.is_empty();
        let updates = attributes.operation == Operation::Update
            && attributes.kind.group.is_empty()
            && matches!(
                &*attributes.kind.resource,
                "pods" | "services" | "persistentvolumeclaims"
            );
        !attributes.namespace.is_empty() && (creates || updates)
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let quotas = self.quotas.list(attributes.namespace);
        let Some(new) = subject(attributes, object).filter(|_| !quotas.is_empty()) else {
            return Ok(());
        };
        let now = Timestamp::now();
        let mut before = Usage::new();
        if attributes.operation == Operation::Update {
            match subject(attributes, old) {
                Some(old) if update_matters(attributes, new, old) => before = old.usage(now),
                _ => return Ok(()),
            }
        }
        let added = added(new.usage(now), before);
        let mut charges = Vec::new();
        for quota in &quotas {
            charges.extend(charge(attributes, object, new, quota, &added)?);
        }
        if charges.is_empty() || attributes.dry_run {
            return Ok(());
        }
        let Some(resource) = self.registry.find("", "v1", "resourcequotas") else {
            return Ok(());
        };
        for Charge { quota, usage } in charges {
            let charged = rewrite(
                &self.registry,
                &resource,
                attributes.namespace,
                &quota,
                false,
                |stored| {
                    let Some(stored) = stored.as_any_mut().downcast_mut::<Quota>() else {
                        return Err(ApiError::internal("not a ResourceQuota"));
                    };
                    let status = stored.status.get_or_insert_default();
                    // Another request may have been let in since.
                    if let Some(why) = exceeded(&quota, status, &usage) {
                        return Err(attributes.forbidden(object, why));
                    }
                    add(status.used.get_or_insert_default(), &usage);
                    Ok(())
                },
            );
            match charged.await {
                Ok(_) => {}
                // The quota has gone: it allows everything.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(hard: &Value, used: &Value) -> ResourceQuotaStatus {
        serde_json::from_value(json!({ "hard": hard, "used": used })).expect("a status")
    }

    fn usage(list: Value) -> Usage {
        let list: ResourceList = serde_json::from_value(list).expect("a list");
        list.iter()
            .map(|(name, quantity)| (name.clone(), quantity.into()))
            .collect()
    }

    #[test]
    fn what_is_too_much_is_told_in_upstreams_words() {
        let status = status(
            &json!({ "cpu": "1", "pods": "2", "memory": "1Gi" }),
            &json!({ "cpu": "600m", "pods": "1", "memory": "1Gi" }),
        );
        let fits = usage(json!({ "cpu": "400m", "pods": "1", "secrets": "9" }));
        assert_eq!(exceeded("q", &status, &fits), None);
        let more = usage(json!({ "cpu": "500m", "pods": "1", "memory": "1Mi" }));
        assert_eq!(
            exceeded("q", &status, &more).as_deref(),
            Some(
                "exceeded quota: q, requested: cpu=500m,memory=1Mi, used: cpu=600m,memory=1Gi, \
                 limited: cpu=1,memory=1Gi"
            )
        );
        let less = usage(json!({ "cpu": "-9" }));
        assert_eq!(exceeded("q", &status, &less), None);
    }

    #[test]
    fn containers_must_say_what_is_limited() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "spec": { "containers": [
            { "name": "b", "resources": { "requests": { "cpu": "1" } } },
            { "name": "a" },
        ] } }))
        .expect("a pod");
        let of = |hard: Value| unsaid(&status(&hard, &json!({})), &pod);
        assert_eq!(
            of(json!({ "pods": "1", "limits.ephemeral-storage": "1" })),
            None
        );
        assert_eq!(
            of(json!({ "limits.memory": "1", "cpu": "1" })).as_deref(),
            Some("must specify cpu for: a; limits.memory for: a,b")
        );
    }

    #[test]
    fn only_what_changes_is_added() {
        let new = usage(json!({ "a": "3", "b": "1", "c": "1" }));
        let old = usage(json!({ "a": "1", "b": "1", "d": "2" }));
        let changed = added(new, old);
        assert_eq!(changed, usage(json!({ "a": "2", "c": "1", "d": "-2" })));
        let mut used = status(&json!({}), &json!({ "a": "1", "d": "5" }))
            .used
            .expect("used");
        add(&mut used, &changed);
        assert_eq!(
            serde_json::to_value(&used).expect("JSON"),
            json!({ "a": "3", "c": "1", "d": "3" })
        );
    }
}
