//! ControllerRevision.

use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::strategy::Behaviour;

impl Behaviour for ControllerRevision {}
