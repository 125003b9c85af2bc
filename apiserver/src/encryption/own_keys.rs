//! The keys of an embedded store, made at the first start. The file is an upstream
//! EncryptionConfiguration, as k3s keeps one: Secrets are encrypted, and values from before can
//! be read.
//!
//! The cipher is secretbox: it needs no processor support to be fast, and its nonces are long
//! enough to be random however many values a key encrypts.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{
    ConfigurationError, Rules,
    configuration::{Configuration, Identity, Keys, NamedKey, ProviderEntry, Resources},
};

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnKeysError {
    #[error("cannot {what} the encryption keys {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the encryption keys {} cannot be used: {source}", path.display())]
    Configuration {
        path: PathBuf,
        source: ConfigurationError,
    },
    #[error("the encryption keys {} are not as they were written: they have no secretbox key", .0.display())]
    NoKey(PathBuf),
}

/// The file of keys. The first key is the one in use.
#[derive(Clone, Debug)]
pub struct OwnKeys {
    path: PathBuf,
    configuration: Configuration,
}

impl OwnKeys {
    /// Reads the file, or makes it with a new key, readable by its owner only.
    pub fn open(path: &Path) -> Result<Self, OwnKeysError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys = OwnKeys {
                    path: path.to_owned(),
                    configuration: configuration(vec![new_key()]),
                };
                keys.write()?;
                Ok(keys)
            }
            Err(source) => Err(failed("read", path)(source)),
        }
    }

    /// Reads the file if there is one.
    pub fn existing(path: &Path) -> Result<Option<Self>, OwnKeysError> {
        path.exists().then(|| Self::open(path)).transpose()
    }

    fn parse(path: &Path, text: &str) -> Result<Self, OwnKeysError> {
        let configuration =
            Configuration::parse(text).map_err(|source| OwnKeysError::Configuration {
                path: path.to_owned(),
                source,
            })?;
        let keys = OwnKeys {
            path: path.to_owned(),
            configuration,
        };
        if keys.keys().is_empty() {
            return Err(OwnKeysError::NoKey(path.to_owned()));
        }
        Ok(keys)
    }

    pub fn rules(&self) -> Result<Rules, OwnKeysError> {
        Rules::new(&self.configuration).map_err(|source| OwnKeysError::Configuration {
            path: self.path.clone(),
            source,
        })
    }

    fn keys(&self) -> &[NamedKey] {
        let mut entries = self.configuration.resources.iter();
        let mut providers = entries
            .next()
            .into_iter()
            .flat_map(|entry| &entry.providers);
        let secretbox = providers.find_map(|provider| provider.secretbox.as_ref());
        secretbox.map_or(&[], |secretbox| &secretbox.keys)
    }

    /// Whether there are keys beside the one in use: a rotation has not come to its end.
    pub fn has_old_keys(&self) -> bool {
        self.keys().len() > 1
    }

    /// Puts a new key into use; the others can still be read with. When it returns, the file is
    /// on the device.
    pub(super) fn add_key(&mut self) -> Result<(), OwnKeysError> {
        let mut keys = vec![new_key()];
        keys.extend_from_slice(self.keys());
        self.replace(keys)
    }

    /// Forgets all keys but the one in use.
    pub(super) fn drop_old_keys(&mut self) -> Result<(), OwnKeysError> {
        let keys = self.keys()[..1].to_vec();
        self.replace(keys)
    }

    fn replace(&mut self, keys: Vec<NamedKey>) -> Result<(), OwnKeysError> {
        let new = OwnKeys {
            path: self.path.clone(),
            configuration: configuration(keys),
        };
        new.write()?;
        *self = new;
        Ok(())
    }

    /// The file is the old one or the new one, whenever the power fails.
    fn write(&self) -> Result<(), OwnKeysError> {
        let json = serde_json::to_vec(&self.configuration).unwrap_or_default();
        let new = self.path.with_extension("new");
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let written = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            File::open(folder)?.sync_all()
        };
        written().map_err(failed("write", &self.path))
    }
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> OwnKeysError {
    move |source| OwnKeysError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

fn configuration(keys: Vec<NamedKey>) -> Configuration {
    let secretbox = ProviderEntry {
        secretbox: Some(Keys { keys }),
        ..ProviderEntry::default()
    };
    let identity = ProviderEntry {
        identity: Some(Identity {}),
        ..ProviderEntry::default()
    };
    Configuration::new(vec![Resources {
        resources: vec!["secrets".to_owned()],
        providers: vec![secretbox, identity],
    }])
}

/// # Panics
/// The system has no randomness, and nothing can be kept secret then.
fn new_key() -> NamedKey {
    // Two keys of one second must not share a name.
    let (mut secret, mut mark) = ([0; 32], [0; 4]);
    let random = SystemRandom::new();
    for bytes in [&mut secret[..], &mut mark[..]] {
        random.fill(bytes).expect("the system gives random numbers");
    }
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    NamedKey {
        name: format!("coracle-{now}-{:08x}", u32::from_ne_bytes(mark)),
        secret: STANDARD.encode(secret),
    }
}
