//! ValidatingAdmissionPolicyBinding.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
};

impl Behaviour for ValidatingAdmissionPolicyBinding {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "PolicyName",
                "string",
                "PolicyName indicates the policy definition which the policy binding binded to",
            ),
            column(
                "ParamRef",
                "string",
                "ParamRef indicates the param resource which sets the configuration param",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        let parameters = spec.param_ref.as_ref();
        vec![
            name(&self.metadata),
            Value::from(spec.policy_name.clone()),
            Value::from(super::parameters(parameters)),
            age(&self.metadata, now),
        ]
    }
}
