//! `Priority`: what a pod's priority class means, in numbers.

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::api::{core::v1::Pod, scheduling::v1::PriorityClass};

use super::{Admission, Attributes, Operation, typed, typed_mut};
use crate::{Lister, Registry, Shared, error::ApiError};

const PREEMPT: &str = "PreemptLowerPriority";
const CLASSES: (&str, &str) = ("scheduling.k8s.io", "priorityclasses");

/// The plugin.
pub struct Priority {
    registry: Registry,
    classes: Lister<PriorityClass>,
}

/// What a class says.
struct Meaning {
    class: Option<String>,
    value: i32,
    preemption: Option<String>,
}

impl Priority {
    pub fn new(registry: Registry) -> Self {
        Priority {
            classes: registry.lister(),
            registry,
        }
    }

    /// The class of pods that name none; the one of lowest value if there are several.
    fn default_class(&self) -> Option<Shared<PriorityClass>> {
        let classes = self.classes.list("").into_iter();
        classes
            .filter(|class| class.global_default == Some(true))
            .min_by_key(|class| class.value)
    }

    async fn meaning(
        &self,
        attributes: &Attributes<'_>,
        pod: &Pod,
        name: &str,
    ) -> Result<Meaning, ApiError> {
        if name.is_empty() {
            return Ok(match self.default_class() {
                Some(class) => meaning_of(&class),
                None => Meaning {
                    class: None,
                    value: 0,
                    preemption: Some(PREEMPT.to_owned()),
                },
            });
        }
        let mut class = self.classes.get("", name);
        if class.is_none() {
            self.registry.fresh().await?;
            class = self.classes.get("", name);
        }
        class.map(|class| meaning_of(&class)).ok_or_else(|| {
            let why = format!("no PriorityClass with name {name} was found");
            attributes.forbidden(Some(pod), why)
        })
    }

    async fn create(&self, attributes: &Attributes<'_>, pod: &mut Pod) -> Result<(), ApiError> {
        let given = pod.spec.clone().unwrap_or_default();
        let name = given.priority_class_name.as_deref().unwrap_or_default();
        let meaning = self.meaning(attributes, pod, name).await?;
        let value = meaning.value;
        if let Some(priority) = given.priority.filter(|&priority| priority != value) {
            return Err(attributes.forbidden(Some(pod), format!(
                "the integer value of priority ({priority}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            )));
        }
        if let Some((given, computed)) = given.preemption_policy.zip(meaning.preemption.as_ref())
            && given != *computed
        {
            return Err(attributes.forbidden(Some(pod), format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
            )));
        }
        let spec = pod.spec.get_or_insert_default();
        spec.priority_class_name = meaning.class;
        spec.priority = Some(value);
        if meaning.preemption.is_some() {
            spec.preemption_policy = meaning.preemption;
        }
        Ok(())
    }
}

fn meaning_of(class: &PriorityClass) -> Meaning {
    Meaning {
        class: class.metadata.name.clone(),
        value: class.value.unwrap_or_default(),
        preemption: class.preemption_policy.clone(),
    }
}

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && (attributes.is("", "pods") || attributes.is(CLASSES.0, CLASSES.1))
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(pod) = typed_mut::<Pod>(object) else {
            return Ok(());
        };
        if attributes.operation == Operation::Create {
            return self.create(attributes, pod).await;
        }
        let old = typed::<Pod>(old).and_then(|old| old.spec.as_ref());
        if let Some((spec, old)) = pod.spec.as_mut().zip(old) {
            spec.priority = spec.priority.or(old.priority);
            if spec.preemption_policy.is_none() {
                spec.preemption_policy.clone_from(&old.preemption_policy);
            }
        }
        Ok(())
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(class) = typed::<PriorityClass>(object) else {
            return Ok(());
        };
        if class.global_default != Some(true) {
            return Ok(());
        }
        let Some(default) = self.default_class() else {
            return Ok(());
        };
        let same = default.metadata.name == class.metadata.name;
        if attributes.operation == Operation::Update && same {
            return Ok(());
        }
        let name = default.metadata.name.as_deref().unwrap_or_default();
        Err(attributes.forbidden(
            object,
            format!(
                "PriorityClass {name} is already marked as default. Only one default can exist"
            ),
        ))
    }
}
