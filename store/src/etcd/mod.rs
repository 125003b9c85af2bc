//! The store in an etcd cluster, for several servers: etcd's own revisions, upstream's keys.
//!
//! Enter at [`EtcdStore::connect`]. Every call is a round trip: reads are linearizable because
//! etcd's are. Needs etcd 3.4.25, 3.5.8 or newer: older ones may report progress of a watch too
//! early.

mod compact;
mod convert;
mod rpc;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{Compare, Error, KeyValue, Listing, Revision, Store, Transaction, Watch, Write, stage};
use convert::{backend, key_value, revision_of};
use rpc::{
    Client, DeleteRangeRequest, Operation, PutRequest, RangeRequest, RequestOp, ResponseOp,
    TxnRequest,
};

/// Keys of one page of a listing.
const PAGE: i64 = 1000;
/// A connection that is silent for this long is probed, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is only shown does not wait longer for a silent etcd.
const SIZE_DEADLINE: Duration = Duration::from_secs(1);
/// Upstream's interval: history is kept for five to ten minutes.
const COMPACT_EVERY: Duration = Duration::from_secs(5 * 60);

/// Where etcd is and how to speak to it.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// For example `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// The authorities that sign etcd's certificate; `None`: those of the host.
    pub ca_file: Option<PathBuf>,
    /// The client certificate and its key.
    pub client_files: Option<ClientFiles>,
    /// How long history is kept, at least.
    pub compact_every: Duration,
}

/// A client certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl EtcdConfig {
    /// Without TLS files and with upstream's interval.
    pub fn new(endpoints: Vec<String>) -> Self {
        EtcdConfig {
            endpoints,
            ca_file: None,
            client_files: None,
            compact_every: COMPACT_EVERY,
        }
    }
}

/// The store in etcd.
pub struct EtcdStore {
    client: Client,
    shared: Arc<Shared>,
    compactor: AbortHandle,
}

/// What the watches know of the store that they belong to.
struct Shared {
    closed: CancellationToken,
    /// The latest revision that someone was told.
    told: tokio::sync::watch::Sender<Revision>,
}

impl EtcdStore {
    /// Connects, and starts the task that compacts etcd's history.
    ///
    /// # Errors
    /// [`Error::Backend`] when a file cannot be read or etcd does not answer.
    pub async fn connect(config: &EtcdConfig) -> Result<Self, Error> {
        let tls = tls(config)?;
        let endpoints: Vec<Endpoint> = config
            .endpoints
            .iter()
            .map(|address| endpoint(address, tls.as_ref()))
            .collect::<Result<_, _>>()?;
        let client = Client::new(Channel::balance_list(endpoints.into_iter()));
        // The connection is made on first use: find out now whether there is anyone.
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, current(&client)).await;
        let revision = answer.map_err(|_| {
            let endpoints = config.endpoints.join(", ");
            Error::Backend(format!("etcd at {endpoints} does not answer"))
        })??;
        let compactor = tokio::spawn(compact::run(client.clone(), config.compact_every));
        Ok(EtcdStore {
            client,
            shared: Arc::new(Shared {
                closed: CancellationToken::new(),
                told: tokio::sync::watch::channel(revision).0,
            }),
            compactor: compactor.abort_handle(),
        })
    }

    fn open(&self) -> Result<(), Error> {
        if self.shared.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        Ok(())
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.compactor.abort();
    }
}

