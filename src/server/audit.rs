//! What the flags say of the audit log.

use anyhow::{Context as _, bail};
use coracle_apiserver::audit::{Auditor, Format, LogConfig, LogFile, Policy};

use crate::{
    cli::{AuditArgs, AuditFormat},
    file_watch,
};

/// `None` when nothing is to be told of.
pub fn open(args: &AuditArgs) -> anyhow::Result<Option<Auditor>> {
    let (policy, path) = match (&args.audit_policy_file, &args.audit_log_path) {
        (_, None) => return Ok(None),
        (None, Some(_)) => bail!("--audit-log-path needs an --audit-policy-file"),
        (Some(policy), Some(path)) => (policy, path),
    };
    let text = file_watch::read("--audit-policy-file", policy)?;
    let policy = Policy::parse(&text)
        .with_context(|| format!("--audit-policy-file {}", policy.display()))?;
    let log = LogFile::open(LogConfig {
        path: path.clone(),
        format: match args.audit_log_format {
            AuditFormat::Json => Format::Json,
            AuditFormat::Legacy => Format::Legacy,
        },
        max_age_days: args.audit_log_maxage,
        max_backups: args.audit_log_maxbackup,
        max_megabytes: args.audit_log_maxsize,
    })?;
    Ok(Some(Auditor::new(policy, log)))
}
