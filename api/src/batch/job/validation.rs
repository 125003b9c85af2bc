//! What is wrong with a Job: its spec, which CronJobs share, and its selector. The policies for
//! failure and success have their own file.

use k8s_openapi::api::{
    batch::v1::{Job, JobSpec, JobTemplateSpec},
    core::v1::PodSpec,
};

use super::{CONTROLLER_UID, JOB_NAME, LEGACY_CONTROLLER_UID, LEGACY_JOB_NAME, policies};
use crate::{
    apps::workload,
    check,
    core::pod::validation,
    field::{ErrorList, Path, value_of},
    names, selector,
    zero::text,
};

const MAX_PARALLELISM: i32 = 100_000;
const MAX_FAILED_INDEXES: i32 = 100_000;
/// More completions than this bring stricter limits for what has to be tracked of each.
const MANY_COMPLETIONS: i32 = 100_000;
const MAX_WITH_MANY_COMPLETIONS: i32 = 10_000;
const MAX_MANAGED_BY: usize = 63;

pub const INDEXED: &str = "Indexed";
const NON_INDEXED: &str = "NonIndexed";

/// `prefixed_labels`: the labels with a prefix are required too, which Jobs of old do not have.
pub fn job(job: &Job, prefixed_labels: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(spec) = &job.spec else {
        return errors;
    };
    generated_selector(job, spec, prefixed_labels, &mut errors);
    whole_spec(spec, &mut errors);
    if is_indexed(spec)
        && let Some(completions) = spec.completions.filter(|count| *count > 0)
    {
        let name = text(&job.metadata.name);
        let hostname = format!("{name}-{}", completions - 1);
        if !names::dns1123_label(&hostname).is_empty() {
            errors.push(Path::new("metadata.name").invalid(
                name,
                format!("will not able to create pod with invalid DNS label: {hostname}"),
            ));
        }
    }
    errors
}

/// The spec of a Job with its selector.
pub fn whole_spec(spec: &JobSpec, errors: &mut ErrorList) {
    let path = Path::new("spec");
    job_spec(spec, &path, errors);
    selects_its_pods(spec, &path, errors);
}

/// The Job in a CronJob, whose selector and labels come when the Job is made.
pub fn job_template(template: &JobTemplateSpec, path: &Path, errors: &mut ErrorList) {
    let Some(spec) = &template.spec else { return };
    let path = path.child("spec");
    job_spec(spec, &path, errors);
    if let Some(selector) = &spec.selector {
        errors.push(
            path.child("selector")
                .invalid(value_of(selector), "`selector` will be auto-generated"),
        );
    }
    if spec.manual_selector == Some(true) {
        errors.push(
            path.child("manualSelector")
                .not_supported(true, &["nil", "false"]),
        );
    }
}

pub fn is_indexed(spec: &JobSpec) -> bool {
    text(&spec.completion_mode) == INDEXED
}

fn generated_selector(job: &Job, spec: &JobSpec, prefixed_labels: bool, errors: &mut ErrorList) {
    if spec.manual_selector == Some(true) {
        return;
    }
    let Some(selector) = &spec.selector else {
        return;
    };
    let (name, uid) = (text(&job.metadata.name), text(&job.metadata.uid));
    check::required(uid, &Path::new("metadata.uid"), errors);
    let mut expected = vec![(LEGACY_CONTROLLER_UID, uid), (LEGACY_JOB_NAME, name)];
    if prefixed_labels {
        expected.extend([(CONTROLLER_UID, uid), (JOB_NAME, name)]);
    }
    let labels = workload::labels(&spec.template);
    let path = Path::new("spec.template.metadata.labels");
    for (key, value) in &expected {
        let detail = format!("must be '{value}'");
        match labels.and_then(|labels| labels.get(*key)) {
            None => errors.push(path.key(key).required(detail)),
            Some(actual) if actual == value => {}
            Some(_) => errors.push(path.key(key).invalid(value_of(&labels), detail)),
        }
    }
    let expected = expected
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    if selector::LabelSelector::from_object(Some(selector))
        .is_ok_and(|selector| !selector.matches_labels(Some(&expected)))
    {
        errors.push(
            Path::new("spec.selector").invalid(value_of(selector), "`selector` not auto-generated"),
        );
    }
}

fn selects_its_pods(spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    match &spec.selector {
        None => errors.push(path.child("selector").required("")),
        selector => check::label_selector(selector.as_ref(), &path.child("selector"), errors),
    }
    let labels = workload::labels(&spec.template);
    let matches = match &spec.selector {
        // No selector selects nothing.
        None => Ok(false),
        selector => selector::LabelSelector::from_object(selector.as_ref())
            .map(|selector| selector.matches_labels(labels)),
    };
    if matches.is_ok_and(|matches| !matches) {
        errors.push(path.child("template.metadata.labels").invalid(
            value_of(&labels),
            "`selector` does not match template `labels`",
        ));
    }
}

