//! For whom a kubelet may have tokens made: whom the pod's volumes name, and whom roles add.

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume},
    storage::v1::CSIDriver,
};
use serde_json::Value;

use super::{NodeRestriction, not_found};
use crate::{
    admission::Attributes,
    authz,
    error::{ApiError, GroupResource},
};

/// Types of volume that CSI drivers have taken over.
const MIGRATED: [(&str, &str); 7] = [
    ("awsElasticBlockStore", "ebs.csi.aws.com"),
    ("azureDisk", "disk.csi.azure.com"),
    ("azureFile", "file.csi.azure.com"),
    ("cinder", "cinder.csi.openstack.org"),
    ("gcePersistentDisk", "pd.csi.storage.gke.io"),
    ("portworxVolume", "pxd.portworx.com"),
    ("vsphereVolume", "csi.vsphere.vmware.com"),
];

impl NodeRestriction {
    /// # Errors
    /// Why the node may not have a token for the audiences.
    pub(super) async fn check_audience(
        &self,
        attributes: &Attributes<'_>,
        pod: &Pod,
        audiences: &[String],
    ) -> Result<(), String> {
        let audience = match audiences {
            [] => "",
            [audience] => audience.as_str(),
            _ => return Err("node may only request 0 or 1 audiences".to_owned()),
        };
        match self.names(attributes.namespace, pod, audience).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(why) => return Err(format!("error validating audience {audience:?}: {why}")),
        }
        let asked = authz::Attributes {
            version: "v1",
            namespace: attributes.namespace,
            name: attributes.name,
            ..authz::Attributes::of_resource(
                attributes.user,
                "request-serviceaccounts-token-audience",
                "",
                audience,
            )
        };
        if self.authorizer.authorize(&asked).await.is_allowed() {
            return Ok(());
        }
        let user = &attributes.user.user;
        Err(format!(
            "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
        ))
    }

    async fn names(&self, namespace: &str, pod: &Pod, audience: &str) -> Result<bool, String> {
        let mut errors = Vec::new();
        let spec = pod.spec.as_ref();
        for volume in spec
            .and_then(|spec| spec.volumes.as_ref())
            .into_iter()
            .flatten()
        {
            if projects(volume, audience) {
                return Ok(true);
            }
            let driver = match self.driver(namespace, pod, volume).await {
                Ok(driver) => driver,
                Err(error) => {
                    errors.push(error.to_string());
                    continue;
                }
            };
            let Some(driver) = driver else {
                continue;
            };
            match self.lookup.get::<CSIDriver>("", &driver).await {
                Ok(Some(found)) => {
                    let mut requests = found.spec.token_requests.iter().flatten();
                    if requests.any(|request| request.audience == audience) {
                        return Ok(true);
                    }
                }
                Ok(None) => {
                    let subject = GroupResource {
                        group: "storage.k8s.io",
                        resource: "csidriver",
                    };
                    errors.push(ApiError::not_found(subject, &driver).to_string());
                }
                Err(error) => errors.push(error.to_string()),
            }
        }
        match errors.as_slice() {
            [] => Ok(false),
            [error] => Err(error.clone()),
            errors => Err(format!("[{}]", errors.join(", "))),
        }
    }

    /// The CSI driver that the volume is from, if it is from one.
    async fn driver(
        &self,
        namespace: &str,
        pod: &Pod,
        volume: &Volume,
    ) -> Result<Option<String>, ApiError> {
        let ephemeral = volume.ephemeral.as_ref();
        if ephemeral.is_some_and(|ephemeral| ephemeral.volume_claim_template.is_some()) {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            let claim = format!("{pod}-{}", volume.name);
            return self.driver_of_claim(namespace, &claim).await;
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            return self.driver_of_claim(namespace, &claim.claim_name).await;
        }
        if let Some(csi) = &volume.csi {
            return Ok(Some(csi.driver.clone()));
        }
        Ok(migrated(&serde_json::to_value(volume).unwrap_or_default()))
    }

    async fn driver_of_claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<String>, ApiError> {
        let claim = self
            .lookup
            .get::<PersistentVolumeClaim>(namespace, name)
            .await?;
        let claim = claim.ok_or_else(|| not_found("persistentvolumeclaim", name))?;
        let spec = claim.spec.as_ref();
        let volume = spec.and_then(|spec| spec.volume_name.as_deref());
        let volume = volume.unwrap_or_default();
        let found = self.lookup.get::<PersistentVolume>("", volume).await?;
        let found = found.ok_or_else(|| not_found("persistentvolume", volume))?;
        let Some(spec) = &found.spec else {
            return Ok(None);
        };
        if let Some(csi) = &spec.csi {
            return Ok(Some(csi.driver.clone()));
        }
        Ok(migrated(&serde_json::to_value(spec).unwrap_or_default()))
    }
}

fn projects(volume: &Volume, audience: &str) -> bool {
    let projected = volume.projected.as_ref();
    let mut sources = projected
        .and_then(|projected| projected.sources.as_ref())
        .into_iter()
        .flatten();
    sources.any(|source| {
        let token = source.service_account_token.as_ref();
        token.is_some_and(|token| token.audience.as_deref().unwrap_or_default() == audience)
    })
}

fn migrated(source: &Value) -> Option<String> {
    let mut types = MIGRATED.iter();
    let found = types.find(|(key, _)| source.get(key).is_some());
    found.map(|(_, driver)| (*driver).to_owned())
}
