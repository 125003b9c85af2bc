//! Volumes on the node or of the cluster, and how containers mount them.

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Volume, VolumeMount,
};

use super::{
    Holder,
    containers::pull_policy,
    env::{FILE_FIELDS, field_ref, resource_field_ref},
    projected, remote_volumes,
};
use crate::{
    check,
    core::persistent_volume_claim,
    field::{ErrorList, Path},
    names,
    quantity::Amount,
    zero::{list, text},
};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The volumes that are valid, which containers may mount.
pub type Volumes<'a> = Vec<&'a Volume>;

/// Checks `volumes`; those without an error are returned.
pub fn volumes<'a>(
    volumes: &'a [Volume],
    holder: Holder<'_>,
    path: &Path,
    errors: &mut ErrorList,
) -> Volumes<'a> {
    let mut valid = Volumes::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let name_path = path.child("name");
        let before = errors.len();
        source(volume, holder, &path, errors);
        if volume.name.is_empty() {
            errors.push(name_path.required(""));
        } else {
            check::dns_label(&volume.name, &name_path, errors);
        }
        if valid
            .iter()
            .any(|other: &&Volume| other.name == volume.name)
        {
            errors.push(name_path.duplicate(volume.name.as_str()));
        }
        if errors.len() == before {
            valid.push(volume);
        }
        if let Some(claim) = &volume.persistent_volume_claim
            && !holder.name().is_empty()
            && volumes.iter().any(|other| {
                other.ephemeral.is_some()
                    && claim.claim_name == format!("{}-{}", holder.name(), other.name)
            })
        {
            errors.push(path.child("persistentVolumeClaim.claimName").invalid(
                claim.claim_name.as_str(),
                "must not reference a PVC that gets created for an ephemeral volume",
            ));
        }
    }
    valid
}

/// The one source that a volume must have.
fn source(volume: &Volume, holder: Holder<'_>, path: &Path, errors: &mut ErrorList) {
    let mut sources = OneSource::new(path);
    if let Some(directory) = &volume.empty_dir {
        sources.count();
        let limit = directory.size_limit.as_ref().map(Amount::from);
        if limit.is_some_and(Amount::is_negative) {
            errors.push(
                path.child("emptyDir.sizeLimit")
                    .forbidden("SizeLimit field must be a valid resource quantity"),
            );
        }
    }
    sources.check(&volume.host_path, "hostPath", errors, host_path);
    remote_volumes::of_clouds(volume, &mut sources, errors);
    sources.check(&volume.secret, "secret", errors, |secret, path, errors| {
        check::required(text(&secret.secret_name), &path.child("secretName"), errors);
        file_mode(secret.default_mode, &path.child("defaultMode"), errors);
        items(list(&secret.items), path, errors);
    });
    remote_volumes::of_network(volume, &mut sources, errors);
    sources.check_as(
        &volume.downward_api,
        "downwarAPI",
        "downwardAPI",
        errors,
        |downward, path, errors| {
            file_mode(downward.default_mode, &path.child("defaultMode"), errors);
            for file in list(&downward.items) {
                downward_file(file, path, errors);
            }
        },
    );
    remote_volumes::of_nodes(volume, &mut sources, errors);
    sources.check(
        &volume.config_map,
        "configMap",
        errors,
        |source, path, errors| {
            check::required(&source.name, &path.child("name"), errors);
            file_mode(source.default_mode, &path.child("defaultMode"), errors);
            items(list(&source.items), path, errors);
        },
    );
    remote_volumes::of_vendors(volume, &mut sources, errors);
    sources.check(&volume.projected, "projected", errors, projected::projected);
    remote_volumes::of_drivers(volume, &mut sources, errors);
    ephemeral(volume, holder, &mut sources, errors);
    sources.check(&volume.image, "image", errors, |image, path, errors| {
        if holder.is_pod() {
            check::required(text(&image.reference), &path.child("reference"), errors);
        }
        pull_policy(text(&image.pull_policy), &path.child("pullPolicy"), errors);
    });
    sources.finish(errors);
}

/// An ephemeral volume's claim is named after Pod and volume.
fn ephemeral(
    volume: &Volume,
    holder: Holder<'_>,
    sources: &mut OneSource<'_>,
    errors: &mut ErrorList,
) {
    let name_path = sources.path.child("name");
    sources.check(
        &volume.ephemeral,
        "ephemeral",
        errors,
        |source, path, errors| {
            let path = path.child("volumeClaimTemplate");
            match &source.volume_claim_template {
                None => errors.push(path.required("")),
                Some(template) => persistent_volume_claim::template(template, &path, errors),
            }
            if !holder.name().is_empty() && !volume.name.is_empty() {
                let claim = format!("{}-{}", holder.name(), volume.name);
                for message in names::dns1123_subdomain(&claim) {
                    errors.push(name_path.invalid(
                        volume.name.as_str(),
                        format!("PVC name {claim:?}: {message}"),
                    ));
                }
            }
        },
    );
}

