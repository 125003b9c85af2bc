//! Volumes on the network, of a cloud or of a driver, in Pods and in PersistentVolumes.
//!
//! The functions `of_*` stand for runs of upstream's long list of volume types, whose order
//! decides which of two sources is one too many.

use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, FCVolumeSource, FlockerVolumeSource,
    GCEPersistentDiskVolumeSource, NFSVolumeSource, QuobyteVolumeSource, Volume,
};

use super::volumes::{OneSource, descending_path};
use crate::{
    check,
    field::{ErrorList, Path, value_of},
    formats, names,
    zero::{list, text},
};

type Labels = std::collections::BTreeMap<String, String>;

pub(super) fn of_clouds(volume: &Volume, sources: &mut OneSource<'_>, errors: &mut ErrorList) {
    sources.check(
        &volume.git_repo,
        "gitRepo",
        errors,
        |source, path, errors| {
            check::required(&source.repository, &path.child("repository"), errors);
            descending_path(text(&source.directory), &path.child("directory"), errors);
        },
    );
    sources.check_as(
        &volume.gce_persistent_disk,
        "gcePersistentDisk",
        "persistentDisk",
        errors,
        gce_persistent_disk,
    );
    sources.check(
        &volume.aws_elastic_block_store,
        "awsElasticBlockStore",
        errors,
        aws_elastic_block_store,
    );
}

pub(super) fn of_network(volume: &Volume, sources: &mut OneSource<'_>, errors: &mut ErrorList) {
    sources.check(&volume.nfs, "nfs", errors, nfs);
    sources.check(&volume.iscsi, "iscsi", errors, |source, path, errors| {
        let iscsi = Iscsi {
            target_portal: &source.target_portal,
            iqn: &source.iqn,
            lun: source.lun,
            initiator_name: source.initiator_name.as_deref(),
            needs_secret: source.chap_auth_discovery == Some(true)
                || source.chap_auth_session == Some(true),
            has_secret: source.secret_ref.is_some(),
        };
        iscsi.check(WRONG_START, path, errors);
    });
    if let Some(source) = &volume.iscsi
        && source.initiator_name.is_some()
        && volume.name.len() + 1 + source.target_portal.len() > MAX_ISCSI_NAME
    {
        errors.push(
            sources
                .path
                .child("name")
                .invalid(volume.name.as_str(), ISCSI_TOO_LONG),
        );
    }
    sources.check(
        &volume.glusterfs,
        "glusterfs",
        errors,
        |source, path, errors| {
            check::required(&source.endpoints, &path.child("endpoints"), errors);
            check::required(&source.path, &path.child("path"), errors);
        },
    );
    sources.check(&volume.flocker, "flocker", errors, flocker);
    sources.check(
        &volume.persistent_volume_claim,
        "persistentVolumeClaim",
        errors,
        |claim, path, errors| {
            check::required(&claim.claim_name, &path.child("claimName"), errors);
        },
    );
    sources.check(&volume.rbd, "rbd", errors, |source, path, errors| {
        rbd(&source.monitors, &source.image, path, errors);
    });
    sources.check(&volume.cinder, "cinder", errors, |source, path, errors| {
        check::required(&source.volume_id, &path.child("volumeID"), errors);
        if let Some(secret) = &source.secret_ref {
            check::required(&secret.name, &path.child("secretRef.name"), errors);
        }
    });
    sources.check_as(
        &volume.cephfs,
        "cephFS",
        "cephfs",
        errors,
        |source, path, errors| {
            if source.monitors.is_empty() {
                errors.push(path.child("monitors").required(""));
            }
        },
    );
    sources.check(&volume.quobyte, "quobyte", errors, quobyte);
}

pub(super) fn of_nodes(volume: &Volume, sources: &mut OneSource<'_>, errors: &mut ErrorList) {
    sources.check(&volume.fc, "fc", errors, fibre_channel);
    sources.check(
        &volume.flex_volume,
        "flexVolume",
        errors,
        |source, path, errors| {
            flex(&source.driver, source.options.as_ref(), path, errors);
        },
    );
}

