//! Names outside the cluster: asked of the node's own name servers, with a small cache.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, Record, RecordType},
};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    system_conf::parse_resolv_conf,
};
use parking_lot::Mutex;

/// How long one name server may take, and how often all of them are tried.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// Answers kept.
const CACHE: u64 = 1024;
/// The resolver configuration is looked at again after this long, when a query comes.
const FRESH: Duration = Duration::from_secs(5);

/// What the outside said.
pub struct Outside {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
}

/// Asks the name servers of a `resolv.conf`, which may change at any time.
pub struct Forwarder {
    resolv_conf: PathBuf,
    /// Our own address: asking ourselves would never end.
    own: IpAddr,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    looked: Option<Instant>,
    modified: Option<SystemTime>,
    /// `None` when there is no name server to ask.
    resolver: Option<Arc<TokioResolver>>,
}

impl Forwarder {
    pub fn new(resolv_conf: PathBuf, own: IpAddr) -> Self {
        Forwarder {
            resolv_conf,
            own,
            current: Mutex::default(),
        }
    }

    pub async fn ask(&self, name: &Name, kind: RecordType) -> Outside {
        let failed = Outside {
            code: ResponseCode::ServFail,
            answers: Vec::new(),
        };
        let Some(resolver) = self.resolver() else {
            return failed;
        };
        match resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => Outside {
                code: ResponseCode::NoError,
                answers: lookup.answers().to_vec(),
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Outside {
                code: none.response_code,
                answers: Vec::new(),
            },
            Err(error) => {
                tracing::debug!(%name, %kind, %error, "no name server answers");
                failed
            }
        }
    }

    fn resolver(&self) -> Option<Arc<TokioResolver>> {
        let mut current = self.current.lock();
        if current
            .looked
            .is_none_or(|looked| looked.elapsed() >= FRESH)
        {
            let modified = std::fs::metadata(&self.resolv_conf)
                .and_then(|metadata| metadata.modified())
                .ok();
            if current.looked.is_none() || modified != current.modified {
                current.resolver = self.read();
                current.modified = modified;
            }
            current.looked = Some(Instant::now());
        }
        current.resolver.clone()
    }

    fn read(&self) -> Option<Arc<TokioResolver>> {
        let content = std::fs::read(&self.resolv_conf).ok()?;
        let (config, _) = parse_resolv_conf(content).ok()?;
        let (_, _, servers) = config.into_parts();
        let servers: Vec<_> = servers
            .into_iter()
            .filter(|server| server.ip != self.own)
            .collect();
        if servers.is_empty() {
            return None;
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = CACHE;
        options.use_hosts_file = ResolveHosts::Never;
        options.ndots = 0;
        options.preserve_intermediates = true;
        builder.build().ok().map(Arc::new)
    }
}
