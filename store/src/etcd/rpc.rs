//! The part of etcd's gRPC interface that the store needs: three calls of `etcdserverpb.KV`,
//! the watch stream, and how large the database is. Names and numbers are those of etcd's `rpc.proto` and `kv.proto`.
//!
//! Written out here rather than generated: it is small, and building needs no etcd definitions
//! and what those import.

use bytes::Bytes;
use prost::{Message, Oneof};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery,
    metadata::MetadataValue, transport::Channel,
};
use tonic_prost::ProstCodec;

/// Requests that a watch stream may have under way.
const WATCH_REQUESTS: usize = 4;

#[derive(Clone, PartialEq, Message)]
pub struct ResponseHeader {
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub version: i64,
    // Not `Bytes`: those would keep the whole message alive as long as one of its values.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub limit: i64,
    #[prost(int64, tag = "4")]
    pub revision: i64,
    #[prost(bool, tag = "9")]
    pub count_only: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    /// Bytes of the database file.
    #[prost(int64, tag = "3")]
    pub db_size: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RequestOp {
    #[prost(oneof = "Operation", tags = "1, 2, 3")]
    pub operation: Option<Operation>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Operation {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    Delete(DeleteRangeRequest),
}

#[derive(Clone, PartialEq, Message)]
pub struct ResponseOp {
    /// Of the possible responses only this is looked at.
    #[prost(message, optional, tag = "1")]
    pub range: Option<RangeResponse>,
}

/// What a key is compared with, always for equality (`result` 0).
#[derive(Clone, PartialEq, Message)]
pub struct Compare {
    /// `VERSION` 0, `CREATE` 1, `MOD` 2.
    #[prost(int32, tag = "2")]
    pub target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(oneof = "Target", tags = "4, 5, 6")]
    pub value: Option<Target>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub enum Target {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
}

impl Compare {
    pub fn equal(key: &str, value: Target) -> Self {
        Compare {
            target: match value {
                Target::Version(_) => 0,
                Target::CreateRevision(_) => 1,
                Target::ModRevision(_) => 2,
            },
            key: key.into(),
            value: Some(value),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CompactionRequest {
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct CompactionResponse {}

#[derive(Clone, PartialEq, Message)]
pub struct WatchRequest {
    #[prost(oneof = "WatchCall", tags = "1, 3")]
    pub call: Option<WatchCall>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum WatchCall {
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
    #[prost(bool, tag = "6")]
    pub prev_kv: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchProgressRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// `PUT` 0, `DELETE` 1.
    #[prost(int32, tag = "1")]
    pub event_type: i32,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
    #[prost(message, optional, tag = "3")]
    pub prev_kv: Option<KeyValue>,
}

/// The calls. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

/// A watch under way. Dropping it ends it.
pub struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Client {
    pub fn new(channel: Channel) -> Self {
        Client { channel }
    }

    /// The client with its connection ready; listings and large objects may be of any size.
    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    async fn unary<Q, R>(&self, path: &'static str, message: Q) -> Result<R, Status>
    where
        Q: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, R>::default();
        let mut grpc = self.ready().await?;
        let response = grpc.unary(needs_leader(Request::new(message)), path, codec);
        Ok(response.await?.into_inner())
    }

    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.unary("/etcdserverpb.KV/Range", request).await
    }

    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.unary("/etcdserverpb.KV/Txn", request).await
    }

    pub async fn compact(&self, revision: i64) -> Result<CompactionResponse, Status> {
        let request = CompactionRequest { revision };
        self.unary("/etcdserverpb.KV/Compact", request).await
    }

    /// How the member that answers is.
    pub async fn status(&self) -> Result<StatusResponse, Status> {
        let request = StatusRequest {};
        self.unary("/etcdserverpb.Maintenance/Status", request)
            .await
    }

    pub async fn watch(&self, create: WatchCreateRequest) -> Result<WatchStream, Status> {
        let (requests, sent) = mpsc::channel(WATCH_REQUESTS);
        let stream = WatchStream::send(&requests, WatchCall::Create(create));
        stream.await?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        let request = needs_leader(Request::new(ReceiverStream::new(sent)));
        let mut grpc = self.ready().await?;
        let responses = grpc.streaming(request, path, codec).await?.into_inner();
        Ok(WatchStream {
            requests,
            responses,
        })
    }
}

impl WatchStream {
    /// The next response; `None` when etcd has ended the stream.
    pub async fn message(&mut self) -> Result<Option<WatchResponse>, Status> {
        self.responses.message().await
    }

    /// Asks for a response that says how far the watch is.
    pub async fn request_progress(&self) -> Result<(), Status> {
        let call = WatchCall::Progress(WatchProgressRequest {});
        WatchStream::send(&self.requests, call).await
    }

    async fn send(requests: &mpsc::Sender<WatchRequest>, call: WatchCall) -> Result<(), Status> {
        let request = WatchRequest { call: Some(call) };
        let sent = requests.send(request).await;
        sent.map_err(|_| Status::unavailable("the watch stream is closed"))
    }
}

/// A member of the cluster that is cut off from the others answers with an error.
fn needs_leader<T>(mut request: Request<T>) -> Request<T> {
    let value = MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", value);
    request
}
