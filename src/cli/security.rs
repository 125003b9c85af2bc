//! Flags about the store's safety and whom the API server believes. Those that upstream's
//! kube-apiserver has too have its names.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// Where objects are kept: http:// or https:// of an etcd (several with commas), memory://
    /// for a throw-away cluster; by default an embedded database in the data directory.
    #[arg(long, value_name = "URL", env = "CORACLE_DATASTORE_ENDPOINT")]
    pub datastore_endpoint: Option<String>,

    /// Secret of the cluster: servers that share an etcd must have the same [default: made at the
    /// first start, in server/token of the data directory].
    #[arg(short, long, env = "CORACLE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// File with the secret of the cluster.
    #[arg(
        long,
        value_name = "FILE",
        env = "CORACLE_TOKEN_FILE",
        conflicts_with = "token"
    )]
    pub token_file: Option<PathBuf>,

    /// Authorities (PEM) that sign the certificate of the etcd [default: those of this machine].
    #[arg(long, value_name = "FILE", env = "CORACLE_DATASTORE_CAFILE")]
    pub datastore_cafile: Option<PathBuf>,

    /// Certificate (PEM) to show to the etcd.
    #[arg(
        long,
        value_name = "FILE",
        env = "CORACLE_DATASTORE_CERTFILE",
        requires = "datastore_keyfile"
    )]
    pub datastore_certfile: Option<PathBuf>,

    /// Key (PEM) of --datastore-certfile.
    #[arg(
        long,
        value_name = "FILE",
        env = "CORACLE_DATASTORE_KEYFILE",
        requires = "datastore_certfile"
    )]
    pub datastore_keyfile: Option<PathBuf>,

    /// Write Leases and Events to the embedded database too. Otherwise they are kept in memory,
    /// so that heartbeats do not wear out flash, and end with the server.
    #[arg(long)]
    pub durable_leases_and_events: bool,

    /// EncryptionConfiguration (apiserver.config.k8s.io/v1) that says how objects are encrypted
    /// at rest [default: in the embedded database, Secrets with a key of its own].
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,

    /// Read --encryption-provider-config again when it changes.
    #[arg(long, requires = "encryption_provider_config")]
    pub encryption_provider_config_automatic_reload: bool,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Audit")]
pub struct AuditArgs {
    /// Policy (audit.k8s.io/v1) that says which requests are told of, and how much.
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,

    /// File that requests are told of in; `-` is standard output. Without it, none are.
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,

    /// How lines of the audit log are written.
    #[arg(long, value_enum, default_value_t)]
    pub audit_log_format: AuditFormat,

    /// Days that old audit logs are kept for; 0: forever.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    pub audit_log_maxage: u64,

    /// Old audit logs that are kept; 0: all.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub audit_log_maxbackup: usize,

    /// Megabytes that an audit log grows to; 0: 100.
    #[arg(long, value_name = "MEGABYTES", default_value_t = 0)]
    pub audit_log_maxsize: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AuditFormat {
    #[default]
    Json,
    Legacy,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthenticationArgs {
    /// File of static tokens, a line each: token,user,uid,"group1,group2".
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,

    /// AuthenticationConfiguration (apiserver.config.k8s.io/v1): issuers of tokens, and where
    /// requests without credentials are let through. Read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,

    /// OpenID Connect issuer whose tokens are accepted; https only.
    #[arg(long, value_name = "URL")]
    pub oidc_issuer_url: Option<String>,

    /// What the issuer's tokens must be meant for.
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,

    /// Claim that is the user's name [default: sub].
    #[arg(long, value_name = "CLAIM")]
    pub oidc_username_claim: Option<String>,

    /// Put before user names; `-` for nothing [default: the issuer's URL and #, unless the claim
    /// is email].
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,

    /// Claim that is the user's groups.
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,

    /// Put before groups.
    #[arg(long, value_name = "PREFIX")]
    pub oidc_groups_prefix: Option<String>,

    /// Claim that tokens must have with this value, as KEY=VALUE. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub oidc_required_claim: Vec<String>,

    /// Authorities (PEM) that sign the issuer's certificate [default: those of this machine].
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,

    /// What tokens may be signed with [default: RS256].
    #[arg(long, value_name = "ALGORITHMS", value_delimiter = ',')]
    pub oidc_signing_algs: Vec<String>,

    /// Let requests without credentials through as system:anonymous, who may see health and
    /// version and nothing else unless a role says so [default: true].
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub anonymous_auth: Option<bool>,
}
