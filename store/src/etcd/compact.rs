//! Etcd keeps all history until it is told not to. One of the servers that share it does so,
//! by upstream's protocol, so that a kube-apiserver beside us takes turns too.

use std::time::Duration;

use tonic::Status;

use super::{
    convert::revision_of,
    rpc::{Client, Compare, Operation, PutRequest, RangeRequest, RequestOp, Target, TxnRequest},
};
use crate::Revision;

/// Its version counts the turns; whoever raises it compacts.
const KEY: &str = "compact_rev_key";

/// Compacts away what is older than one interval, for ever.
pub(super) async fn run(client: Client, every: Duration) {
    let mut turn = Turn::default();
    loop {
        tokio::time::sleep(every).await;
        match turn.take(&client).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "cannot compact etcd's history, trying later"),
        }
    }
}

#[derive(Default)]
struct Turn {
    /// The version of the key when it was last seen.
    version: i64,
    /// Where the store was then; 0 when that is not known.
    revision: Revision,
}

impl Turn {
    async fn take(&mut self, client: &Client) -> Result<(), Status> {
        let put = Operation::Put(PutRequest {
            key: KEY.into(),
            value: self.revision.to_string().into(),
        });
        let read = Operation::Range(RangeRequest {
            key: KEY.into(),
            ..RangeRequest::default()
        });
        let operation = |operation| RequestOp {
            operation: Some(operation),
        };
        let response = client
            .txn(TxnRequest {
                compare: vec![Compare::equal(KEY, Target::Version(self.version))],
                success: vec![operation(put)],
                failure: vec![operation(read)],
            })
            .await?;
        let reached = revision_of(response.header.as_ref());
        let before = std::mem::replace(&mut self.revision, reached);
        if response.succeeded {
            self.version += 1;
            if before != 0 {
                client.compact(before.cast_signed()).await?;
                tracing::debug!(revision = before, "compacted etcd's history");
            }
            return Ok(());
        }
        // Another server was faster: it is its turn until it stops.
        let read = response.responses.first();
        let known = read.and_then(|read| read.range.as_ref()?.kvs.first());
        self.version = known.map_or(0, |known| known.version);
        Ok(())
    }
}
