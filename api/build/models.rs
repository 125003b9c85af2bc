//! What `k8s-openapi` knows of the types: descriptions, formats, which fields are required.

use std::collections::BTreeMap;

use k8s_openapi::{
    Resource,
    apimachinery::pkg::{apis::meta::v1 as meta, version::Info},
    schemars::{JsonSchema, SchemaGenerator},
};
use serde_json::Value;

/// Group, version and kind.
pub type Gvk = (&'static str, &'static str, String);

/// Kinds that `k8s-openapi` does not have.
const METRICS: [&str; 2] = ["NodeMetrics", "PodMetrics"];
const METRICS_PACKAGE: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1";

#[derive(Default)]
pub struct Models {
    generator: SchemaGenerator,
    /// By the name of the definition: `io.k8s.api.core.v1.Pod`.
    pub kinds: BTreeMap<String, Gvk>,
    /// Group and version of what stands in a package: `io.k8s.api.core.v1`.
    pub packages: BTreeMap<String, (&'static str, &'static str)>,
}

impl Models {
    fn add<T: JsonSchema>(&mut self) {
        self.generator.subschema_for::<T>();
    }

    fn add_kind<T: JsonSchema + Resource>(&mut self) {
        self.add::<T>();
        let name = T::schema_name().into_owned();
        if let Some((package, _)) = name.rsplit_once('.') {
            let of = (T::GROUP, T::VERSION);
            self.packages.entry(package.to_owned()).or_insert(of);
        }
        self.kinds
            .insert(name, (T::GROUP, T::VERSION, T::KIND.to_owned()));
    }

    /// The schemas by the names of the definitions.
    pub fn schemas(&mut self) -> BTreeMap<String, Value> {
        self.generator.take_definitions(false).into_iter().collect()
    }
}

macro_rules! kinds {
    ($models:ident: $($($module:ident)::+ { $($kind:ident)* })*) => {
        $({
            use k8s_openapi::$($module)::+ as module;
            $($models.add_kind::<module::$kind>();)*
        })*
    };
}

/// Every kind, and what they are made of.
pub fn read() -> Models {
    let mut models = Models::default();
    kinds!(models:
        api::core::v1 {
            Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node
            PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController
            ResourceQuota Secret Service ServiceAccount
        }
        api::admissionregistration::v1 {
            MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
            ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
            ValidatingWebhookConfiguration
        }
        api::apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
        api::authentication::v1 { SelfSubjectReview TokenRequest TokenReview }
        api::authorization::v1 {
            LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
            SubjectAccessReview
        }
        api::autoscaling::v1 { HorizontalPodAutoscaler Scale }
        api::autoscaling::v2 { HorizontalPodAutoscaler }
        api::batch::v1 { CronJob Job }
        api::certificates::v1 { CertificateSigningRequest }
        api::coordination::v1 { Lease }
        api::discovery::v1 { EndpointSlice }
        api::events::v1 { Event }
        api::flowcontrol::v1 { FlowSchema PriorityLevelConfiguration }
        api::networking::v1 { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
        api::node::v1 { RuntimeClass }
        api::policy::v1 { Eviction PodDisruptionBudget }
        api::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
        api::resource::v1 { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
        api::scheduling::v1 { PriorityClass }
        api::storage::v1 {
            CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
            VolumeAttributesClass
        }
        apiextensions_apiserver::pkg::apis::apiextensions::v1 { CustomResourceDefinition }
        kube_aggregator::pkg::apis::apiregistration::v1 { APIService }
        apimachinery::pkg::apis::meta::v1 {
            APIGroup APIGroupList APIResourceList APIVersions Status
        }
    );
    for kind in METRICS {
        let of = ("metrics.k8s.io", "v1beta1");
        models.packages.insert(METRICS_PACKAGE.to_owned(), of);
        let name = format!("{METRICS_PACKAGE}.{kind}");
        models.kinds.insert(name, (of.0, of.1, kind.to_owned()));
    }
    models.add::<meta::DeleteOptions>();
    models.add::<meta::Patch>();
    models.add::<meta::WatchEvent<()>>();
    models.add::<Info>();
    models
}
