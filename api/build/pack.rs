//! How the definitions are put into the program.

use std::{collections::BTreeSet, error::Error, fs, io::Write as _, path::PathBuf};

use flate2::{Compression, write::ZlibEncoder};
use sha2::{Digest as _, Sha256};

pub fn compress(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes())?;
    Ok(encoder.finish()?)
}

/// Of all that documents are made of: the definitions, and the code that writes them.
pub fn hash(definitions: &str) -> Result<String, Box<dyn Error>> {
    let mut hash = Sha256::new();
    hash.update(definitions);
    let mut folders = vec![PathBuf::from("src/openapi")];
    let mut files = BTreeSet::from([PathBuf::from("src/openapi.rs")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path);
            }
        }
    }
    for file in files {
        hash.update(fs::read(file)?);
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