pub(super) fn of_vendors(volume: &Volume, sources: &mut OneSource<'_>, errors: &mut ErrorList) {
    sources.check(
        &volume.azure_file,
        "azureFile",
        errors,
        |source, path, errors| {
            check::required(&source.secret_name, &path.child("secretName"), errors);
            check::required(&source.share_name, &path.child("shareName"), errors);
        },
    );
    sources.check(
        &volume.vsphere_volume,
        "vsphereVolume",
        errors,
        |source, path, errors| {
            check::required(&source.volume_path, &path.child("volumePath"), errors);
        },
    );
    sources.check(
        &volume.photon_persistent_disk,
        "photonPersistentDisk",
        errors,
        |source, path, errors| check::required(&source.pd_id, &path.child("pdID"), errors),
    );
    sources.check(
        &volume.portworx_volume,
        "portworxVolume",
        errors,
        |source, path, errors| {
            check::required(&source.volume_id, &path.child("volumeID"), errors);
        },
    );
    sources.check(&volume.azure_disk, "azureDisk", errors, azure_disk);
    sources.check(
        &volume.storageos,
        "storageos",
        errors,
        |source, path, errors| {
            storage_os(
                text(&source.volume_name),
                text(&source.volume_namespace),
                path,
                errors,
            );
            if let Some(secret) = &source.secret_ref {
                check::required(&secret.name, &path.child("secretRef.name"), errors);
            }
        },
    );
}

pub(super) fn of_drivers(volume: &Volume, sources: &mut OneSource<'_>, errors: &mut ErrorList) {
    sources.check(
        &volume.scale_io,
        "scaleIO",
        errors,
        |source, path, errors| {
            scale_io(
                &source.gateway,
                &source.system,
                text(&source.volume_name),
                path,
                errors,
            );
        },
    );
    sources.check(&volume.csi, "csi", errors, |source, path, errors| {
        csi_driver_name(&source.driver, &path.child("driver"), errors);
        if let Some(secret) = &source.node_publish_secret_ref {
            if secret.name.is_empty() {
                errors.push(path.child("nodePublishSecretRef.name").required(""));
            } else {
                check::subdomain(&secret.name, &path.child("name"), errors);
            }
        }
    });
}

fn partition(partition: Option<i32>, path: &Path, errors: &mut ErrorList) {
    let partition = partition.unwrap_or(0);
    if !(0..=255).contains(&partition) {
        errors.push(
            path.child("partition")
                .invalid(partition, formats::inclusive_range(1, 255)),
        );
    }
}

pub fn gce_persistent_disk(
    source: &GCEPersistentDiskVolumeSource,
    path: &Path,
    errors: &mut ErrorList,
) {
    check::required(&source.pd_name, &path.child("pdName"), errors);
    partition(source.partition, path, errors);
}

pub fn aws_elastic_block_store(
    source: &AWSElasticBlockStoreVolumeSource,
    path: &Path,
    errors: &mut ErrorList,
) {
    check::required(&source.volume_id, &path.child("volumeID"), errors);
    partition(source.partition, path, errors);
}

pub fn nfs(source: &NFSVolumeSource, path: &Path, errors: &mut ErrorList) {
    let path_path = path.child("path");
    check::required(&source.server, &path.child("server"), errors);
    check::required(&source.path, &path_path, errors);
    if !source.path.starts_with('/') {
        errors.push(path_path.invalid(source.path.as_str(), "must be an absolute path"));
    }
}

/// The name of an iSCSI session is made of the volume's name and the portal.
pub const MAX_ISCSI_NAME: usize = 64;
pub const ISCSI_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
const WRONG_FORMAT: &str = "must be valid format";
const WRONG_START: &str = "must be valid format starting with iqn, eui, or naa";

/// What the iSCSI sources of Pods and of PersistentVolumes have in common.
pub struct Iscsi<'a> {
    pub target_portal: &'a str,
    pub iqn: &'a str,
    pub lun: i32,
    pub initiator_name: Option<&'a str>,
    pub needs_secret: bool,
    pub has_secret: bool,
}

