//! `coracle secrets-encrypt`: asks a running server how Secrets are encrypted at rest, and has
//! it use another key.

use anyhow::{Context as _, bail};
use coracle_apiserver::encryption::{REENCRYPT_PATH, ROTATE_PATH, STATUS_PATH};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::Deserialize;

use crate::data_dir::Layout;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Verb {
    Status,
    RotateKeys,
    Reencrypt,
}

#[derive(Deserialize)]
struct Status {
    enabled: bool,
    stage: String,
    keys: Vec<Key>,
    stale: usize,
    unreadable: usize,
}

#[derive(Deserialize)]
struct Key {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    active: bool,
}

#[derive(Deserialize)]
struct Rewritten {
    rewritten: usize,
}

/// Prints what the server answers.
///
/// # Errors
/// The server does not run or does not agree.
pub async fn run(layout: &Layout, verb: Verb) -> anyhow::Result<()> {
    let client = connect(layout).await?;
    let (method, path) = match verb {
        Verb::Status => ("GET", STATUS_PATH),
        Verb::RotateKeys => ("POST", ROTATE_PATH),
        Verb::Reencrypt => ("POST", REENCRYPT_PATH),
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .body(Vec::new())?;
    let answer = client.request_text(request).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            bail!(
                "this server encrypts nothing: its store is not the embedded one and --encryption-provider-config is not set"
            )
        }
        Err(kube::Error::Api(status)) => bail!("{}", status.message),
        Err(error) => {
            return Err(error).context("the server does not answer: it must run for this");
        }
    };
    match verb {
        Verb::Status => print!("{}", table(&serde_json::from_str(&answer)?)),
        Verb::RotateKeys => {
            let Rewritten { rewritten } = serde_json::from_str(&answer)?;
            println!("the key was rotated, {rewritten} objects were encrypted again");
        }
        Verb::Reencrypt => {
            let Rewritten { rewritten } = serde_json::from_str(&answer)?;
            println!("{rewritten} objects were encrypted again");
        }
    }
    Ok(())
}

async fn connect(layout: &Layout) -> anyhow::Result<Client> {
    let path = layout.admin_kubeconfig();
    let kubeconfig = Kubeconfig::read_from(&path)
        .with_context(|| format!("there is no cluster in {}", layout.root.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Laid out as k3s does.
fn table(status: &Status) -> String {
    let enabled = if status.enabled {
        "Enabled"
    } else {
        "Disabled"
    };
    let mut text = format!(
        "Encryption Status: {enabled}\nCurrent Rotation Stage: {}\n",
        status.stage
    );
    if status.stale > 0 {
        text += &format!("Not Encrypted With The Active Key: {}\n", status.stale);
    }
    if status.unreadable > 0 {
        text += &format!("Unreadable: {}\n", status.unreadable);
    }
    text += "\nActive  Key Type           Name\n------  --------           ----\n";
    for key in &status.keys {
        let active = if key.active { '*' } else { ' ' };
        text += &format!(" {active}      {:<18} {}\n", key.kind, key.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_a_table() {
        let status = serde_json::from_str(
            r#"{"enabled":true,"stage":"start","keys":[{"type":"XSalsa20-POLY1305","name":"k","active":true}],"stale":0,"unreadable":0}"#,
        );
        assert_eq!(
            table(&status.unwrap()),
            "Encryption Status: Enabled\nCurrent Rotation Stage: start\n\nActive  Key Type           Name\n------  --------           ----\n *      XSalsa20-POLY1305  k\n"
        );
    }
}
