//! What the flags say of authentication: static tokens, issuers of tokens, anonymity.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use coracle_apiserver::authn::{
    StaticTokens,
    oidc::{
        Anonymous, AuthenticationConfiguration, ClaimMappings, ClaimValidationRule, Issuer,
        JwtAuthenticator, JwtIssuers, PrefixedClaimOrExpression, SIGNING_ALGORITHMS,
    },
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    cli::AuthenticationArgs,
    file_watch::{self, FileWatch},
};

/// What can be replaced while the server runs is shared with the authenticators.
pub struct Authentication {
    pub issuers: Arc<JwtIssuers>,
    pub anonymous: Arc<arc_swap::ArcSwap<Anonymous>>,
    args: AuthenticationArgs,
    own_issuer: String,
    /// The content of `--authentication-config`.
    text: Option<String>,
}

impl Authentication {
    /// `own_issuer` is that of ServiceAccount tokens.
    pub fn new(args: &AuthenticationArgs, own_issuer: &str) -> anyhow::Result<Self> {
        let flags = of_flags(args)?;
        let (configuration, text, algorithms) = match &args.authentication_config {
            Some(path) => {
                ensure!(
                    flags.is_none(),
                    "authentication-config file and oidc-* flags are mutually exclusive"
                );
                let text = file_watch::read("--authentication-config", path)?;
                let configuration = AuthenticationConfiguration::parse(&text)
                    .with_context(|| format!("--authentication-config {}", path.display()))?;
                ensure!(
                    configuration.anonymous.is_none() || args.anonymous_auth.is_none(),
                    "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file"
                );
                (configuration, Some(text), all_algorithms())
            }
            None => (flags.unwrap_or_default(), None, algorithms(args)?),
        };
        let issuers = JwtIssuers::new(&configuration, &algorithms, own_issuer)
            .context("the issuers of tokens cannot be used")?;
        Ok(Authentication {
            issuers: Arc::new(issuers),
            anonymous: Arc::new(arc_swap::ArcSwap::from_pointee(anonymous(
                &configuration,
                args,
            ))),
            args: args.clone(),
            own_issuer: own_issuer.to_owned(),
            text,
        })
    }

    /// The users of `--token-auth-file`.
    pub fn static_tokens(&self) -> anyhow::Result<StaticTokens> {
        let Some(path) = &self.args.token_auth_file else {
            return Ok(StaticTokens::default());
        };
        let text = file_watch::read("--token-auth-file", path)?;
        StaticTokens::parse(&text).with_context(|| format!("--token-auth-file {}", path.display()))
    }

    /// Follows the configuration, if there is one.
    pub fn reloader(&self) -> Option<Reloader> {
        Some(Reloader {
            issuers: self.issuers.clone(),
            anonymous: self.anonymous.clone(),
            path: self.args.authentication_config.clone()?,
            text: self.text.clone()?,
            args: self.args.clone(),
            own_issuer: self.own_issuer.clone(),
        })
    }
}

/// Goes on with `--authentication-config` as it is now.
#[derive(Clone)]
pub struct Reloader {
    issuers: Arc<JwtIssuers>,
    anonymous: Arc<arc_swap::ArcSwap<Anonymous>>,
    args: AuthenticationArgs,
    path: PathBuf,
    text: String,
    own_issuer: String,
}

impl Reloader {
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut watch = FileWatch::new(&self.path, self.text.clone());
        loop {
            let text = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                text = watch.changed() => text,
            };
            let file = self.path.display();
            match self.reload(&text) {
                Ok(()) => info!(%file, "the configuration of authentication was read again"),
                Err(error) => {
                    error!(%file, error = format!("{error:#}"), "the configuration of authentication cannot be used, going on with the former one");
                }
            }
        }
    }

    fn reload(&self, text: &str) -> anyhow::Result<()> {
        let configuration = AuthenticationConfiguration::parse(text)?;
        let algorithms = all_algorithms();
        self.issuers
            .replace(&configuration, &algorithms, &self.own_issuer)?;
        let anonymous = anonymous(&configuration, &self.args);
        self.anonymous.store(Arc::new(anonymous));
        Ok(())
    }
}

fn anonymous(configuration: &AuthenticationConfiguration, args: &AuthenticationArgs) -> Anonymous {
    let configured = configuration.anonymous.clone();
    configured.unwrap_or_else(|| Anonymous {
        enabled: args.anonymous_auth.unwrap_or(true),
        ..Anonymous::default()
    })
}

fn all_algorithms() -> Vec<String> {
    SIGNING_ALGORITHMS.map(str::to_owned).to_vec()
}

