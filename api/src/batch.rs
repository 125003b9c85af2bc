//! `batch`: one file per kind, one line per kind in [`kinds`].

mod cron_job;
mod job;

use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::kinds::Kind;

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::namespaced::<CronJob>("cronjob")
            .short_names(&["cj"])
            .categories(&["all"])
            .status(),
        Kind::namespaced::<Job>("job").categories(&["all"]).status(),
    ]
}
