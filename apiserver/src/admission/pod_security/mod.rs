//! `PodSecurity`: pods keep to the Pod Security Standard that their namespace's labels ask for.
//!
//! Enter at [`PodSecurity`]. Pods that violate what is enforced are refused; of pods and workloads
//! that violate what is warned of, the client is warned. Nobody is exempt. Upstream:
//! `k8s.io/pod-security-admission/admission`.

mod checks;
mod existing;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{
        Container, Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController,
    },
};

use super::{Admission, Attributes, Operation, typed};
use crate::{Lister, Registry, Shared, error::ApiError, metrics::admission::Evaluation};
use checks::{Subject, Violation, details, evaluate};
use policy::{Level, Policy, Standard};

/// What the audit log is told.
const ENFORCE_POLICY: &str = "pod-security.kubernetes.io/enforce-policy";
const AUDIT_VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";

/// The plugin.
pub struct PodSecurity {
    registry: Registry,
    namespaces: Lister<Namespace>,
    pods: Lister<Pod>,
}

impl PodSecurity {
    pub fn new(registry: Registry) -> Self {
        PodSecurity {
            namespaces: registry.lister(),
            pods: registry.lister(),
            registry,
        }
    }

    async fn policy(&self, namespace: &str) -> Result<Option<Policy>, ApiError> {
        let mut found: Option<Shared<Namespace>> = self.namespaces.get("", namespace);
        if found.is_none() {
            self.registry.fresh().await?;
            found = self.namespaces.get("", namespace);
        }
        Ok(found.map(|namespace| Policy::of_labels(namespace.metadata.labels.as_ref()).0))
    }

    /// Labels must be right, and pods that are there are told of when more is asked of them.
    fn namespace(
        &self,
        attributes: &Attributes<'_>,
        namespace: &Namespace,
        old: Option<&Namespace>,
    ) -> Result<(), ApiError> {
        let (policy, errors) = Policy::of_labels(namespace.metadata.labels.as_ref());
        let before = old.map(|old| Policy::of_labels(old.metadata.labels.as_ref()));
        let known = before.as_ref().is_some_and(|(_, known)| *known == errors);
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        if !errors.is_empty() && !known {
            return Err(ApiError::invalid("", "Namespace", name, &errors));
        }
        let Some((before, _)) = before else {
            return Ok(());
        };
        let (new, old) = (policy.enforce, before.enforce);
        let relaxed = new.version == old.version && new.level <= old.level;
        if new == old || new.level == Level::Privileged || relaxed {
            return Ok(());
        }
        let pods = self.pods.list(name);
        for warning in existing::warnings(name, new, &pods) {
            attributes.warnings.add(warning);
        }
        Ok(())
    }

    async fn pod(
        &self,
        attributes: &Attributes<'_>,
        pod: &Pod,
        old: Option<&Pod>,
    ) -> Result<(), ApiError> {
        let Some(spec) = &pod.spec else {
            return Ok(());
        };
        let policy = self.policy(attributes.namespace).await?.ok_or_else(|| {
            let namespace = attributes.namespace;
            ApiError::internal(format!("failed to lookup namespace {namespace:?}"))
        })?;
        let before = old.and_then(|old| old.spec.as_ref());
        if before.is_some_and(|before| !is_significant(spec, before)) {
            return Ok(());
        }
        let subject = Subject::new(pod.metadata.annotations.as_ref(), spec);
        attributes
            .warnings
            .annotate(ENFORCE_POLICY, policy.enforce.to_string());
        audit(attributes, &policy, &subject);
        let violations = evaluate(policy.enforce, &subject);
        count(attributes, "enforce", policy.enforce, true, &violations);
        if !violations.is_empty() {
            let why = format!(
                "violates PodSecurity \"{}\": {}",
                policy.enforce,
                details(&violations)
            );
            return Err(attributes.forbidden(Some(pod), why));
        }
        if policy.warn != policy.enforce {
            warn(attributes, &policy, &subject);
        }
        Ok(())
    }

    async fn workload(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        let Some((annotations, spec)) = template(object) else {
            return Ok(());
        };
        // Workloads are never refused, not even when nobody knows what is asked of them.
        if let Some(policy) = self.policy(attributes.namespace).await? {
            let subject = Subject::new(annotations, spec);
            audit(attributes, &policy, &subject);
            warn(attributes, &policy, &subject);
        }
        Ok(())
    }
}