impl Iscsi<'_> {
    /// The checks for a PersistentVolume, whose message about the start of a name is shorter.
    pub fn check_persistent(&self, path: &Path, errors: &mut ErrorList) {
        self.check(WRONG_FORMAT, path, errors);
    }

    fn check(&self, wrong_start: &str, path: &Path, errors: &mut ErrorList) {
        check::required(self.target_portal, &path.child("targetPortal"), errors);
        let iqn_path = path.child("iqn");
        if self.iqn.is_empty() {
            errors.push(iqn_path.required(""));
        } else {
            iscsi_name(self.iqn, wrong_start, &iqn_path, errors);
        }
        if !(0..=255).contains(&self.lun) {
            let message = formats::inclusive_range(0, 255);
            errors.push(path.child("lun").invalid(self.lun, message));
        }
        if self.needs_secret && !self.has_secret {
            errors.push(path.child("secretRef").required(""));
        }
        if let Some(initiator) = self.initiator_name {
            iscsi_name(initiator, wrong_start, &path.child("initiatorname"), errors);
        }
    }
}

fn iscsi_name(name: &str, wrong_start: &str, path: &Path, errors: &mut ErrorList) {
    let is_alphanumeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_id = |rest: &str, length: usize| {
        // The separator may be any character, as upstream's expression has it.
        let mut characters = rest.chars();
        characters.next().is_some()
            && characters.as_str().len() == length
            && is_alphanumeric(characters.as_str())
    };
    let message = if let Some(rest) = name.strip_prefix("iqn") {
        (!is_iqn(rest)).then_some(WRONG_FORMAT)
    } else if let Some(rest) = name.strip_prefix("eui") {
        (!is_id(rest, 16)).then_some(WRONG_FORMAT)
    } else if let Some(rest) = name.strip_prefix("naa") {
        (!is_id(rest, 32)).then_some(WRONG_FORMAT)
    } else {
        Some(wrong_start)
    };
    if let Some(message) = message {
        errors.push(path.invalid(name, message));
    }
}

/// What follows `iqn`: `.2016-04.com.example:storage.tgt1`.
fn is_iqn(rest: &str) -> bool {
    let Some((authority, target)) = rest.split_once(':') else {
        return false;
    };
    let Some((date, domain)) = authority.strip_prefix('.').and_then(|a| a.split_once('.')) else {
        return false;
    };
    let is_date = date.len() == 7
        && date.char_indices().all(|(index, c)| match index {
            4 => c == '-',
            _ => c.is_ascii_digit(),
        });
    let in_domain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    is_date
        && !domain.is_empty()
        && domain.bytes().all(in_domain)
        && !target.is_empty()
        && !target.contains(|c: char| ",;*&$|".contains(c) || c.is_ascii_whitespace())
}

pub fn flocker(source: &FlockerVolumeSource, path: &Path, errors: &mut ErrorList) {
    let name = text(&source.dataset_name);
    match (name, text(&source.dataset_uuid)) {
        ("", "") => {
            errors.push(path.required("one of datasetName and datasetUUID is required"));
        }
        ("", _) | (_, "") => {}
        _ => errors.push(path.invalid(
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        )),
    }
    if name.contains('/') {
        errors.push(
            path.child("datasetName")
                .invalid(name, "must not contain '/'"),
        );
    }
}

pub fn rbd(monitors: &[String], image: &str, path: &Path, errors: &mut ErrorList) {
    if monitors.is_empty() {
        errors.push(path.child("monitors").required(""));
    }
    check::required(image, &path.child("image"), errors);
}

