//! PriorityLevelConfiguration.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{PriorityLevelConfiguration, QueuingConfiguration};
use serde_json::Value;

use crate::{
    field::ErrorList,
    shape,
    strategy::{Behaviour, Column, Shape, StatusMeta, Subresource},
    table::{AGE, NAME, age, column, name},
    zero::default_number,
};

impl Behaviour for PriorityLevelConfiguration {
    const SHAPE: Shape<Self> = shape!(generation: spec, status, StatusMeta::KeepAll);

    fn default_fields(&mut self) {
        let Some(spec) = &mut self.spec else {
            return;
        };
        if let Some(exempt) = &mut spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        let Some(limited) = &mut spec.limited else {
            return;
        };
        limited.nominal_concurrency_shares.get_or_insert(30);
        limited.lendable_percent.get_or_insert(0);
        let response = limited.limit_response.as_mut();
        if let Some(queuing) = response.and_then(|response| response.queuing.as_mut()) {
            default_number(&mut queuing.hand_size, 8);
            default_number(&mut queuing.queues, 64);
            default_number(&mut queuing.queue_length_limit, 50);
        }
    }

    fn validate(&self) -> ErrorList {
        validation::object(self)
    }

    fn validate_subresource(&self, _old: &Self, _subresource: Subresource) -> ErrorList {
        validation::status(self)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Type",
                "string",
                "`type` indicates whether this priority level is subject to limitation on request execution.  A value of `\"Exempt\"` means that requests of this priority level are not subject to a limit (and thus are never queued) and do not detract from the capacity made available to other priority levels.  A value of `\"Limited\"` means that (a) requests of this priority level _are_ subject to limits and (b) some of the server's limited capacity is made available exclusively to this priority level. Required.",
            ),
            column(
                "NominalConcurrencyShares",
                "string",
                "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) of this level. This is the number of execution seats available at this priority level. This is used both for requests dispatched from this priority level as well as requests dispatched from other priority levels borrowing seats from this level. The server's concurrency limit (ServerCL) is divided among the Limited priority levels in proportion to their NCS values:\n\nNominalCL(i)  = ceil( ServerCL * NCS(i) / sum_ncs ) sum_ncs = sum[priority level k] NCS(k)\n\nBigger numbers mean a larger nominal concurrency limit, at the expense of every other priority level.\n\nIf not specified, this field defaults to a value of 30.\n\nSetting this field to zero supports the construction of a \"jail\" for this priority level that is used to hold some request(s)",
            ),
            column(
                "Queues",
                "string",
                "`queues` is the number of queues for this priority level. The queues exist independently at each apiserver. The value must be positive.  Setting it to 1 effectively precludes shufflesharding and thus makes the distinguisher method of associated flow schemas irrelevant.  This field has a default value of 64.",
            ),
            column(
                "HandSize",
                "string",
                "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.  When enqueuing a request at this priority level the request's flow identifier (a string pair) is hashed and the hash value is used to shuffle the list of queues and deal a hand of the size specified here.  The request is put into one of the shortest queues in that hand. `handSize` must be no larger than `queues`, and should be significantly smaller (so that a few heavy flows do not saturate most of the queues).  See the user-facing documentation for more extensive guidance on setting this field.  This field has a default value of 8.",
            ),
            column(
                "QueueLengthLimit",
                "string",
                "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this priority level at a time; excess requests are rejected.  This value must be positive.  If not specified, it will be defaulted to 50.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let limited = spec.and_then(|spec| spec.limited.as_ref());
        let queuing = limited
            .and_then(|limited| limited.limit_response.as_ref())
            .and_then(|response| response.queuing.as_ref());
        let queue = |get: fn(&QueuingConfiguration) -> Option<i32>| {
            queuing.map_or_else(
                || Value::from("<none>"),
                |queuing| Value::from(get(queuing).unwrap_or_default()),
            )
        };
        vec![
            name(&self.metadata),
            Value::from(spec.map_or("", |spec| &spec.type_)),
            limited.map_or_else(
                || Value::from("<none>"),
                |limited| Value::from(limited.nominal_concurrency_shares),
            ),
            queue(|queuing| queuing.queues),
            queue(|queuing| queuing.hand_size),
            queue(|queuing| queuing.queue_length_limit),
            age(&self.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<PriorityLevelConfiguration>(include_str!(
            "../../testdata/priority_level_configuration.yaml"
        ));
    }
}
