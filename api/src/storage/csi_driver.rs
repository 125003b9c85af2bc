//! CSIDriver.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSIDriver, TokenRequest};
use serde_json::Value;

use crate::{
    check,
    field::{ErrorList, Path},
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, column, name},
    zero::list,
};

impl Behaviour for CSIDriver {
    fn default_fields(&mut self) {
        let spec = &mut self.spec;
        spec.attach_required.get_or_insert(true);
        for flag in [
            &mut spec.pod_info_on_mount,
            &mut spec.storage_capacity,
            &mut spec.requires_republish,
            &mut spec.se_linux_mount,
        ] {
            flag.get_or_insert(false);
        }
        spec.fs_group_policy
            .get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        if list(&spec.volume_lifecycle_modes).is_empty() {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
    }

    fn prepare_for_update(&mut self, old: &Self) {
        // The generation counts changes only: a new object has none.
        let changes = i64::from(self.spec != old.spec);
        let generation = old.metadata.generation.unwrap_or_default() + changes;
        self.metadata.generation = (generation > 0).then_some(generation);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let spec = &self.spec;
        let is_unset = spec.service_account_token_in_secrets.is_none();
        let tokens = list(&spec.token_requests);
        let is_kept = old.is_some_and(|old| list(&old.spec.token_requests) == tokens);
        if is_kept || tokens.is_empty() || !is_unset {
            return Vec::new();
        }
        vec![
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to \
             true to prevent possible logging of tokens in volume attributes"
                .to_owned(),
        ]
    }

    fn validate(&self) -> ErrorList {
        const POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
        const MODES: &[&str] = &["Persistent", "Ephemeral"];
        const SHORTEST_PERIOD: i64 = 10;
        let mut errors = ErrorList::new();
        let (spec, path) = (&self.spec, Path::new("spec"));
        if let Some(policy) = &spec.fs_group_policy {
            check::one_of(policy, POLICIES, &path.child("fsGroupPolicy"), &mut errors);
        }
        let tokens = list(&spec.token_requests);
        token_requests(tokens, &path.child("tokenRequests"), &mut errors);
        for mode in list(&spec.volume_lifecycle_modes) {
            check::one_of(
                mode,
                MODES,
                &path.child("volumeLifecycleModes"),
                &mut errors,
            );
        }
        let period = spec.node_allocatable_update_period_seconds;
        if let Some(period) = period.filter(|period| *period < SHORTEST_PERIOD) {
            errors.push(path.child("nodeAllocatableUpdatePeriodSeconds").invalid(
                period,
                format!("must be greater than or equal to {SHORTEST_PERIOD} seconds"),
            ));
        }
        if let (Some(in_secrets), []) = (spec.service_account_token_in_secrets, tokens) {
            errors.push(path.child("serviceAccountTokenInSecrets").invalid(
                in_secrets,
                "serviceAccountTokenInSecrets is set but no tokenRequests are specified",
            ));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = self.validate();
        let (new, old, path) = (&self.spec, &old.spec, Path::new("spec"));
        check::immutable(
            &new.attach_required,
            &old.attach_required,
            &path.child("attachedRequired"),
            &mut errors,
        );
        check::immutable(
            &new.volume_lifecycle_modes,
            &old.volume_lifecycle_modes,
            &path.child("volumeLifecycleModes"),
            &mut errors,
        );
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "AttachRequired",
                "boolean",
                "attachRequired indicates this CSI volume driver requires an attach operation (because it implements the CSI ControllerPublishVolume() method), and that the Kubernetes attach detach controller should call the attach volume interface which checks the volumeattachment status and waits until the volume is attached before proceeding to mounting. The CSI external-attacher coordinates with CSI volume driver and updates the volumeattachment status when the attach operation is complete. If the value is specified to false, the attach operation will be skipped. Otherwise the attach operation will be called.\n\nThis field is immutable.",
            ),
            column(
                "PodInfoOnMount",
                "boolean",
                "podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, podUID, etc.) during mount operations, if set to true. If set to false, pod information will not be passed on mount. Default is false.\n\nThe CSI driver specifies podInfoOnMount as part of driver deployment. If true, Kubelet will pass pod information as VolumeContext in the CSI NodePublishVolume() calls. The CSI driver is responsible for parsing and validating the information passed in as VolumeContext.\n\nThe following VolumeContext will be passed if podInfoOnMount is set to true. This list might grow, but the prefix will be used. \"csi.storage.k8s.io/pod.name\": pod.Name \"csi.storage.k8s.io/pod.namespace\": pod.Namespace \"csi.storage.k8s.io/pod.uid\": string(pod.UID) \"csi.storage.k8s.io/ephemeral\": \"true\" if the volume is an ephemeral inline volume\n                                defined by a CSIVolumeSource, otherwise \"false\"\n\n\"csi.storage.k8s.io/ephemeral\" is a new feature in Kubernetes 1.16. It is only required for drivers which support both the \"Persistent\" and \"Ephemeral\" VolumeLifecycleMode. Other drivers can leave pod info disabled and/or ignore this field. As Kubernetes 1.15 doesn't support this field, drivers can only support one mode when deployed on such a cluster and the deployment determines which mode that is, for example via a command line parameter of the driver.\n\nThis field was immutable in Kubernetes < 1.29 and now is mutable.",
            ),
            column(
                "StorageCapacity",
                "boolean",
                "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity information, if set to true.\n\nThe check can be enabled immediately when deploying a driver. In that case, provisioning new volumes with late binding will pause until the driver deployment has published some suitable CSIStorageCapacity object.\n\nAlternatively, the driver can be deployed with the field unset or false and it can be flipped later when storage capacity information has been published.\n\nThis field was immutable in Kubernetes <= 1.22 and now is mutable.",
            ),
            column(
                "TokenRequests",
                "string",
                "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to do necessary authentication. Kubelet will pass the tokens in VolumeContext in the CSI NodePublishVolume calls. The CSI driver should parse and validate the following VolumeContext: \"csi.storage.k8s.io/serviceAccount.tokens\": {\n  \"<audience>\": {\n    \"token\": <token>,\n    \"expirationTimestamp\": <expiration timestamp in RFC3339>,\n  },\n  ...\n}\n\nNote: Audience in each TokenRequest should be different and at most one token is empty string. To receive a new token after expiry, RequiresRepublish can be used to trigger NodePublishVolume periodically.",
            ),
            column(
                "RequiresRepublish",
                "boolean",
                "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to reflect any possible change in the mounted volume. This field defaults to false.\n\nNote: After a successful initial NodePublishVolume call, subsequent calls to NodePublishVolume should only update the contents of the volume. New mount points will not be seen by a running container.",
            ),
            column(
                "Modes",
                "string",
                "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports. The default if the list is empty is \"Persistent\", which is the usage defined by the CSI specification and implemented in Kubernetes via the usual PV/PVC mechanism.\n\nThe other mode is \"Ephemeral\". In this mode, volumes are defined inline inside the pod spec with CSIVolumeSource and their lifecycle is tied to the lifecycle of that pod. A driver has to be aware of this because it is only going to get a NodePublishVolume call for such a volume.\n\nFor more information about implementing this mode, see https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html A driver can support one or more of these modes and more modes may be added in the future.\n\nThis field is beta. This field is immutable.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        let tokens = spec.token_requests.as_ref().map_or_else(
            || "<unset>".to_owned(),
            |requests| {
                let audiences: Vec<&str> = requests
                    .iter()
                    .map(|request| request.audience.as_str())
                    .collect();
                audiences.join(",")
            },
        );
        let modes = match list(&spec.volume_lifecycle_modes).join(",") {
            modes if modes.is_empty() => "<none>".to_owned(),
            modes => modes,
        };
        vec![
            name(&self.metadata),
            Value::from(spec.attach_required.unwrap_or(true)),
            Value::from(spec.pod_info_on_mount.unwrap_or_default()),
            Value::from(spec.storage_capacity.unwrap_or_default()),
            Value::from(tokens),
            Value::from(spec.requires_republish.unwrap_or_default()),
            Value::from(modes),
            age(&self.metadata, now),
        ]
    }
}

fn token_requests(requests: &[TokenRequest], path: &Path, errors: &mut ErrorList) {
    const SHORTEST_SECONDS: i64 = 10 * 60;
    const LONGEST_SECONDS: i64 = 1 << 32;
    for (index, request) in requests.iter().enumerate() {
        let path = path.index(index);
        let is_same = |other: &TokenRequest| other.audience == request.audience;
        if requests[..index].iter().any(is_same) {
            let audience = request.audience.as_str();
            errors.push(path.child("audience").duplicate(audience));
            continue;
        }
        let message = match request.expiration_seconds {
            Some(seconds) if seconds < SHORTEST_SECONDS => {
                "may not specify a duration less than 10 minutes"
            }
            Some(seconds) if seconds > LONGEST_SECONDS => {
                "may not specify a duration larger than 2^32 seconds"
            }
            _ => continue,
        };
        let path = path.child("expirationSeconds");
        errors.push(path.invalid(request.expiration_seconds, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<CSIDriver>(include_str!("../../testdata/csi_driver.yaml"));
    }

    #[test]
    fn an_update_warns_of_tokens_that_it_changes() {
        let driver = |audience: &str| {
            let mut driver = CSIDriver::default();
            let tokens = driver.spec.token_requests.get_or_insert_default();
            tokens.push(TokenRequest {
                audience: audience.to_owned(),
                expiration_seconds: None,
            });
            driver
        };
        assert!(driver("a").warnings(Some(&driver("a"))).is_empty());
        assert_eq!(driver("a").warnings(Some(&driver("b"))).len(), 1);
    }
}
