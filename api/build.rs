//! Turns the tables under `schema/`, and what `k8s-openapi` says of the same types, into static
//! data.

#[path = "build/models.rs"]
mod models;
#[path = "build/openapi.rs"]
mod openapi;
#[path = "build/pack.rs"]
mod pack;
#[path = "build/schema.rs"]
mod schema;
#[path = "build/versions.rs"]
mod versions;

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    for path in [
        "build.rs",
        "build",
        "schema",
        "src/openapi.rs",
        "src/openapi",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let folder = PathBuf::from("schema");
    let types = schema::read(&folder)?;
    fs::write(out.join("schema.rs"), schema::to_rust(&types)?)?;
    let definitions = openapi::definitions(&types, &folder.join("descriptions.tsv"))?;
    fs::write(out.join("openapi.zz"), pack::compress(&definitions)?)?;
    fs::write(out.join("openapi.hash"), pack::hash(&definitions)?)?;
    Ok(())
}
