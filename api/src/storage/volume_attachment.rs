//! VolumeAttachment.

use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};

impl Behaviour for VolumeAttachment {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);
}