fn algorithms(args: &AuthenticationArgs) -> anyhow::Result<Vec<String>> {
    if args.oidc_signing_algs.is_empty() {
        return Ok(vec!["RS256".to_owned()]);
    }
    for given in &args.oidc_signing_algs {
        if !SIGNING_ALGORITHMS.contains(&given.as_str()) {
            bail!("oidc: unsupported signing alg: {given:?}");
        }
    }
    Ok(args.oidc_signing_algs.clone())
}

/// What the `--oidc-*` flags stand for; `None` when none is given.
fn of_flags(args: &AuthenticationArgs) -> anyhow::Result<Option<AuthenticationConfiguration>> {
    let given = args.oidc_issuer_url.is_some()
        || args.oidc_client_id.is_some()
        || args.oidc_username_claim.is_some()
        || args.oidc_username_prefix.is_some()
        || args.oidc_groups_claim.is_some()
        || args.oidc_groups_prefix.is_some()
        || args.oidc_ca_file.is_some()
        || !args.oidc_required_claim.is_empty()
        || !args.oidc_signing_algs.is_empty();
    if !given {
        return Ok(None);
    }
    let (Some(url), Some(client)) = (&args.oidc_issuer_url, &args.oidc_client_id) else {
        bail!(
            "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
        );
    };
    let claim = args.oidc_username_claim.as_deref().unwrap_or("sub");
    let prefix = match args.oidc_username_prefix.as_deref().unwrap_or_default() {
        "-" => String::new(),
        "" if claim != "email" => format!("{url}#"),
        prefix => prefix.to_owned(),
    };
    let required = args.oidc_required_claim.iter().map(|given| {
        let (claim, value) = given
            .split_once('=')
            .context("--oidc-required-claim: expected KEY=VALUE")?;
        Ok(ClaimValidationRule {
            claim: claim.to_owned(),
            required_value: value.to_owned(),
            ..ClaimValidationRule::default()
        })
    });
    let authority = args.oidc_ca_file.as_ref();
    let authority = authority.map(|path| file_watch::read("--oidc-ca-file", path));
    let mapped = |claim: &str, prefix: String| PrefixedClaimOrExpression {
        claim: claim.to_owned(),
        prefix: Some(prefix),
        ..PrefixedClaimOrExpression::default()
    };
    let groups = args.oidc_groups_claim.as_deref().map(|claim| {
        let prefix = args.oidc_groups_prefix.clone();
        mapped(claim, prefix.unwrap_or_default())
    });
    let jwt = JwtAuthenticator {
        issuer: Issuer {
            url: url.clone(),
            audiences: vec![client.clone()],
            certificate_authority: authority.transpose()?.unwrap_or_default(),
            ..Issuer::default()
        },
        claim_validation_rules: required.collect::<anyhow::Result<_>>()?,
        claim_mappings: ClaimMappings {
            username: mapped(claim, prefix),
            groups: groups.unwrap_or_default(),
            ..ClaimMappings::default()
        },
        ..JwtAuthenticator::default()
    };
    Ok(Some(AuthenticationConfiguration {
        jwt: vec![jwt],
        ..AuthenticationConfiguration::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> AuthenticationArgs {
        AuthenticationArgs {
            oidc_issuer_url: Some("https://idp".to_owned()),
            oidc_client_id: Some("kubernetes".to_owned()),
            ..AuthenticationArgs::default()
        }
    }

    fn username(args: &AuthenticationArgs) -> (String, String) {
        let read = of_flags(args).unwrap().unwrap();
        let username = read.jwt[0].claim_mappings.username.clone();
        (username.claim, username.prefix.unwrap())
    }

    #[test]
    fn user_names_get_the_prefix_that_upstream_gives() {
        let text = |claim: &str, prefix: &str| (claim.to_owned(), prefix.to_owned());
        assert_eq!(username(&args()), text("sub", "https://idp#"));
        let mut email = args();
        email.oidc_username_claim = Some("email".to_owned());
        assert_eq!(username(&email), text("email", ""));
        let mut none = args();
        none.oidc_username_prefix = Some("-".to_owned());
        assert_eq!(username(&none), text("sub", ""));
    }

    #[test]
    fn contradictions_are_refused() {
        let error = |args: &AuthenticationArgs| {
            let made = Authentication::new(args, "https://own");
            format!("{:#}", made.err().unwrap())
        };
        let mut alone = args();
        alone.oidc_client_id = None;
        assert!(error(&alone).contains("must be specified together"));
        let mut unknown = args();
        unknown.oidc_signing_algs = vec!["none".to_owned()];
        assert!(error(&unknown).contains("unsupported signing alg"));
        let mut both = args();
        both.authentication_config = Some("/dev/null".into());
        assert!(error(&both).contains("mutually exclusive"));
        let mut plain = args();
        plain.oidc_issuer_url = Some("http://idp".to_owned());
        assert!(error(&plain).contains("URL scheme must be https"));
    }
}
