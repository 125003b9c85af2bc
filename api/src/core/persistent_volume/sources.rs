//! The one source of a PersistentVolume. What Pods can also name directly is checked as there.

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, ISCSIPersistentVolumeSource, PersistentVolumeSpec, SecretReference,
};

use super::validation::Place;
use crate::{
    check,
    core::pod::validation::{
        remote_volumes::{
            ISCSI_TOO_LONG, Iscsi, MAX_ISCSI_NAME, aws_elastic_block_store, azure_disk,
            csi_driver_name, fibre_channel, flex, flocker, gce_persistent_disk, nfs, quobyte, rbd,
            scale_io, storage_os,
        },
        volumes::{OneSource, host_path, no_backsteps},
    },
    field::{ErrorList, Path},
    zero::text,
};

/// Checks the sources in upstream's order.
pub fn check(
    spec: &PersistentVolumeSpec,
    place: Place<'_>,
    has_affinity: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let name = match place {
        Place::Volume(name) => name,
        Place::Inline => "",
    };
    let mut sources = OneSource::new(path);
    sources.check(&spec.host_path, "hostPath", errors, host_path);
    sources.check_as(
        &spec.gce_persistent_disk,
        "gcePersistentDisk",
        "persistentDisk",
        errors,
        gce_persistent_disk,
    );
    sources.check(
        &spec.aws_elastic_block_store,
        "awsElasticBlockStore",
        errors,
        aws_elastic_block_store,
    );
    sources.check(
        &spec.glusterfs,
        "glusterfs",
        errors,
        |source, path, errors| {
            check::required(&source.endpoints, &path.child("endpoints"), errors);
            check::required(&source.path, &path.child("path"), errors);
            if let Some(namespace) = &source.endpoints_namespace {
                let path = path.child("endpointsNamespace");
                if namespace.is_empty() {
                    let message =
                        "if the endpointnamespace is set, it must be a valid namespace name";
                    errors.push(path.invalid("", message));
                } else {
                    check::dns_label(namespace, &path, errors);
                }
            }
        },
    );
    sources.check(&spec.flocker, "flocker", errors, flocker);
    sources.check(&spec.nfs, "nfs", errors, nfs);
    sources.check(&spec.rbd, "rbd", errors, |source, path, errors| {
        rbd(&source.monitors, &source.image, path, errors);
    });
    sources.check(&spec.quobyte, "quobyte", errors, quobyte);
    sources.check_as(
        &spec.cephfs,
        "cephFS",
        "cephfs",
        errors,
        |source, path, errors| {
            if source.monitors.is_empty() {
                errors.push(path.child("monitors").required(""));
            }
        },
    );
    sources.check(&spec.iscsi, "iscsi", errors, |source, path, errors| {
        iscsi(source, name, path, errors);
    });
    sources.check(&spec.cinder, "cinder", errors, |source, path, errors| {
        check::required(&source.volume_id, &path.child("volumeID"), errors);
        if let Some(secret) = &source.secret_ref {
            let path = path.child("secretRef");
            check::required(text(&secret.name), &path.child("name"), errors);
            check::required(text(&secret.namespace), &path.child("namespace"), errors);
        }
    });
    sources.check(&spec.fc, "fc", errors, fibre_channel);
    sources.check(
        &spec.flex_volume,
        "flexVolume",
        errors,
        |source, path, errors| {
            flex(&source.driver, source.options.as_ref(), path, errors);
        },
    );
    of_vendors(spec, &mut sources, errors);
    sources.check(&spec.local, "local", errors, |source, path, errors| {
        let path = path.child("path");
        if source.path.is_empty() {
            errors.push(path.required(""));
        } else {
            no_backsteps(&source.path, &path, errors);
        }
    });
    if spec.local.is_some() && !has_affinity {
        let message = "Local volume requires node affinity";
        errors.push(path.child("nodeAffinity").required(message));
    }
    sources.check(
        &spec.storageos,
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
                let path = path.child("secretRef");
                check::required(text(&secret.name), &path.child("name"), errors);
                check::required(text(&secret.namespace), &path.child("namespace"), errors);
            }
        },
    );
    sources.check(&spec.csi, "csi", errors, csi);
    sources.finish(errors);
}

