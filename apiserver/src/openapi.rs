//! The OpenAPI documents of what is served now.
//!
//! Enter at [`OpenApi::of`] for what there is and at [`OpenApi::written`] for a document's
//! bytes. A document is written when the first client asks for it and kept compressed until what
//! it describes changes. [`OpenApi::describe`] is where custom resources bring their schemas.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, Read as _},
    sync::Arc,
};

use bytes::Bytes;
use coracle_api::openapi::{self, Document, Form, Schemas};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use parking_lot::{Mutex, RwLock};
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};

use crate::registry::Table;

type ByVersion = BTreeMap<(String, String), Arc<dyn Schemas>>;

/// The documents, and what has been written of them.
#[derive(Default)]
pub struct OpenApi {
    schemas: RwLock<Arc<ByVersion>>,
    described: Mutex<Option<Described>>,
    /// Compressed, by hash and form.
    written: Mutex<HashMap<(String, Form), Bytes>>,
    /// Held by the one who writes, so that many clients that ask at once cost one.
    writing: Mutex<()>,
}

/// What the documents were last made of.
struct Described {
    table: Arc<Table>,
    schemas: Arc<ByVersion>,
    revisions: Vec<String>,
    documents: Arc<Documents>,
}

/// What there is to be read at one moment.
pub struct Documents {
    /// By path, with their hashes.
    v3: BTreeMap<String, (Document, String)>,
    v2_hash: String,
    /// The index of v3.
    pub index: Bytes,
    pub index_hash: String,
}

/// Something that can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    V2,
    /// The path of a document.
    V3(String),
}

impl Documents {
    fn new(documents: BTreeMap<String, Document>) -> Self {
        let v3: BTreeMap<_, _> = documents
            .into_iter()
            .map(|(path, document)| {
                let hash = document.hash();
                (path, (document, hash))
            })
            .collect();
        let paths: Map<_, _> = v3
            .iter()
            .map(|(path, (_, hash))| {
                let url = relative_url(path, hash);
                (path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        let index = json!({"paths": paths}).to_string();
        let mut all = Sha256::new();
        for (_, hash) in v3.values() {
            all.update(hash);
        }
        Documents {
            v2_hash: hex(&all.finalize()),
            index_hash: hex(&Sha256::digest(&index)),
            index: index.into(),
            v3,
        }
    }

    /// The hash of something that there is.
    pub fn hash(&self, wanted: &Wanted) -> Option<&str> {
        match wanted {
            Wanted::V2 => Some(&self.v2_hash),
            Wanted::V3(path) => self.v3.get(path).map(|(_, hash)| hash.as_str()),
        }
    }

    fn write(&self, wanted: &Wanted, form: Form) -> io::Result<Bytes> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        match wanted {
            Wanted::V2 => {
                let documents = self.v3.values().map(|(document, _)| document);
                openapi::write_v2(documents, coracle_api::VERSION, form, &mut encoder)?;
            }
            Wanted::V3(path) => {
                if let Some((document, _)) = self.v3.get(path) {
                    openapi::write_v3(document, coracle_api::VERSION, form, &mut encoder)?;
                }
            }
        }
        let mut compressed = encoder.finish()?;
        compressed.shrink_to_fit();
        Ok(compressed.into())
    }

    fn hashes(&self) -> HashSet<&str> {
        let v3 = self.v3.values().map(|(_, hash)| hash.as_str());
        v3.chain([self.v2_hash.as_str()]).collect()
    }
}

impl OpenApi {
    /// Puts the schemas of a group and version that is not built in into the documents, in
    /// place of those that were there; `None` takes them out. It also is described anew whenever
    /// the schemas say that their revision is another.
    pub fn describe(&self, group: &str, version: &str, schemas: Option<Arc<dyn Schemas>>) {
        let key = (group.to_owned(), version.to_owned());
        let mut current = self.schemas.write();
        let mut changed = ByVersion::clone(&current);
        match schemas {
            Some(schemas) => changed.insert(key, schemas),
            None => changed.remove(&key),
        };
        *current = Arc::new(changed);
    }

    /// The documents of a table.
    pub fn of(&self, table: &Arc<Table>) -> Arc<Documents> {
        let schemas = self.schemas.read().clone();
        let revisions: Vec<String> = schemas.values().map(|known| known.revision()).collect();
        let mut described = self.described.lock();
        if let Some(last) = &*described
            && Arc::ptr_eq(&last.table, table)
            && Arc::ptr_eq(&last.schemas, &schemas)
            && last.revisions == revisions
        {
            return last.documents.clone();
        }
        let documents = openapi::documents(table.kinds(), |group, version| {
            schemas
                .get(&(group.to_owned(), version.to_owned()))
                .cloned()
        });
        let documents = Arc::new(Documents::new(documents));
        let kept = documents.hashes();
        self.written
            .lock()
            .retain(|(hash, _), _| kept.contains(hash.as_str()));
        *described = Some(Described {
            table: table.clone(),
            schemas,
            revisions,
            documents: documents.clone(),
        });
        documents
    }

    /// The bytes of a document, compressed as `gzip`. Takes milliseconds when nobody has asked
    /// for it before: not to be called where others wait.
    ///
    /// # Errors
    /// When the definitions in this program are broken.
    pub fn written(&self, documents: &Documents, wanted: &Wanted, form: Form) -> io::Result<Bytes> {
        let key = (documents.hash(wanted).unwrap_or_default().to_owned(), form);
        let known = || self.written.lock().get(&key).cloned();
        if let Some(bytes) = known() {
            return Ok(bytes);
        }
        let _writing = self.writing.lock();
        if let Some(bytes) = known() {
            return Ok(bytes);
        }
        let bytes = documents.write(wanted, form)?;
        self.written.lock().insert(key, bytes.clone());
        Ok(bytes)
    }
}

/// For clients that do not take compressed answers.
pub fn decompressed(compressed: &[u8]) -> io::Result<Bytes> {
    let mut plain = Vec::new();
    GzDecoder::new(compressed).read_to_end(&mut plain)?;
    Ok(plain.into())
}

/// Where a document of v3 is, as the index says it.
pub fn relative_url(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