pub fn quobyte(source: &QuobyteVolumeSource, path: &Path, errors: &mut ErrorList) {
    const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry_path = path.child("registry");
    if source.registry.is_empty() {
        errors.push(registry_path.required(REGISTRY));
    } else if text(&source.tenant).len() >= 65 {
        errors.push(
            path.child("tenant")
                .required("must be a UUID and may not exceed a length of 64 characters"),
        );
    } else {
        for pair in source.registry.split(',') {
            let has_port = match pair.strip_prefix('[') {
                Some(rest) => rest.split_once("]:").is_some(),
                None => pair.matches(':').count() == 1,
            };
            if !has_port {
                errors.push(registry_path.invalid(source.registry.as_str(), REGISTRY));
            }
        }
    }
    check::required(&source.volume, &path.child("volume"), errors);
}

pub fn fibre_channel(source: &FCVolumeSource, path: &Path, errors: &mut ErrorList) {
    let (targets, ids) = (list(&source.target_wwns), list(&source.wwids));
    let targets_path = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        errors.push(targets_path.required("must specify either targetWWNs or wwids, but not both"));
    }
    if !targets.is_empty() && !ids.is_empty() {
        errors.push(targets_path.invalid(
            value_of(&targets),
            "targetWWNs and wwids can not be specified simultaneously",
        ));
    }
    let lun_path = path.child("lun");
    match source.lun {
        _ if targets.is_empty() => {}
        None => errors.push(lun_path.required("lun is required if targetWWNs is specified")),
        Some(lun) if !(0..=255).contains(&lun) => {
            errors.push(lun_path.invalid(lun, formats::inclusive_range(0, 255)));
        }
        Some(_) => {}
    }
}

pub fn flex(driver: &str, options: Option<&Labels>, path: &Path, errors: &mut ErrorList) {
    check::required(driver, &path.child("driver"), errors);
    for key in options.into_iter().flat_map(Labels::keys) {
        let namespace = key
            .split_once('/')
            .map_or(key.as_str(), |(namespace, _)| namespace);
        let normalized = format!(".{}", namespace.to_lowercase());
        if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
            errors.push(path.child("options").key(key).invalid(
                key.as_str(),
                "kubernetes.io and k8s.io namespaces are reserved",
            ));
        }
    }
}

pub fn azure_disk(source: &AzureDiskVolumeSource, path: &Path, errors: &mut ErrorList) {
    let uri_path = path.child("diskURI");
    check::required(&source.disk_name, &path.child("diskName"), errors);
    check::required(&source.disk_uri, &uri_path, errors);
    if let Some(mode) = &source.caching_mode {
        let path = path.child("cachingMode");
        check::one_of(mode, &["None", "ReadOnly", "ReadWrite"], &path, errors);
    }
    let Some(kind) = &source.kind else { return };
    let kinds = &["Dedicated", "Managed", "Shared"];
    check::one_of(kind, kinds, &path.child("kind"), errors);
    let (start, example) = match kind.as_str() {
        "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        _ => (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        ),
    };
    if !source.disk_uri.starts_with(start) {
        errors.push(uri_path.not_supported(source.disk_uri.as_str(), &[example]));
    }
}

pub fn storage_os(name: &str, namespace: &str, path: &Path, errors: &mut ErrorList) {
    let name_path = path.child("volumeName");
    if name.is_empty() {
        errors.push(name_path.required(""));
    } else {
        check::dns_label(name, &name_path, errors);
    }
    if !namespace.is_empty() {
        check::dns_label(namespace, &path.child("volumeNamespace"), errors);
    }
}

pub fn scale_io(gateway: &str, system: &str, volume: &str, path: &Path, errors: &mut ErrorList) {
    check::required(gateway, &path.child("gateway"), errors);
    check::required(system, &path.child("system"), errors);
    check::required(volume, &path.child("volumeName"), errors);
}

/// The name of a CSI driver, a DNS subdomain of any case.
pub fn csi_driver_name(name: &str, path: &Path, errors: &mut ErrorList) {
    const MAX_LENGTH: usize = 63;
    if name.is_empty() {
        errors.push(path.required(""));
        return;
    }
    if name.len() > MAX_LENGTH {
        errors.push(path.too_long(MAX_LENGTH));
    }
    let messages = names::dns1123_subdomain(&name.to_lowercase());
    check::each(path, name, messages, errors);
}
