//! The store that the flags ask for, and how it is encrypted.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use coracle_apiserver::{
    encryption::{Control, EncryptedStore, OwnKeys, Rules},
    pki::shared::{self, Places},
};
use coracle_store::{
    ClientFiles, EtcdConfig, EtcdStore, HistoryLimits, MemoryStore, SqliteConfig, SqliteStore,
    Store,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Settings, token};
use crate::{
    data_dir,
    file_watch::{self, FileWatch},
};

/// Keys that live in memory only, so that an idle cluster writes nothing to its disk.
const VOLATILE: [&str; 2] = ["/registry/leases/", "/registry/events/"];

/// Whether other servers may keep their objects in the same store.
pub fn is_shared(settings: &Settings) -> bool {
    let endpoint = settings.args.store.datastore_endpoint.as_deref();
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http"))
}

/// A store and what belongs to it.
pub struct Datastore {
    pub store: Arc<dyn Store>,
    /// `None`: nothing is encrypted.
    pub encryption: Option<Arc<Control>>,
    /// The file to follow, and its content.
    reload: Option<(PathBuf, String)>,
}

impl Datastore {
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let args = &settings.args.store;
        match args.datastore_endpoint.as_deref() {
            Some("memory://") => {
                info!("objects are kept in memory only");
                let store = Arc::new(MemoryStore::new(HistoryLimits::default()));
                Self::encrypted(settings, store, false)
            }
            Some(endpoints) if endpoints.starts_with("http") => {
                let config = etcd(settings, endpoints);
                info!(
                    endpoints = config.endpoints.join(","),
                    "objects are kept in etcd"
                );
                let store = EtcdStore::connect(&config).await?;
                Self::encrypted(settings, Arc::new(store), false)
            }
            Some(other) => anyhow::bail!(
                "--datastore-endpoint {other} is not supported: give http:// or https:// for etcd, memory://, or leave it out"
            ),
            None => {
                let store = embedded(settings).await?;
                Self::encrypted(settings, Arc::new(store), true)
            }
        }
    }

    fn encrypted(
        settings: &Settings,
        store: Arc<dyn Store>,
        embedded: bool,
    ) -> anyhow::Result<Self> {
        let args = &settings.args.store;
        let keys = settings.layout.encryption_keys();
        if let Some(path) = &args.encryption_provider_config {
            let text = file_watch::read("--encryption-provider-config", path)?;
            let own = OwnKeys::existing(&keys)?;
            let rules = Control::rules(&text, own.as_ref())
                .with_context(|| format!("--encryption-provider-config {}", path.display()))?;
            let store = EncryptedStore::new(store, rules);
            let reload = args.encryption_provider_config_automatic_reload;
            return Ok(Datastore {
                encryption: Some(Arc::new(Control::with_configuration(store.clone(), own))),
                store: Arc::new(store),
                reload: reload.then(|| (path.clone(), text)),
            });
        }
        let (rules, own) = if embedded {
            if let Some(folder) = keys.parent() {
                data_dir::create_private(folder)?;
            }
            let own = OwnKeys::open(&keys)?;
            (own.rules()?, Some(own))
        } else {
            (Rules::default(), None)
        };
        let store = EncryptedStore::new(store, rules);
        Ok(Datastore {
            encryption: own.map(|own| Arc::new(Control::with_own_keys(store.clone(), own))),
            store: Arc::new(store),
            reload: None,
        })
    }

    /// Makes this server one with those that keep their objects in the same store, so that tokens
    /// and certificates of one are good for all.
    pub async fn agree(&self, settings: &Settings) -> anyhow::Result<()> {
        if !is_shared(settings) {
            return Ok(());
        }
        let places = Places {
            tls: settings.layout.tls(),
            encryption_keys: settings.layout.encryption_keys(),
        };
        let token = token::of(settings)?;
        shared::agree(&*self.store, &places, &token).await?;
        token::keep(settings, &token)?;
        info!("the servers that share the datastore have one authority");
        Ok(())
    }

    /// Follows the configuration of encryption, when that was asked for.
    pub fn reloader(&self) -> Option<Reloader> {
        let (path, text) = self.reload.clone()?;
        Some(Reloader {
            control: self.encryption.clone()?,
            path,
            text,
        })
    }
}

/// Goes on with `--encryption-provider-config` as it is now.
#[derive(Clone)]
pub struct Reloader {
    control: Arc<Control>,
    path: PathBuf,
    text: String,
}

impl Reloader {
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut watch = FileWatch::new(&self.path, self.text);
        loop {
            let text = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                text = watch.changed() => text,
            };
            let file = self.path.display();
            match self.control.reload(&text).await {
                Ok(()) => info!(%file, "the configuration of encryption was read again"),
                Err(error) => {
                    error!(%file, %error, "the configuration of encryption cannot be used, going on with the former one");
                }
            }
        }
    }
}

fn etcd(settings: &Settings, endpoints: &str) -> EtcdConfig {
    let args = &settings.args.store;
    let files = args.datastore_certfile.as_ref();
    let files = files.zip(args.datastore_keyfile.as_ref());
    EtcdConfig {
        ca_file: args.datastore_cafile.clone(),
        client_files: files.map(|(certificate, key)| ClientFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        ..EtcdConfig::new(endpoints.split(',').map(str::to_owned).collect())
    }
}

async fn embedded(settings: &Settings) -> anyhow::Result<SqliteStore> {
    let path = settings.layout.database();
    if let Some(folder) = path.parent() {
        data_dir::create_private(folder)?;
    }
    let durable = settings.args.store.durable_leases_and_events;
    let volatile: &[&str] = if durable { &[] } else { &VOLATILE };
    let config = SqliteConfig {
        volatile: volatile.iter().map(|&prefix| prefix.to_owned()).collect(),
        ..SqliteConfig::default()
    };
    let opened = path.clone();
    let store = tokio::task::spawn_blocking(move || SqliteStore::open(&opened, config))
        .await
        .context("opening the store failed")??;
    info!(file = %path.display(), "the store is open");
    Ok(store)
}
