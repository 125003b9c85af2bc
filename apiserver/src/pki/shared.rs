//! What every server of a cluster must have alike, kept in the store that they share: the
//! authorities, the key that signs ServiceAccounts' tokens, and the keys of encryption at rest.
//!
//! Enter at [`agree`]. As in k3s, the value is under `/bootstrap/` and a hash of the cluster's
//! token, encrypted with a key that is derived from the token: whoever can read the store alone
//! learns nothing. The first server of a cluster puts its own there; every other takes them.

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use coracle_store::{Compare, Error as StoreError, Store, Transaction, Write};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    pbkdf2,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Authority, PkiError, files, service_account_key};

/// Where the values of all tokens are; there is only one.
const ROOT: &str = "/bootstrap/";
/// What a value begins with.
const VERSION: &[u8] = b"coracle:bootstrap:v1:";
/// Makes trying out tokens slow.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(200_000).expect("it is not zero");
const SALT: usize = 16;
const AUTHORITIES: [&str; 3] = ["server-ca", "client-ca", "request-header-ca"];
const SERVICE_KEY: &str = "service.key";

/// Why a server cannot join those that share its store.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    #[error(
        "the datastore belongs to a cluster with another token: give --token as its first server has it, in server/token of that server's data directory"
    )]
    WrongToken,
    #[error("{} is not that of the cluster in the datastore: this data directory was a cluster of its own; move {} away to join", file.display(), folder.display())]
    Differs { file: PathBuf, folder: PathBuf },
    #[error("what the servers share cannot be read from the datastore: {0}")]
    Damaged(String),
    #[error("the system gives no random numbers")]
    Random,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Where what is shared lies on this server.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder that [`Pki::open`](super::Pki::open) is given.
    pub tls: PathBuf,
    /// The file of keys of encryption at rest; shared only when it is there.
    pub encryption_keys: PathBuf,
}

/// The files by their names.
#[derive(Serialize, Deserialize)]
struct Bundle {
    tls: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption_keys: Option<String>,
}

