//! VolumeAttachment.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeError};
use serde_json::Value;

use crate::{
    check,
    core::{
        persistent_volume::validation::{self as persistent_volume, Place},
        pod::validation::remote_volumes::csi_driver_name,
    },
    field::{ErrorList, Path},
    formats, internal, shape,
    strategy::{Behaviour, Column, Shape, StatusMeta, Subresource},
    table::{AGE, NAME, age, column, name},
    zero::text,
};

impl Behaviour for VolumeAttachment {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        csi_driver_name(&self.spec.attacher, &path.child("attacher"), &mut errors);
        let volume = &self.spec.source.persistent_volume_name;
        source(&self.spec.source, &path.child("source"), &mut errors);
        check::subdomain(&self.spec.node_name, &path.child("nodeName"), &mut errors);
        status(self, &mut errors);
        if let Some(volume) = volume {
            let path = path.child("source.persistentVolumeName");
            check::subdomain(volume, &path, &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = self.validate();
        let (new, old, path) = (&self.spec, &old.spec, Path::new("spec"));
        internal::immutable("VolumeAttachmentSpec", new, old, &path, &mut errors);
        errors
    }

    fn validate_subresource(&self, old: &Self, _subresource: Subresource) -> ErrorList {
        self.validate_update(old)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column {
                format: "name",
                ..column(
                    "Attacher",
                    "string",
                    "attacher indicates the name of the volume driver that MUST handle this request. This is the name returned by GetPluginName().",
                )
            },
            column(
                "PV",
                "string",
                "persistentVolumeName represents the name of the persistent volume to attach.",
            ),
            column(
                "Node",
                "string",
                "nodeName represents the node that the volume should be attached to.",
            ),
            column(
                "Attached",
                "boolean",
                "attached indicates the volume is successfully attached. This field must only be set by the entity completing the attach operation, i.e. the external-attacher.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(self.spec.attacher.clone()),
            Value::from(text(&self.spec.source.persistent_volume_name)),
            Value::from(self.spec.node_name.clone()),
            Value::from(self.status.as_ref().is_some_and(|status| status.attached)),
            age(&self.metadata, now),
        ]
    }
}

fn source(source: &VolumeAttachmentSource, path: &Path, errors: &mut ErrorList) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (&source.inline_volume_spec, &source.persistent_volume_name) {
        (None, None) => errors.push(path.required(ONE)),
        (Some(_), Some(_)) => errors.push(path.forbidden(ONE)),
        (None, Some(name)) if name.is_empty() => {
            let path = path.child("persistentVolumeName");
            errors.push(path.required("must specify non empty persistentVolumeName"));
        }
        (None, Some(_)) => {}
        (Some(spec), None) => {
            let path = path.child("inlineVolumeSpec");
            persistent_volume::spec(spec, Place::Inline, &path, errors);
        }
    }
}

fn status(attachment: &VolumeAttachment, errors: &mut ErrorList) {
    const MAX_BYTES: usize = 256 * 1024;
    let Some(status) = &attachment.status else {
        return;
    };
    let path = Path::new("status");
    let metadata = status.attachment_metadata.iter().flatten();
    if metadata
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>()
        > MAX_BYTES
    {
        errors.push(path.child("attachmentMetadata").too_long(MAX_BYTES));
    }
    let mut problem = |error: &Option<VolumeError>, path: &Path| {
        const MAX_MESSAGE: usize = 1024;
        let Some(error) = error else {
            return;
        };
        if text(&error.message).len() > MAX_MESSAGE {
            errors.push(path.child("message").too_long(MAX_BYTES));
        }
        if let Some(code) = error.error_code.filter(|code| *code < 0) {
            let range = formats::inclusive_range(0, i32::MAX.into());
            errors.push(path.child("errorCode").invalid(code, range));
        }
    };
    problem(&status.attach_error, &path.child("attachError"));
    problem(&status.detach_error, &path.child("detachError"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<VolumeAttachment>(include_str!(
            "../../testdata/volume_attachment.yaml"
        ));
    }
}