fn endpoint(address: &str, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, Error> {
    let invalid = |error: tonic::transport::Error| {
        Error::Backend(format!("etcd endpoint {address}: {error}"))
    };
    let mut endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(invalid)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    if let Some(tls) = tls.filter(|_| address.starts_with("https://")) {
        endpoint = endpoint.tls_config(tls.clone()).map_err(invalid)?;
    }
    Ok(endpoint)
}

/// `None` when no endpoint asks for TLS.
fn tls(config: &EtcdConfig) -> Result<Option<ClientTlsConfig>, Error> {
    let read = |path: &PathBuf| {
        std::fs::read(path)
            .map_err(|error| Error::Backend(format!("cannot read {}: {error}", path.display())))
    };
    let https = |address: &String| address.starts_with("https://");
    if !config.endpoints.iter().any(https) {
        return Ok(None);
    }
    let mut tls = ClientTlsConfig::new();
    tls = match &config.ca_file {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.with_native_roots(),
    };
    if let Some(files) = &config.client_files {
        let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Ok(Some(tls))
}

async fn current(client: &Client) -> Result<Revision, Error> {
    let request = RangeRequest {
        key: vec![0],
        count_only: true,
        ..RangeRequest::default()
    };
    let response = client
        .range(request)
        .await
        .map_err(|status| backend(&status))?;
    Ok(revision_of(response.header.as_ref()))
}

fn read(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        ..RangeRequest::default()
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn revision(&self) -> Result<Revision, Error> {
        self.open()?;
        let revision = current(&self.client).await?;
        // Whoever asks wants to see a watch get there: see `watch`.
        self.shared.told.send_if_modified(|told| {
            let newer = revision > *told;
            *told = revision.max(*told);
            newer
        });
        Ok(revision)
    }

    async fn get(&self, key: &str) -> Result<Option<Arc<KeyValue>>, Error> {
        self.open()?;
        let mut response = self
            .client
            .range(read(key))
            .await
            .map_err(|status| backend(&status))?;
        response.kvs.pop().map(key_value).transpose()
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.open()?;
        let mut request = RangeRequest {
            key: convert::prefix_start(prefix),
            range_end: convert::prefix_end(prefix),
            limit: PAGE,
            ..RangeRequest::default()
        };
        let mut listing = Listing {
            revision: 0,
            items: Vec::new(),
        };
        loop {
            let page = self
                .client
                .range(request.clone())
                .await
                .map_err(|status| backend(&status))?;
            if request.revision == 0 {
                listing.revision = revision_of(page.header.as_ref());
                // The other pages as the first one saw them.
                request.revision = listing.revision.cast_signed();
            }
            for item in page.kvs {
                listing.items.push(key_value(item)?);
            }
            match listing.items.last() {
                Some(last) if page.more => {
                    request.key = last.key.as_bytes().to_vec();
                    request.key.push(0);
                }
                _ => return Ok(listing),
            }
        }
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        self.open()?;
        stage::reject_duplicates(&transaction.writes)?;
        let operation = |operation| RequestOp {
            operation: Some(operation),
        };
        let compares = &transaction.compares;
        let reads = compares.iter().map(|compare| {
            let (Compare::Absent(key) | Compare::ModRevision(key, _)) = compare;
            operation(Operation::Range(read(key)))
        });
        let writes = transaction.writes.into_iter().map(|write| {
            operation(match write {
                Write::Put { key, value } => Operation::Put(PutRequest {
                    key: key.as_bytes().into(),
                    value,
                }),
                Write::Delete { key } => Operation::Delete(DeleteRangeRequest {
                    key: key.as_bytes().into(),
                }),
            })
        });
        let request = TxnRequest {
            compare: compares.iter().map(convert::compare).collect(),
            success: writes.collect(),
            failure: reads.collect(),
        };
        let response = self
            .client
            .txn(request)
            .await
            .map_err(|status| backend(&status))?;
        if response.succeeded {
            return Ok(revision_of(response.header.as_ref()));
        }
        Err(conflict(compares, response.responses)?)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.open()?;
        watch::watch(self.client.clone(), self.shared.clone(), prefix, after).await
    }

    async fn size(&self) -> Option<u64> {
        let status = tokio::time::timeout(SIZE_DEADLINE, self.client.status()).await;
        u64::try_from(status.ok()?.ok()?.db_size).ok()
    }

    async fn close(&self) {
        self.compactor.abort();
        self.shared.closed.cancel();
    }
}

/// The first comparison that failed, from the keys as the failed transaction read them.
fn conflict(compares: &[Compare], responses: Vec<ResponseOp>) -> Result<Error, Error> {
    for (compare, response) in compares.iter().zip(responses) {
        let read = response.range.and_then(|mut read| read.kvs.pop());
        let current = read.map(key_value).transpose()?;
        let (key, holds) = match compare {
            Compare::Absent(key) => (key, current.is_none()),
            Compare::ModRevision(key, revision) => {
                let at = current.as_ref().map(|current| current.mod_revision);
                (key, at == Some(*revision))
            }
        };
        if !holds {
            let key = key.clone();
            return Ok(Error::Conflict { key, current });
        }
    }
    Err(Error::Backend(
        "etcd refused a transaction whose comparisons hold".to_owned(),
    ))
}
