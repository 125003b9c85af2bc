//! CSINode.

use k8s_openapi::api::storage::v1::CSINode;

use crate::strategy::Behaviour;

impl Behaviour for CSINode {}
