//! Turns the tables under `schema/` into static data.

#[path = "build/schema.rs"]
mod schema;

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=schema");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let types = schema::read(&PathBuf::from("schema"))?;
    fs::write(out.join("schema.rs"), schema::to_rust(&types)?)?;
    Ok(())
}