/// Counts the sources of a volume; only the first is looked at more closely.
pub struct OneSource<'a> {
    pub path: &'a Path,
    found: bool,
}

impl<'a> OneSource<'a> {
    pub fn new(path: &'a Path) -> Self {
        OneSource { path, found: false }
    }

    fn count(&mut self) {
        self.found = true;
    }

    /// Checks a source if the volume has it.
    pub fn check<T>(
        &mut self,
        source: &Option<T>,
        field: &str,
        errors: &mut ErrorList,
        check: impl FnOnce(&T, &Path, &mut ErrorList),
    ) {
        self.check_as(source, field, field, errors, check);
    }

    /// The same where upstream names the field differently when it is one too many.
    pub fn check_as<T>(
        &mut self,
        source: &Option<T>,
        surplus_field: &str,
        field: &str,
        errors: &mut ErrorList,
        check: impl FnOnce(&T, &Path, &mut ErrorList),
    ) {
        let Some(source) = source else { return };
        if self.found {
            errors.push(
                self.path
                    .child(surplus_field)
                    .forbidden("may not specify more than 1 volume type"),
            );
        } else {
            self.found = true;
            check(source, &self.path.child(field), errors);
        }
    }

    /// There must have been one.
    pub fn finish(self, errors: &mut ErrorList) {
        if !self.found {
            errors.push(self.path.required("must specify a volume type"));
        }
    }
}

/// A directory, file, socket or device of the node.
pub fn host_path(source: &HostPathVolumeSource, path: &Path, errors: &mut ErrorList) {
    let path_path = path.child("path");
    if source.path.is_empty() {
        errors.push(path_path.required(""));
        return;
    }
    no_backsteps(&source.path, &path_path, errors);
    if let Some(path_type) = &source.type_ {
        check::one_of(
            path_type,
            &[
                "",
                "BlockDevice",
                "CharDevice",
                "Directory",
                "DirectoryOrCreate",
                "File",
                "FileOrCreate",
                "Socket",
            ],
            &path.child("type"),
            errors,
        );
    }
}

fn items(items: &[KeyToPath], path: &Path, errors: &mut ErrorList) {
    for (index, item) in items.iter().enumerate() {
        key_to_path(item, &path.child("items").index(index), errors);
    }
}

/// A key and the file that it becomes.
pub fn key_to_path(item: &KeyToPath, path: &Path, errors: &mut ErrorList) {
    check::required(&item.key, &path.child("key"), errors);
    check::required(&item.path, &path.child("path"), errors);
    local_path(&item.path, &path.child("path"), errors);
    file_mode(item.mode, &path.child("mode"), errors);
}

/// A file with a field of the Pod. Errors name the volume, not the file.
pub fn downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut ErrorList) {
    check::required(&file.path, &path.child("path"), errors);
    local_path(&file.path, &path.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            field_ref(field, FILE_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                errors.push(path.invalid(
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                ));
            }
        }
        (None, Some(resource)) => {
            let path = path.child("resourceFieldRef");
            resource_field_ref(resource, true, &path, errors);
        }
        (None, None) => {
            errors.push(path.required("one of fieldRef and resourceFieldRef is required"));
        }
    }
    file_mode(file.mode, &path.child("mode"), errors);
}

pub fn file_mode(mode: Option<i32>, path: &Path, errors: &mut ErrorList) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        errors.push(path.invalid(mode, FILE_MODE));
    }
}

/// A path that does not lead out of the place it is relative to.
pub fn no_backsteps(target: &str, path: &Path, errors: &mut ErrorList) {
    if target.split('/').any(|part| part == "..") {
        errors.push(path.invalid(target, "must not contain '..'"));
    }
}

/// A relative path that goes down.
pub fn descending_path(target: &str, path: &Path, errors: &mut ErrorList) {
    if target.starts_with('/') {
        errors.push(path.invalid(target, "must be a relative path"));
    }
    no_backsteps(target, path, errors);
}

/// The path of a file in a volume that the kubelet writes; it keeps names with `..` to itself.
pub fn local_path(target: &str, path: &Path, errors: &mut ErrorList) {
    descending_path(target, path, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(path.invalid(target, "must not start with '..'"));
    }
}