fn audit(attributes: &Attributes<'_>, policy: &Policy, subject: &Subject<'_>) {
    let violations = evaluate(policy.audit, subject);
    if !violations.is_empty() {
        let pod = attributes.kind.resource == "pods";
        count(attributes, "audit", policy.audit, pod, &violations);
        let why = format!(
            "would violate PodSecurity \"{}\": {}",
            policy.audit,
            details(&violations)
        );
        attributes.warnings.annotate(AUDIT_VIOLATIONS, why);
    }
}

fn warn(attributes: &Attributes<'_>, policy: &Policy, subject: &Subject<'_>) {
    let violations = evaluate(policy.warn, subject);
    if !violations.is_empty() {
        let pod = attributes.kind.resource == "pods";
        count(attributes, "warn", policy.warn, pod, &violations);
        attributes.warnings.add(format!(
            "would violate PodSecurity \"{}\": {}",
            policy.warn,
            details(&violations)
        ));
    }
}

fn count(
    attributes: &Attributes<'_>,
    mode: &'static str,
    standard: Standard,
    pod: bool,
    violations: &[Violation],
) {
    let version = standard.version.to_string();
    let evaluation = Evaluation {
        mode,
        level: standard.level.name(),
        version: &version,
        operation: attributes.operation,
        pod,
        subresource: attributes.subresource,
        violated: !violations.is_empty(),
    };
    evaluation.count();
}

type Annotations = BTreeMap<String, String>;

/// What the workload makes its pods from.
fn template(object: &dyn Object) -> Option<(Option<&Annotations>, &PodSpec)> {
    fn of<T: coracle_api::object::Typed>(object: &dyn Object) -> Option<&T> {
        typed::<T>(Some(object))
    }
    let template: &PodTemplateSpec = if let Some(deployment) = of::<Deployment>(object) {
        &deployment.spec.as_ref()?.template
    } else if let Some(set) = of::<ReplicaSet>(object) {
        set.spec.as_ref()?.template.as_ref()?
    } else if let Some(set) = of::<StatefulSet>(object) {
        &set.spec.as_ref()?.template
    } else if let Some(set) = of::<DaemonSet>(object) {
        &set.spec.as_ref()?.template
    } else if let Some(job) = of::<Job>(object) {
        &job.spec.as_ref()?.template
    } else if let Some(job) = of::<CronJob>(object) {
        &job.spec.job_template.spec.as_ref()?.template
    } else if let Some(controller) = of::<ReplicationController>(object) {
        controller.spec.as_ref()?.template.as_ref()?
    } else {
        of::<PodTemplate>(object)?.template.as_ref()?
    };
    let annotations = template
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.annotations.as_ref());
    Some((annotations, template.spec.as_ref()?))
}

/// Whether an update changes what the standards look at: of what may change, only images and new
/// containers.
fn is_significant(new: &PodSpec, old: &PodSpec) -> bool {
    fn differ(new: &[Container], old: &[Container]) -> bool {
        new.len() != old.len() || new.iter().zip(old).any(|(new, old)| new.image != old.image)
    }
    let old_ephemeral = old.ephemeral_containers.as_deref().unwrap_or_default();
    differ(&new.containers, &old.containers)
        || differ(
            new.init_containers.as_deref().unwrap_or_default(),
            old.init_containers.as_deref().unwrap_or_default(),
        )
        || new.ephemeral_containers.iter().flatten().any(|container| {
            let mut same = old_ephemeral.iter();
            let before = same.find(|before| before.name == container.name);
            before.is_none_or(|before| before.image != container.image)
        })
}

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let kind = attributes.kind;
        let main = attributes.subresource.is_empty();
        let concerns = match (kind.group.as_str(), kind.resource.as_str()) {
            // Every other subresource leaves the spec alone.
            ("", "pods") => {
                main || matches!(attributes.subresource, "ephemeralcontainers" | "resize")
            }
            ("", "namespaces" | "replicationcontrollers" | "podtemplates")
            | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
            | ("batch", "jobs" | "cronjobs") => main,
            _ => false,
        };
        concerns && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if let Some(namespace) = typed::<Namespace>(object) {
            return self.namespace(attributes, namespace, typed(old));
        }
        if let Some(pod) = typed::<Pod>(object) {
            return self.pod(attributes, pod, typed(old)).await;
        }
        match object {
            Some(object) => self.workload(attributes, object).await,
            None => Ok(()),
        }
    }
}