fn job_spec(spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    let counts = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        (
            "ttlSecondsAfterFinished",
            spec.ttl_seconds_after_finished.map(i64::from),
        ),
        (
            "backoffLimitPerIndex",
            spec.backoff_limit_per_index.map(i64::from),
        ),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    workload::counts(&counts, path, errors);
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.push(
            path.child("backoffLimitPerIndex")
                .required("when maxFailedIndexes is specified"),
        );
    }
    if let Some(manager) = &spec.managed_by {
        let path = path.child("managedBy");
        check::domain_prefixed_path(manager, &path, errors);
        if manager.len() > MAX_MANAGED_BY {
            errors.push(path.too_long(MAX_MANAGED_BY));
        }
    }
    completion_mode(spec, path, errors);
    if let Some(policy) = &spec.pod_failure_policy {
        policies::failure(policy, spec, &path.child("podFailurePolicy"), errors);
    }
    if let Some(policy) = &spec.success_policy {
        policies::success(policy, spec, &path.child("successPolicy"), errors);
    }
    replacement_policy(spec, &path.child("podReplacementPolicy"), errors);
    validation::pod_template(&spec.template, &path.child("template"), errors);
    restart_policy(spec, &path.child("template.spec.restartPolicy"), errors);
}

fn completion_mode(spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    if let Some(mode) = &spec.completion_mode {
        let path = path.child("completionMode");
        check::one_of(mode, &[NON_INDEXED, INDEXED], &path, errors);
    }
    if is_indexed(spec) {
        indexed(spec, path, errors);
    } else if spec
        .completion_mode
        .as_ref()
        .is_none_or(|mode| mode == NON_INDEXED)
    {
        let only_indexed = [
            ("backoffLimitPerIndex", spec.backoff_limit_per_index),
            ("maxFailedIndexes", spec.max_failed_indexes),
        ];
        for (field, value) in only_indexed {
            if let Some(value) = value {
                let path = path.child(field);
                errors.push(path.invalid(value, "requires indexed completion mode"));
            }
        }
    }
}

fn indexed(spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    let failed = spec.max_failed_indexes;
    if spec.completions.is_none() {
        errors.push(
            path.child("completions")
                .required("when completion mode is Indexed"),
        );
    }
    let at_most = |field: &str, value: Option<i32>, max: i32, when: &str| {
        let value = value.filter(|value| *value > max)?;
        let detail = format!("must be less than or equal to {max}{when}");
        Some(path.child(field).invalid(value, detail))
    };
    let when = " when completion mode is Indexed";
    errors.extend(at_most(
        "parallelism",
        spec.parallelism,
        MAX_PARALLELISM,
        when,
    ));
    if let (Some(completions), Some(failed)) = (spec.completions, failed)
        && failed > completions
    {
        let path = path.child("maxFailedIndexes");
        errors.push(path.invalid(failed, "must be less than or equal to completions"));
    }
    errors.extend(at_most("maxFailedIndexes", failed, MAX_FAILED_INDEXES, ""));
    let many = spec
        .completions
        .is_some_and(|count| count > MANY_COMPLETIONS);
    if many && spec.backoff_limit_per_index.is_some() {
        if failed.is_none() {
            errors.push(path.child("maxFailedIndexes").required(format!(
                "must be specified when completions is above {MANY_COMPLETIONS}"
            )));
        }
        let when = format!(
            " when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
        );
        let max = MAX_WITH_MANY_COMPLETIONS;
        errors.extend(at_most("parallelism", spec.parallelism, max, &when));
        errors.extend(at_most("maxFailedIndexes", failed, max, &when));
    }
}

fn replacement_policy(spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    let supported: &[&str] = if spec.pod_failure_policy.is_some() {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    };
    if let Some(policy) = &spec.pod_replacement_policy {
        check::one_of(policy, supported, path, errors);
    }
}

fn restart_policy(spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    let none = PodSpec::default();
    let policy = text(&spec.template.spec.as_ref().unwrap_or(&none).restart_policy);
    match policy {
        "" | "Always" => {
            errors.push(path.required("valid values: \"OnFailure\", \"Never\""));
        }
        "Never" => {}
        "OnFailure" if spec.pod_failure_policy.is_some() => errors.push(path.invalid(
            policy,
            "only \"Never\" is supported when podFailurePolicy is specified",
        )),
        "OnFailure" => {}
        policy => errors.push(path.not_supported(policy, &["OnFailure", "Never"])),
    }
}
