//! What is wrong with a StatefulSet.

use k8s_openapi::api::{
    apps::v1::{
        RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetStatus,
        StatefulSetUpdateStrategy,
    },
    core::v1::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume},
};

use serde_json::Value;

use crate::{
    apps::workload::{self, Selected},
    check,
    core::{persistent_volume_claim, pod::validation},
    field::{BadValue, ErrorList, Path, value_of},
    selector,
    zero::{list, text},
};

/// Whether what cannot change is checked: an update leaves it as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Create,
    Update,
}

pub fn create(set: &StatefulSet) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(spec) = &set.spec {
        validate_spec(spec, On::Create, &Path::new("spec"), &mut errors);
    }
    errors
}

pub fn update(new: &StatefulSet, old: &StatefulSet) -> ErrorList {
    let mut errors = ErrorList::new();
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return errors;
    };
    validate_spec(new, On::Update, &Path::new("spec"), &mut errors);
    let rest = StatefulSetSpec {
        replicas: old.replicas,
        template: old.template.clone(),
        update_strategy: old.update_strategy.clone(),
        min_ready_seconds: old.min_ready_seconds,
        ordinals: old.ordinals.clone(),
        revision_history_limit: old.revision_history_limit,
        persistent_volume_claim_retention_policy: old
            .persistent_volume_claim_retention_policy
            .clone(),
        ..new.clone()
    };
    if rest != *old {
        errors.push(Path::new("spec").forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
             'template', 'updateStrategy', 'revisionHistoryLimit', \
             'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
    errors
}

fn validate_spec(spec: &StatefulSetSpec, on: On, path: &Path, errors: &mut ErrorList) {
    let policy_path = path.child("podManagementPolicy");
    match text(&spec.pod_management_policy) {
        "" => errors.push(policy_path.required("")),
        "OrderedReady" | "Parallel" => {}
        other => {
            errors.push(policy_path.invalid(other, "must be 'OrderedReady' or 'Parallel'"));
        }
    }
    let no_strategy = StatefulSetUpdateStrategy::default();
    let strategy = spec.update_strategy.as_ref().unwrap_or(&no_strategy);
    update_strategy(strategy, &path.child("updateStrategy"), errors);
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for (field, value) in [
            ("whenDeleted", &policy.when_deleted),
            ("whenScaled", &policy.when_scaled),
        ] {
            check::one_of(
                text(value),
                &["Retain", "Delete"],
                &path.child(field),
                errors,
            );
        }
    }
    if on == On::Create {
        for (index, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
            let path = path
                .child("volumeClaimTemplates")
                .index(index)
                .child("spec");
            if let Some(spec) = &claim.spec {
                persistent_volume_claim::spec(spec, &path, errors);
            }
        }
    }
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start);
    workload::counts(
        &[
            ("replicas", spec.replicas.map(i64::from)),
            ("minReadySeconds", spec.min_ready_seconds.map(i64::from)),
            ("ordinals.start", start.map(i64::from)),
        ],
        path,
        errors,
    );
    let service = text(&spec.service_name);
    if on == On::Create && !service.is_empty() {
        check::dns_label(service, &path.child("serviceName"), errors);
    }
    validate_template(spec, path, errors);
}

fn update_strategy(strategy: &StatefulSetUpdateStrategy, path: &Path, errors: &mut ErrorList) {
    let rolling_path = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.push(path.required("")),
        ("OnDelete", Some(rolling)) => errors.push(rolling_path.invalid(
            shown(rolling),
            "only allowed for updateStrategy 'RollingUpdate'",
        )),
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &rolling_path, errors),
        ("OnDelete" | "RollingUpdate", None) => {}
        (kind, rolling) => {
            let rolling = rolling.as_ref().map_or(Value::Null.into(), shown);
            let strategy =
                BadValue::Struct(vec![("Type", kind.into()), ("RollingUpdate", rolling)]);
            errors.push(path.invalid(strategy, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

fn shown(rolling: &RollingUpdateStatefulSetStrategy) -> BadValue {
    BadValue::Struct(vec![
        ("Partition", rolling.partition.unwrap_or_default().into()),
        ("MaxUnavailable", value_of(&rolling.max_unavailable).into()),
    ])
}

fn rolling_update(rolling: &RollingUpdateStatefulSetStrategy, path: &Path, errors: &mut ErrorList) {
    workload::counts(
        &[("partition", rolling.partition.map(i64::from))],
        path,
        errors,
    );
    if let Some(unavailable) = &rolling.max_unavailable {
        let path = path.child("maxUnavailable");
        check::count_or_percent(unavailable, &path, errors);
        if workload::number(Some(unavailable)) == 0 {
            errors.push(path.invalid(value_of(unavailable), "cannot be 0"));
        }
        check::at_most_hundred_percent(unavailable, &path, errors);
    }
}

fn validate_template(spec: &StatefulSetSpec, path: &Path, errors: &mut ErrorList) {
    let template = with_claims(spec);
    let selected = Selected {
        selector: &spec.selector,
        template: &template,
    };
    let template_path = path.child("template");
    selected.check_selector(path, errors);
    match selector::LabelSelector::from_object(Some(&spec.selector)) {
        Err(_) => errors.push(path.child("selector").invalid(value_of(&spec.selector), "")),
        Ok(selector) => {
            selected.check_labels(&selector, &template_path, errors);
            validation::pod_template(&template, &template_path, errors);
        }
    }
    workload::runs_for_ever(&template, "StatefulSet", &template_path, errors);
}

/// The template as its Pods will be: with a volume for each claim, and named by the set.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let pod = template.spec.get_or_insert_default();
    pod.hostname = None;
    pod.subdomain = None;
    let own = pod.volumes.take().unwrap_or_default();
    let mut volumes: Vec<Volume> = list(&spec.volume_claim_templates)
        .iter()
        .map(|claim| Volume {
            name: text(&claim.metadata.name).to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: text(&claim.metadata.name).to_owned(),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let hidden: Vec<String> = volumes.iter().map(|volume| volume.name.clone()).collect();
    volumes.extend(
        own.into_iter()
            .filter(|volume| !hidden.contains(&volume.name)),
    );
    pod.volumes = Some(volumes);
    template
}

pub fn status(new: &StatefulSetStatus, old: &StatefulSetStatus) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("status");
    workload::counts(
        &[
            ("replicas", Some(new.replicas.into())),
            ("readyReplicas", new.ready_replicas.map(i64::from)),
            ("currentReplicas", new.current_replicas.map(i64::from)),
            ("updatedReplicas", new.updated_replicas.map(i64::from)),
            ("availableReplicas", new.available_replicas.map(i64::from)),
            ("observedGeneration", new.observed_generation),
            ("collisionCount", new.collision_count.map(i64::from)),
        ],
        &path,
        &mut errors,
    );
    workload::at_most_replicas(
        new.replicas,
        &[
            ("readyReplicas", new.ready_replicas),
            ("currentReplicas", new.current_replicas),
            ("updatedReplicas", new.updated_replicas),
            ("availableReplicas", new.available_replicas),
        ],
        &path,
        &mut errors,
    );
    let available = new.available_replicas.unwrap_or(0);
    if available > new.ready_replicas.unwrap_or(0) {
        errors.push(
            path.child("availableReplicas")
                .invalid(available, "cannot be greater than status.readyReplicas"),
        );
    }
    workload::collision_count(new.collision_count, old.collision_count, &path, &mut errors);
    errors
}
