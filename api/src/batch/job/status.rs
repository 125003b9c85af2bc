//! What is wrong with a change of a Job's status. A rule about a field is only checked when the
//! change touches what it speaks of.

use k8s_openapi::{
    api::batch::v1::{Job, JobSpec, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{has_condition, indexes, validation::is_indexed};
use crate::{
    apps::workload,
    field::{ErrorList, Path, value_of},
    zero::{list, text},
};

/// A change of a Job's status.
struct Change<'a> {
    new: &'a Job,
    old: &'a Job,
    spec: &'a JobSpec,
    status: &'a JobStatus,
    old_status: &'a JobStatus,
    path: Path,
}

pub fn update(new: &Job, old: &Job) -> ErrorList {
    let mut errors = ErrorList::new();
    let (no_spec, no_status) = (JobSpec::default(), JobStatus::default());
    let change = Change {
        new,
        old,
        spec: new.spec.as_ref().unwrap_or(&no_spec),
        status: new.status.as_ref().unwrap_or(&no_status),
        old_status: old.status.as_ref().unwrap_or(&no_status),
        path: Path::new("status"),
    };
    change.counts(&mut errors);
    change.uncounted(&mut errors);
    change.completion(&mut errors);
    change.finish(&mut errors);
    change.indexes(&mut errors);
    change.pods(&mut errors);
    change.success(&mut errors);
    change.progress(&mut errors);
    errors
}

impl Change<'_> {
    fn has(&self, condition: &str) -> bool {
        has_condition(self.new, condition)
    }

    fn had(&self, condition: &str) -> bool {
        has_condition(self.old, condition)
    }

    /// Whether a condition came or went.
    fn turned(&self, condition: &str) -> bool {
        self.has(condition) != self.had(condition)
    }

    fn is_finished(&self) -> bool {
        self.has("Complete") || self.has("Failed")
    }

    fn turned_finished(&self) -> bool {
        self.is_finished() != (self.had("Complete") || self.had("Failed"))
    }

    fn conditions(&self, problem: &str, errors: &mut ErrorList) {
        errors.push(self.path.child("conditions").invalid_without_value(problem));
    }

    fn counts(&self, errors: &mut ErrorList) {
        let status = self.status;
        let counts = [
            ("active", status.active),
            ("succeeded", status.succeeded),
            ("failed", status.failed),
            ("ready", status.ready),
            ("terminating", status.terminating),
        ]
        .map(|(field, count)| (field, count.map(i64::from)));
        workload::counts(&counts, &self.path, errors);
    }

    fn uncounted(&self, errors: &mut ErrorList) {
        let Some(uncounted) = &self.status.uncounted_terminated_pods else {
            return;
        };
        let path = self.path.child("uncountedTerminatedPods");
        let mut seen = Vec::new();
        for (field, uids) in [
            ("succeeded", list(&uncounted.succeeded)),
            ("failed", list(&uncounted.failed)),
        ] {
            for (index, uid) in uids.iter().enumerate() {
                let path = path.child(field).index(index);
                if uid.is_empty() {
                    errors.push(path.invalid("", "must not be empty"));
                } else if seen.contains(&uid) {
                    errors.push(path.duplicate(uid.as_str()));
                } else {
                    seen.push(uid);
                }
            }
        }
    }

    fn completion(&self, errors: &mut ErrorList) {
        let (status, old) = (self.status, self.old_status);
        let complete = self.has("Complete");
        let turned = self.turned("Complete");
        if complete && self.has("Failed") && (turned || self.turned("Failed")) {
            self.conditions(
                "cannot set Complete=True and Failed=true conditions",
                errors,
            );
        }
        if complete && self.has("FailureTarget") && (turned || self.turned("FailureTarget")) {
            let problem = "cannot set Complete=True and FailureTarget=true conditions";
            self.conditions(problem, errors);
        }
        let path = self.path.child("completionTime");
        let changed = status.completion_time != old.completion_time;
        let time = status.completion_time.as_ref();
        if turned || changed {
            match time {
                Some(time) if !complete => errors.push(path.invalid(
                    value_of(time),
                    "cannot set completionTime when there is no Complete=True condition",
                )),
                None if complete => {
                    errors.push(path.required("completionTime is required for Complete jobs"));
                }
                _ => {}
            }
        }
        let started = status.start_time.as_ref();
        if let (Some(Time(started)), Some(ended)) = (started, time)
            && (changed || status.start_time != old.start_time)
            && ended.0 < *started
        {
            errors.push(path.invalid(value_of(ended), "must be equal to or after `startTime`"));
        }
    }

    fn finish(&self, errors: &mut ErrorList) {
        let (status, old) = (self.status, self.old_status);
        if self.has("Failed")
            && !self.has("FailureTarget")
            && (self.turned("Failed") || status.failed_indexes != old.failed_indexes)
        {
            let problem = "cannot set Failed=True condition without the FailureTarget=true \
                           condition";
            self.conditions(problem, errors);
        }
        if self.has("Complete")
            && !self.has("SuccessCriteriaMet")
            && (self.turned("Complete") || self.turned("SuccessCriteriaMet"))
        {
            let problem = "cannot set Complete=True condition without the \
                           SuccessCriteriaMet=true condition";
            self.conditions(problem, errors);
        }
        if !self.is_finished() {
            return;
        }
        let turned = self.turned_finished();
        let active = status.active.unwrap_or_default();
        if active > 0 && (turned || status.active != old.active) {
            let path = self.path.child("active");
            errors.push(path.invalid(active, "active>0 is invalid for finished job"));
        }
        let never_ran = self.spec.suspend == Some(true) && self.spec.completions == Some(0);
        if status.start_time.is_none()
            && (turned || status.start_time != old.start_time)
            && !never_ran
        {
            let path = self.path.child("startTime");
            errors.push(path.required("startTime is required for finished job"));
        }
        if let Some(uncounted) = &status.uncounted_terminated_pods
            && (turned || status.uncounted_terminated_pods != old.uncounted_terminated_pods)
            && !(list(&uncounted.succeeded).is_empty() && list(&uncounted.failed).is_empty())
        {
            let path = self.path.child("uncountedTerminatedPods");
            errors.push(path.invalid(value_of(uncounted), "must be empty for finished job"));
        }
    }

    fn indexes(&self, errors: &mut ErrorList) {
        let (status, old) = (self.status, self.old_status);
        let completed_path = self.path.child("completedIndexes");
        let failed_path = self.path.child("failedIndexes");
        let completed = text(&status.completed_indexes);
        let completed_changed = completed != text(&old.completed_indexes);
        let failed = status.failed_indexes.as_deref();
        let failed_changed = failed != old.failed_indexes.as_deref();
        let completions = self.spec.completions;
        let per_index = self.spec.backoff_limit_per_index.is_some();

        if completed_changed
            && let Some(Err(problem)) = completions.map(|max| indexes::count(completed, max))
        {
            let detail = format!("error parsing completedIndexes: {problem}");
            errors.push(completed_path.invalid(completed, detail));
        }
        if let (true, true, Some(failed), Some(max)) =
            (failed_changed, per_index, failed, completions)
            && let Err(problem) = indexes::count(failed, max)
        {
            let detail = format!("error parsing failedIndexes: {problem}");
            errors.push(failed_path.invalid(failed, detail));
        }
        if completed_changed && !completed.is_empty() && !is_indexed(self.spec) {
            errors.push(completed_path.invalid(
                completed,
                "cannot set non-empty completedIndexes when non-indexed completion mode",
            ));
        }
        if let (true, false, Some(failed)) = (failed_changed, per_index, failed) {
            errors.push(failed_path.invalid(
                failed,
                "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
            ));
        }
        if let (Some(failed), Some(max)) = (failed, completions)
            && (failed_changed || completed_changed)
            && let Some(index) = indexes::overlap(completed, failed, max)
        {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.push(failed_path.invalid(failed, detail));
        }
    }

    fn pods(&self, errors: &mut ErrorList) {
        let (status, old) = (self.status, self.old_status);
        if let Some(terminating) = status.terminating.filter(|count| *count > 0)
            && self.is_finished()
            && (self.turned_finished() || status.terminating != old.terminating)
        {
            let path = self.path.child("terminating");
            errors.push(path.invalid(terminating, "terminating>0 is invalid for finished job"));
        }
        if let Some(ready) = status.ready
            && ready > status.active.unwrap_or_default()
            && (status.ready != old.ready || status.active != old.active)
        {
            let path = self.path.child("ready");
            errors.push(path.invalid(ready, "cannot set more ready pods than active"));
        }
    }

    fn success(&self, errors: &mut ErrorList) {
        let met = self.has("SuccessCriteriaMet");
        if met && self.has("Failed") {
            let problem = "cannot set SuccessCriteriaMet=True and Failed=true conditions";
            self.conditions(problem, errors);
        }
        if met && self.has("FailureTarget") {
            let problem = "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions";
            self.conditions(problem, errors);
        }
        if self.spec.success_policy.is_some() && !met && self.has("Complete") {
            let problem = "cannot set Complete=True for Job with SuccessPolicy unless \
                           SuccessCriteriaMet=True";
            self.conditions(problem, errors);
        }
    }

    /// What was reached stays reached.
    fn progress(&self, errors: &mut ErrorList) {
        let (status, old) = (self.status, self.old_status);
        for condition in ["Failed", "Complete", "FailureTarget"] {
            if self.had(condition) && !self.has(condition) {
                let problem = format!("cannot disable the terminal {condition}=True condition");
                self.conditions(&problem, errors);
            }
        }
        let mut grows = |field: &str, new: Option<i32>, old: Option<i32>| {
            let new = new.unwrap_or_default();
            if new < old.unwrap_or_default() {
                let problem = format!("cannot decrease the {field} counter");
                errors.push(self.path.child(field).invalid(new, problem));
            }
        };
        grows("failed", status.failed, old.failed);
        // Scaling down an indexed Job takes completions away.
        if !is_indexed(self.spec) || self.spec.completions != self.spec.parallelism {
            grows("succeeded", status.succeeded, old.succeeded);
        }
        self.times(errors);
        let met = self.has("SuccessCriteriaMet");
        if self.had("SuccessCriteriaMet") && !met {
            let problem = "cannot disable the SuccessCriteriaMet=True condition";
            self.conditions(problem, errors);
        }
        if self.had("Complete") && !self.had("SuccessCriteriaMet") && met {
            let problem = "cannot set SuccessCriteriaMet=True for Job already has Complete=true \
                           conditions";
            self.conditions(problem, errors);
        }
    }

    fn times(&self, errors: &mut ErrorList) {
        let (status, old) = (self.status, self.old_status);
        if let (Some(time), Some(old)) = (&status.completion_time, &old.completion_time)
            && time != old
        {
            let path = self.path.child("completionTime");
            errors.push(path.invalid(value_of(time), "field is immutable"));
        }
        let is_false = |job: &Job| {
            let conditions = job.status.as_ref().map(|status| list(&status.conditions));
            conditions
                .into_iter()
                .flatten()
                .any(|condition| condition.type_ == "Suspended" && condition.status == "False")
        };
        let resumes = self.had("Suspended") && is_false(self.new);
        if old.start_time.is_some()
            && status.start_time != old.start_time
            && !resumes
            && self.spec.suspend != Some(true)
        {
            errors.push(self.path.child("startTime").invalid(
                value_of(&status.start_time),
                "field is immutable for unsuspended job once set",
            ));
        }
    }
}
