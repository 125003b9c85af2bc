//! Default values of the volumes of a Pod.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, ProjectedVolumeSource, Volume, VolumeProjection,
};

use super::container_defaults::{default_divisor, default_pull_policy};
use crate::{
    core::persistent_volume_claim,
    zero::{default_text, list_mut, text},
};

/// rw-r--r--
const DEFAULT_MODE: i32 = 0o644;

/// The defaults of a volume; one without a source is an emptyDir.
pub fn volume(volume: &mut Volume) {
    if !has_source(volume) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(path) = &mut volume.host_path {
        path.type_.get_or_insert_default();
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(DEFAULT_MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_mode.get_or_insert(DEFAULT_MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(DEFAULT_MODE);
        for file in list_mut(&mut downward.items) {
            downward_file(file);
        }
    }
    if let Some(projected) = &mut volume.projected {
        projection(projected);
    }
    if let Some(image) = &mut volume.image {
        default_pull_policy(&mut image.pull_policy, text(&image.reference));
    }
    if let Some(ephemeral) = &mut volume.ephemeral
        && let Some(template) = &mut ephemeral.volume_claim_template
    {
        persistent_volume_claim::default_spec(&mut template.spec);
    }
    remote(volume);
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        default_text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut file.resource_field_ref {
        default_divisor(&mut resource.divisor);
    }
}

fn projection(projected: &mut ProjectedVolumeSource) {
    projected.default_mode.get_or_insert(DEFAULT_MODE);
    for source in list_mut(&mut projected.sources) {
        // The features ClusterTrustBundleProjection and PodCertificateRequest are off in v1.36.
        source.cluster_trust_bundle = None;
        source.pod_certificate = None;
        projected_source(source);
    }
}

fn projected_source(source: &mut VolumeProjection) {
    if let Some(downward) = &mut source.downward_api {
        for file in list_mut(&mut downward.items) {
            downward_file(file);
        }
    }
    if let Some(token) = &mut source.service_account_token {
        token.expiration_seconds.get_or_insert(3600);
    }
}

/// Sources on the network or of a cloud.
fn remote(volume: &mut Volume) {
    if let Some(iscsi) = &mut volume.iscsi {
        default_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        default_text(&mut rbd.pool, "rbd");
        default_text(&mut rbd.user, "admin");
        default_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        disk.caching_mode
            .get_or_insert_with(|| "ReadWrite".to_owned());
        disk.fs_type.get_or_insert_with(|| "ext4".to_owned());
        disk.read_only.get_or_insert(false);
        disk.kind.get_or_insert_with(|| "Shared".to_owned());
    }
    if let Some(scale_io) = &mut volume.scale_io {
        default_text(&mut scale_io.storage_mode, "ThinProvisioned");
        default_text(&mut scale_io.fs_type, "xfs");
    }
}

/// Whether the volume names any source.
pub fn has_source(volume: &Volume) -> bool {
    volume.aws_elastic_block_store.is_some()
        || volume.azure_disk.is_some()
        || volume.azure_file.is_some()
        || volume.cephfs.is_some()
        || volume.cinder.is_some()
        || volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.fc.is_some()
        || volume.flex_volume.is_some()
        || volume.flocker.is_some()
        || volume.gce_persistent_disk.is_some()
        || volume.git_repo.is_some()
        || volume.glusterfs.is_some()
        || volume.host_path.is_some()
        || volume.image.is_some()
        || volume.iscsi.is_some()
        || volume.nfs.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.photon_persistent_disk.is_some()
        || volume.portworx_volume.is_some()
        || volume.projected.is_some()
        || volume.quobyte.is_some()
        || volume.rbd.is_some()
        || volume.scale_io.is_some()
        || volume.secret.is_some()
        || volume.storageos.is_some()
        || volume.vsphere_volume.is_some()
}
