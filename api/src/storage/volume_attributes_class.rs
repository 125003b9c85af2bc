//! VolumeAttributesClass.

use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use crate::strategy::Behaviour;

impl Behaviour for VolumeAttributesClass {}