/// `volumeMounts` of a container.
pub fn mounts(container: &Container, volumes: &Volumes<'_>, path: &Path, errors: &mut ErrorList) {
    let devices = list(&container.volume_devices);
    let mounts = list(&container.volume_mounts);
    for (index, mount) in mounts.iter().enumerate() {
        let item = path.index(index);
        let (name, mount_path) = (mount.name.as_str(), mount.mount_path.as_str());
        check::required(name, &item.child("name"), errors);
        if !volumes.iter().any(|volume| volume.name == name) {
            errors.push(item.child("name").not_found(name));
        }
        check::required(mount_path, &item.child("mountPath"), errors);
        if mounts[..index]
            .iter()
            .any(|other| other.mount_path == mount_path)
        {
            errors.push(
                item.child("mountPath")
                    .invalid(mount_path, "must be unique"),
            );
        }
        if devices.iter().any(|device| device.name == name) {
            errors.push(
                item.child("name")
                    .invalid(name, "must not already exist in volumeDevices"),
            );
        }
        if devices
            .iter()
            .any(|device| device.device_path == mount_path)
        {
            errors.push(item.child("mountPath").invalid(
                mount_path,
                "must not already exist as a path in volumeDevices",
            ));
        }
        sub_paths(mount, path, &item, errors);
        propagation(mount, container, path, errors);
    }
}

/// Upstream names the list, not the mount, where a sub path is wrong in itself.
fn sub_paths(mount: &VolumeMount, path: &Path, item: &Path, errors: &mut ErrorList) {
    let (sub_path, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !sub_path.is_empty() {
        descending_path(sub_path, &path.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            errors.push(
                item.child("subPathExpr")
                    .invalid(expression, "subPathExpr and subPath are mutually exclusive"),
            );
        }
        descending_path(expression, &path.child("subPathExpr"), errors);
    }
}

fn propagation(mount: &VolumeMount, container: &Container, path: &Path, errors: &mut ErrorList) {
    if let Some(propagation) = &mount.mount_propagation {
        let path = path.child("mountPropagation");
        check::one_of(
            propagation,
            &["Bidirectional", "HostToContainer", "None"],
            &path,
            errors,
        );
        let is_privileged = container
            .security_context
            .as_ref()
            .is_some_and(|context| context.privileged == Some(true));
        if propagation == "Bidirectional" && !is_privileged {
            errors.push(path.forbidden(
                "Bidirectional mount propagation is available only to privileged containers",
            ));
        }
    }
    let path = path.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.push(path.forbidden("may only be specified when readOnly is true"));
            }
            if !matches!(mount.mount_propagation.as_deref(), None | Some("None")) {
                errors.push(path.forbidden(
                    "may only be specified when mountPropagation is None or not specified",
                ));
            }
        }
        Some(other) => {
            errors.push(path.not_supported(other, &["Disabled", "Enabled", "IfPossible"]));
        }
    }
}

/// `volumeDevices` of a container.
pub fn devices(container: &Container, volumes: &Volumes<'_>, path: &Path, errors: &mut ErrorList) {
    let mounts = list(&container.volume_mounts);
    let devices = list(&container.volume_devices);
    for (index, device) in devices.iter().enumerate() {
        let path = path.index(index);
        let (name, device_path) = (device.name.as_str(), device.device_path.as_str());
        let earlier = &devices[..index];
        let volume = volumes.iter().find(|volume| volume.name == name);
        let name_path = path.child("name");
        let device_path_path = path.child("devicePath");
        check::required(name, &name_path, errors);
        if !name.is_empty() && earlier.iter().any(|other| other.name == name) {
            errors.push(name_path.invalid(name, "must be unique"));
        }
        match volume {
            None => errors.push(name_path.not_found(name)),
            Some(volume)
                if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() =>
            {
                errors.push(name_path.invalid(
                    name,
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for \
                     block mode",
                ));
            }
            Some(_) => {}
        }
        check::required(device_path, &device_path_path, errors);
        if earlier.iter().any(|other| other.device_path == device_path) {
            errors.push(device_path_path.invalid(device_path, "must be unique"));
        }
        if device_path.split('/').any(|part| part == "..") {
            errors.push(device_path_path.invalid(device_path, "can not contain backsteps ('..')"));
        }
        if mounts.iter().any(|mount| mount.name == name) {
            errors.push(name_path.invalid(name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| mount.mount_path == device_path) {
            errors.push(device_path_path.invalid(
                device_path,
                "must not already exist as a path in volumeMounts",
            ));
        }
    }
}
