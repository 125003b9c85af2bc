//! One query: from the zone's index or from the outside, to a response.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_proto::{
    op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode},
    rr::{Name, Record, RecordType},
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};

use crate::{
    answer::{self, Answer},
    forward::Forwarder,
    index::Index,
};

/// Bytes of a UDP answer that any network carries whole.
const UDP_PAYLOAD: u16 = 1232;
/// Aliases followed from one name.
const MAX_ALIASES: usize = 8;

/// Answers every query that arrives.
pub struct Handler {
    zone: Name,
    index: Arc<Index>,
    forwarder: Forwarder,
    /// Turns the order of addresses, so that clients that take the first spread out.
    turn: AtomicUsize,
}

#[derive(Default)]
struct Reply {
    code: ResponseCode,
    /// Whether the answer is from our own zone.
    authoritative: bool,
    answers: Vec<Record>,
    soa: Option<Record>,
}

impl Handler {
    pub fn new(mut zone: Name, index: Arc<Index>, forwarder: Forwarder) -> Self {
        zone.set_fqdn(true);
        Handler {
            zone,
            index,
            forwarder,
            turn: AtomicUsize::new(0),
        }
    }

    async fn reply(&self, name: &Name, kind: RecordType) -> Reply {
        let mut reply = Reply::default();
        let mut name = name.clone();
        for _ in 0..MAX_ALIASES {
            match self.step(&name, kind, &mut reply).await {
                Some(target) => name = target,
                None => break,
            }
        }
        reply
    }

    /// Adds what one name stands for; the next name when it is an alias.
    async fn step(&self, name: &Name, kind: RecordType, reply: &mut Reply) -> Option<Name> {
        let Some(labels) = answer::below(name, &self.zone) else {
            if let Some(address) = reverse_address(name) {
                let mut records = answer::reverse(&self.index, &self.zone, name, address);
                if kind == RecordType::PTR && !records.is_empty() {
                    reply.authoritative = true;
                    reply.answers.append(&mut records);
                    return None;
                }
            }
            let outside = self.forwarder.ask(name, kind).await;
            reply.code = outside.code;
            reply.answers.extend(outside.answers);
            return None;
        };
        reply.authoritative = true;
        match answer::answer(&self.index, &self.zone, name, &labels, kind) {
            Answer::Records(mut records) => {
                if records.len() > 1 {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed) % records.len();
                    records.rotate_left(turn);
                }
                if records.is_empty() {
                    reply.soa = Some(answer::soa(&self.zone));
                }
                reply.answers.append(&mut records);
                None
            }
            Answer::Alias { record, target } => {
                reply.answers.push(*record);
                (kind != RecordType::CNAME).then_some(target)
            }
            Answer::NxDomain => {
                reply.code = ResponseCode::NXDomain;
                reply.soa = Some(answer::soa(&self.zone));
                None
            }
        }
    }
}

/// The address whose reverse name this is.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        let mut reply = Reply::default();
        match request.request_info() {
            Ok(info) if request.metadata.op_code == OpCode::Query => {
                // The name as the client wrote it: some check that its letters' case comes back.
                reply = self
                    .reply(info.query.original().name(), info.query.query_type())
                    .await;
            }
            Ok(_) => reply.code = ResponseCode::NotImp,
            Err(_) => reply.code = ResponseCode::FormErr,
        }
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        let mut edns = Edns::new();
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(asked) = &request.edns {
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_PAYLOAD));
            edns.set_version(0);
            builder.edns(&edns);
        }
        let response = builder.build(metadata, &reply.answers, [], &reply.soa, []);
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "cannot send the answer");
                let mut metadata =
                    Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
                metadata.response_code = ResponseCode::ServFail;
                ResponseInfo::from(Header {
                    metadata,
                    counts: HeaderCounts::default(),
                })
            }
        }
    }
}
