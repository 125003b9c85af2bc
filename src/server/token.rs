//! The token by which the servers of one cluster know each other.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _};

use anyhow::{Context as _, bail};

use super::Settings;
use crate::data_dir;

/// The token that was given, or kept at an earlier start, or else a new one.
pub fn of(settings: &Settings) -> anyhow::Result<String> {
    let args = &settings.args.store;
    let file = settings.layout.token();
    let given = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => {
            let text = fs::read_to_string(path);
            Some(text.with_context(|| format!("cannot read --token-file {}", path.display()))?)
        }
        (None, None) => fs::read_to_string(&file).ok(),
    };
    let Some(given) = given else {
        // Two of them are 244 random bits.
        let half = || uuid::Uuid::new_v4().simple().to_string();
        return Ok(half() + &half());
    };
    match given.trim() {
        "" => bail!("the token is empty: give --token or --token-file"),
        token => Ok(token.to_owned()),
    }
}

/// Keeps the token for the next start and for other servers' administrators, readable by the owner
/// only.
pub fn keep(settings: &Settings, token: &str) -> anyhow::Result<()> {
    let path = settings.layout.token();
    if let Some(folder) = path.parent() {
        data_dir::create_private(folder)?;
    }
    let written = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{token}"));
    written.with_context(|| format!("cannot write {}", path.display()))
}