fn of_vendors(spec: &PersistentVolumeSpec, sources: &mut OneSource<'_>, errors: &mut ErrorList) {
    sources.check(
        &spec.azure_file,
        "azureFile",
        errors,
        |source, path, errors| {
            check::required(&source.secret_name, &path.child("secretName"), errors);
            check::required(&source.share_name, &path.child("shareName"), errors);
            if let Some(namespace) = &source.secret_namespace {
                check::required(namespace, &path.child("secretNamespace"), errors);
            }
        },
    );
    sources.check(
        &spec.vsphere_volume,
        "vsphereVolume",
        errors,
        |source, path, errors| {
            check::required(&source.volume_path, &path.child("volumePath"), errors);
        },
    );
    sources.check(
        &spec.photon_persistent_disk,
        "photonPersistentDisk",
        errors,
        |source, path, errors| check::required(&source.pd_id, &path.child("pdID"), errors),
    );
    sources.check(
        &spec.portworx_volume,
        "portworxVolume",
        errors,
        |source, path, errors| {
            check::required(&source.volume_id, &path.child("volumeID"), errors);
        },
    );
    sources.check(&spec.azure_disk, "azureDisk", errors, azure_disk);
    sources.check(&spec.scale_io, "scaleIO", errors, |source, path, errors| {
        scale_io(
            &source.gateway,
            &source.system,
            text(&source.volume_name),
            path,
            errors,
        );
    });
}

fn iscsi(source: &ISCSIPersistentVolumeSource, name: &str, path: &Path, errors: &mut ErrorList) {
    if source.initiator_name.is_some()
        && name.len() + 1 + source.target_portal.len() > MAX_ISCSI_NAME
    {
        let portal_path = path.child("targetportal");
        errors.push(portal_path.invalid(source.target_portal.as_str(), ISCSI_TOO_LONG));
    }
    let iscsi = Iscsi {
        target_portal: &source.target_portal,
        iqn: &source.iqn,
        lun: source.lun,
        initiator_name: source.initiator_name.as_deref(),
        needs_secret: source.chap_auth_discovery == Some(true)
            || source.chap_auth_session == Some(true),
        has_secret: source.secret_ref.is_some(),
    };
    iscsi.check_persistent(path, errors);
    if let Some(secret) = &source.secret_ref {
        check::required(text(&secret.name), &path.child("secretRef.name"), errors);
    }
}

fn csi(source: &CSIPersistentVolumeSource, path: &Path, errors: &mut ErrorList) {
    csi_driver_name(&source.driver, &path.child("driver"), errors);
    check::required(&source.volume_handle, &path.child("volumeHandle"), errors);
    for (field, secret) in [
        (
            "controllerPublishSecretRef",
            &source.controller_publish_secret_ref,
        ),
        (
            "controllerExpandSecretRef",
            &source.controller_expand_secret_ref,
        ),
        ("nodePublishSecretRef", &source.node_publish_secret_ref),
        ("nodeExpandSecretRef", &source.node_expand_secret_ref),
    ] {
        if let Some(secret) = secret {
            secret_reference(secret, &path.child(field), errors);
        }
    }
}

fn secret_reference(secret: &SecretReference, path: &Path, errors: &mut ErrorList) {
    let (name, namespace) = (text(&secret.name), text(&secret.namespace));
    let (name_path, namespace_path) = (path.child("name"), path.child("namespace"));
    if name.is_empty() {
        errors.push(name_path.required(""));
    } else {
        check::subdomain(name, &name_path, errors);
    }
    if namespace.is_empty() {
        errors.push(namespace_path.required(""));
    } else {
        check::dns_label(namespace, &namespace_path, errors);
    }
}

/// Whether the volume's type takes mount options from an annotation.
pub fn takes_mount_options(spec: &PersistentVolumeSpec) -> bool {
    spec.gce_persistent_disk.is_some()
        || spec.aws_elastic_block_store.is_some()
        || spec.glusterfs.is_some()
        || spec.nfs.is_some()
        || spec.rbd.is_some()
        || spec.quobyte.is_some()
        || spec.iscsi.is_some()
        || spec.cinder.is_some()
        || spec.cephfs.is_some()
        || spec.azure_file.is_some()
        || spec.vsphere_volume.is_some()
        || spec.azure_disk.is_some()
        || spec.photon_persistent_disk.is_some()
}

/// The spec with nothing but its source.
pub fn only(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}