/// Makes the files of this server those of the cluster, or the cluster's those of this server if
/// it is the first. Call it before anything is made of them.
///
/// # Errors
/// [`SharedError::WrongToken`] when the cluster has another token; then nothing was changed.
pub async fn agree(store: &dyn Store, places: &Places, token: &str) -> Result<(), SharedError> {
    let key = format!("{ROOT}{}", &hex(&Sha256::digest(token))[..12]);
    loop {
        let listing = store.list(ROOT).await?;
        // Of several that began at the same time the first counts.
        let first = listing.items.iter().min_by_key(|item| item.create_revision);
        match first {
            Some(item) if *item.key == *key => {
                let bundle = open(token, &key, &item.value)?;
                return write(places, &bundle);
            }
            Some(_) => {
                // Ours, if there is one, came too late.
                let writes = vec![Write::Delete { key: key.into() }];
                let deletion = Transaction {
                    compares: Vec::new(),
                    writes,
                    ..Transaction::default()
                };
                store.commit(deletion).await?;
                return Err(SharedError::WrongToken);
            }
            None => {
                let transaction = Transaction {
                    compares: vec![Compare::Absent(key.as_str().into())],
                    writes: vec![Write::Put {
                        key: key.as_str().into(),
                        value: seal(token, &key, &own(places)?)?.into(),
                    }],
                    ..Transaction::default()
                };
                match store.commit(transaction).await {
                    // What is there now is what counts, whosever it is.
                    Ok(_) | Err(StoreError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// What this server has, or makes. Nothing is written: others may be faster.
fn own(places: &Places) -> Result<Bundle, SharedError> {
    let folder = places.tls.with_extension("proposed");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PkiError::File { path, source }
    };
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let mut tls = BTreeMap::new();
    for name in names() {
        let (from, to) = (places.tls.join(&name), folder.join(&name));
        if let Some(text) = files::read(&from).map_err(failed(&from))? {
            files::write(&to, text.as_bytes()).map_err(failed(&to))?;
        }
    }
    for authority in AUTHORITIES {
        Authority::open(&folder, authority)?;
    }
    service_account_key(&folder)?;
    for name in names() {
        let file = folder.join(&name);
        let text = files::read(&file).map_err(failed(&file))?;
        tls.insert(name, text.unwrap_or_default());
    }
    fs::remove_dir_all(&folder).map_err(failed(&folder))?;
    let keys = &places.encryption_keys;
    Ok(Bundle {
        tls,
        encryption_keys: files::read(keys).map_err(failed(keys))?,
    })
}

fn names() -> impl Iterator<Item = String> {
    let of = |name: &str| [format!("{name}.crt"), format!("{name}.key")];
    let authorities = AUTHORITIES.into_iter().flat_map(of);
    authorities.chain([SERVICE_KEY.to_owned()])
}

/// Takes over the cluster's files, unless this server has others.
fn write(places: &Places, bundle: &Bundle) -> Result<(), SharedError> {
    let mut missing: Vec<(PathBuf, &str)> = Vec::new();
    let keys = bundle.encryption_keys.iter();
    let keys = keys.map(|text| (places.encryption_keys.clone(), text));
    let tls = bundle.tls.iter();
    let tls = tls
        .filter(|(name, _)| names().any(|known| known == **name))
        .map(|(name, text)| (places.tls.join(name), text));
    for (file, text) in tls.chain(keys) {
        let failed = |source| PkiError::File {
            path: file.clone(),
            source,
        };
        match files::read(&file).map_err(failed)? {
            Some(found) if found == *text => {}
            // The keys of encryption go on from what was shared: they are rotated.
            Some(_) if file == places.encryption_keys => {}
            Some(_) => {
                let folder = places.tls.clone();
                return Err(SharedError::Differs { file, folder });
            }
            None => missing.push((file, text)),
        }
    }
    for (path, text) in missing {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| files::write(&path, text.as_bytes()))
            .map_err(|source| PkiError::File {
                path: path.clone(),
                source,
            })?;
    }
    Ok(())
}

fn cipher(token: &str, salt: &[u8]) -> LessSafeKey {
    let mut key = [0; 32];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, ITERATIONS, salt, token.as_bytes(), &mut key);
    // It has the length that the cipher asks for.
    let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has 32 bytes");
    LessSafeKey::new(key)
}

fn seal(token: &str, key: &str, bundle: &Bundle) -> Result<Vec<u8>, SharedError> {
    let (mut salt, mut nonce) = ([0; SALT], [0; NONCE_LEN]);
    let random = SystemRandom::new();
    for bytes in [&mut salt[..], &mut nonce[..]] {
        random.fill(bytes).map_err(|_| SharedError::Random)?;
    }
    let mut sealed = serde_json::to_vec(bundle).unwrap_or_default();
    cipher(token, &salt)
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(key.as_bytes()),
            &mut sealed,
        )
        .map_err(|_| SharedError::Random)?;
    Ok([VERSION, &salt, &nonce, &sealed].concat())
}

fn open(token: &str, key: &str, value: &[u8]) -> Result<Bundle, SharedError> {
    let damaged = |why: &str| SharedError::Damaged(why.to_owned());
    let sealed = value.strip_prefix(VERSION);
    let (salt, sealed) = sealed
        .and_then(|sealed| sealed.split_at_checked(SALT))
        .ok_or_else(|| damaged("it is of another version"))?;
    let (nonce, sealed) = sealed
        .split_at_checked(NONCE_LEN)
        .ok_or_else(|| damaged("it is cut off"))?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged("it is cut off"))?;
    let mut plain = sealed.to_vec();
    // The hash in the key is too short to tell every token apart.
    let plain = cipher(token, salt)
        .open_in_place(nonce, Aad::from(key.as_bytes()), &mut plain)
        .map_err(|_| SharedError::WrongToken)?;
    serde_json::from_slice(plain).map_err(|error| SharedError::Damaged(error.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use coracle_store::{HistoryLimits, MemoryStore};

    use super::*;

    fn places(folder: &Path) -> Places {
        Places {
            tls: folder.join("tls"),
            encryption_keys: folder.join("cred/keys.json"),
        }
    }

    fn read(folder: &Path) -> Vec<String> {
        let tls = places(folder).tls;
        names()
            .map(|name| fs::read_to_string(tls.join(name)).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn servers_with_the_token_have_everything_alike() {
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [one, two, late] = folders.each_ref().map(tempfile::TempDir::path);
        let store = MemoryStore::new(HistoryLimits::default());
        fs::create_dir(one.join("cred")).unwrap();
        fs::write(one.join("cred/keys.json"), "keys").unwrap();
        agree(&store, &places(one), "secret").await.unwrap();
        agree(&store, &places(two), "secret").await.unwrap();
        assert_eq!(read(one), read(two));
        assert_eq!(fs::read(two.join("cred/keys.json")).unwrap(), b"keys");
        // A restart changes nothing.
        let before = read(two);
        agree(&store, &places(two), "secret").await.unwrap();
        assert_eq!(read(two), before);
        let listing = store.list(ROOT).await.unwrap();
        let value = listing.items[0].value.to_vec();
        assert!(!String::from_utf8_lossy(&value).contains("PRIVATE"));

        let refused = agree(&store, &places(late), "guess").await;
        assert!(
            matches!(refused, Err(SharedError::WrongToken)),
            "{refused:?}"
        );
        assert!(!places(late).tls.exists());
        assert_eq!(store.list(ROOT).await.unwrap().items.len(), 1);
    }

    #[tokio::test]
    async fn a_server_that_was_a_cluster_of_its_own_is_told_so() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [one, two] = folders.each_ref().map(tempfile::TempDir::path);
        let store = MemoryStore::new(HistoryLimits::default());
        let tls = places(two).tls;
        fs::create_dir_all(&tls).unwrap();
        Authority::open(&tls, "server-ca").unwrap();
        agree(&store, &places(one), "secret").await.unwrap();
        let refused = agree(&store, &places(two), "secret").await;
        assert!(
            matches!(refused, Err(SharedError::Differs { .. })),
            "{refused:?}"
        );
        // The first of a cluster brings what it has.
        let other = MemoryStore::new(HistoryLimits::default());
        let before = fs::read(tls.join("server-ca.crt")).unwrap();
        agree(&other, &places(two), "secret").await.unwrap();
        assert_eq!(fs::read(tls.join("server-ca.crt")).unwrap(), before);
    }
}
