//! What is done to and asked of an object before it is stored: the seam of admission.
//!
//! A plugin implements [`Admission`]; [`Chain`] runs the plugins in order, first all that
//! change the object, then, after validation, all that only look.

mod certificate_approval;
mod certificate_requester;
mod certificate_signing;
mod certificate_subject;
#[cfg(test)]
mod certificate_tests;
mod claim_resize;
mod default_class;
mod default_ingress_class;
mod default_storage_class;
mod default_tolerations;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod node_taint;
mod pod_resize;
mod pod_security;
mod pod_topology_labels;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_protection;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use coracle_api::{Identity, Kind, Object, object::Typed};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    error::ApiError,
    metrics::admission::{self as measure, Step},
};

pub use certificate_approval::CertificateApproval;
pub use certificate_requester::CertificateRequester;
pub use certificate_signing::CertificateSigning;
pub use certificate_subject::CertificateSubjectRestriction;
pub use claim_resize::PersistentVolumeClaimResize;
pub use default_ingress_class::DefaultIngressClass;
pub use default_storage_class::DefaultStorageClass;
pub use default_tolerations::DefaultTolerationSeconds;
pub use limit_ranger::LimitRanger;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use node_taint::TaintNodesByCondition;
pub use pod_resize::PodResizeValidator;
pub use pod_security::PodSecurity;
pub use pod_topology_labels::PodTopologyLabels;
pub use priority::Priority;
pub use resource_quota::ResourceQuota;
pub use runtime_class::RuntimeClass;
pub use service_account::ServiceAccount;
pub use storage_protection::StorageObjectInUseProtection;

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// `exec`, `attach`, `portforward` and `proxy`.
    Connect,
}

/// Everything about the request but the object itself.
pub struct Attributes<'a> {
    pub user: &'a Identity,
    pub operation: Operation,
    /// The resource of the URL, in the version that the client asked for.
    pub kind: &'a Kind,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// Empty while a name is still to be generated.
    pub name: &'a str,
    pub dry_run: bool,
    /// The `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions` as JSON; for
    /// `Connect` the options of the connection (`PodExecOptions`…).
    pub options: &'a Value,
    /// Texts for the client's `Warning` headers.
    pub warnings: &'a Warnings,
}

impl Attributes<'_> {
    /// Whether this is the resource of `group` with the plural `resource`, and no subresource.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.kind.group == group && self.kind.resource == resource && self.subresource.is_empty()
    }

    /// Refuses the request, in upstream's form.
    pub fn forbidden(&self, object: Option<&dyn Object>, why: impl std::fmt::Display) -> ApiError {
        let meta = object.map(Object::meta);
        let given = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
        let name = given(Some(&self.name.to_owned()))
            .or_else(|| given(meta?.name.as_ref()))
            .or_else(|| given(meta?.generate_name.as_ref()))
            .unwrap_or_else(|| "Unknown".to_owned());
        ApiError::forbidden(self.kind, &name, why)
    }
}

/// The object as its type; `None` if there is none, or it is of another.
pub fn typed<T: Typed>(object: Option<&dyn Object>) -> Option<&T> {
    object?.as_any().downcast_ref()
}

/// The same, to be changed.
pub fn typed_mut<T: Typed>(object: Option<&mut dyn Object>) -> Option<&mut T> {
    object?.as_any_mut().downcast_mut()
}

/// Warnings collected while a request is handled, and what plugins have to tell the audit log.
#[derive(Debug, Default)]
pub struct Warnings {
    texts: Mutex<Vec<String>>,
    annotations: Mutex<Vec<(&'static str, String)>>,
}

impl Warnings {
    /// Adds a warning, unless the request has it already.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.texts.lock();
        if !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// The warnings so far; none are left.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.texts.lock())
    }

    /// Adds an annotation to the request's audit event.
    pub fn annotate(&self, key: &'static str, value: impl Into<String>) {
        self.annotations.lock().push((key, value.into()));
    }

    /// The annotations so far; none are left.
    pub fn take_annotations(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.annotations.lock())
    }
}

/// An admission plugin. `object` is `None` for deletions and most connections; `old` is the
/// stored object for updates and deletions.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Upstream's name, for example `NamespaceLifecycle`.
    fn name(&self) -> &'static str;

    /// Whether the plugin has anything to do with such a request. Called before the others.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// May change the object or refuse it.
    async fn admit(
        &self,
        _attributes: &Attributes<'_>,
        _object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    /// May only refuse. Called when the object is in its final form.
    async fn validate(
        &self,
        _attributes: &Attributes<'_>,
        _object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Plugins in the order in which they run. Cheap to clone.
#[derive(Clone, Default)]
pub struct Chain(Arc<[Listed]>);

struct Listed {
    plugin: Arc<dyn Admission>,
    measured: measure::Plugin,
}

impl Chain {
    pub fn new(plugins: Vec<Arc<dyn Admission>>) -> Self {
        let listed = plugins.into_iter().map(|plugin| Listed {
            measured: measure::Plugin::new(plugin.name()),
            plugin,
        });
        Chain(listed.collect())
    }

    /// Lets every plugin change the object.
    pub async fn admit(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let step = Measured::begin(Step::Admit, attributes.operation);
        for Listed { plugin, measured } in self.concerned(attributes) {
            // Not `as_deref_mut`, which would tie the plugin's borrow to the whole loop.
            let object: Option<&mut dyn Object> = match &mut object {
                Some(object) => Some(&mut **object),
                None => None,
            };
            let since = Instant::now();
            let admitted = plugin.admit(attributes, object, old).await;
            step.plugin(measured, admitted.is_err(), since);
            if admitted.is_err() {
                return step.done(admitted);
            }
        }
        step.done(Ok(()))
    }

    /// Lets every plugin refuse the object.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let step = Measured::begin(Step::Validate, attributes.operation);
        for Listed { plugin, measured } in self.concerned(attributes) {
            let since = Instant::now();
            let validated = plugin.validate(attributes, object, old).await;
            step.plugin(measured, validated.is_err(), since);
            if validated.is_err() {
                return step.done(validated);
            }
        }
        step.done(Ok(()))
    }

    /// The plugins that have anything to do with the request.
    fn concerned(&self, attributes: &Attributes<'_>) -> impl Iterator<Item = &Listed> {
        let all = self.0.iter();
        all.filter(|listed| listed.plugin.handles(attributes))
    }
}

/// A step whose time is taken.
struct Measured {
    step: Step,
    operation: Operation,
    since: Instant,
}

impl Measured {
    fn begin(step: Step, operation: Operation) -> Self {
        Measured {
            step,
            operation,
            since: Instant::now(),
        }
    }

    fn plugin(&self, plugin: &measure::Plugin, refused: bool, since: Instant) {
        plugin.done(self.step, self.operation, refused, since);
    }

    fn done(self, outcome: Result<(), ApiError>) -> Result<(), ApiError> {
        self.step.done(self.operation, outcome.is_err(), self.since);
        outcome
    }
}
