//! What differs between kinds, so that there is one generic handler per verb.
//!
//! A built-in kind implements [`Behaviour`] on its `k8s-openapi` type; [`Builtin`] puts that
//! behind the object-safe [`Strategy`]. A custom resource makes a [`Strategy`] at run time.

use std::marker::PhantomData;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::{
    decode,
    expression::Expression,
    field::ErrorList,
    object::{Object, Typed},
    table,
};

/// A part of an object that is written on its own and that the generic update serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    Status,
    /// `resize` and `ephemeralcontainers` of Pods.
    Resize,
    EphemeralContainers,
    /// `finalize` of Namespaces.
    Finalize,
    /// `approval` of CertificateSigningRequests.
    Approval,
}

/// A column of `kubectl get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub column_type: &'static str,
    /// `name` for the first column, otherwise mostly empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, above 0 only with `-o wide`.
    pub priority: i32,
}

/// Why a body is no object of the kind, in Go's words.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Mismatch(Mismatch),
    #[error("{0}")]
    Other(String),
}

/// A value of a type that its field is not of.
#[derive(Clone, Debug, thiserror::Error)]
#[error("json: cannot unmarshal {value} into Go {target} of type {go_type}")]
pub struct Mismatch {
    /// What it is: `string`, `object`, `number 1.5`.
    pub value: String,
    /// Where it stands: `struct field PodSpec.spec.containers`, `value`.
    pub target: String,
    /// What should stand there: `[]v1.Container`, `v1.DNSPolicy`.
    pub go_type: String,
    /// The same without the names of types that are texts: `string`.
    pub plain_type: String,
    /// Whether the type reads itself from JSON, as times do.
    pub reads_itself: bool,
}

/// Which parts of a kind the generic handling knows: it drops the status on create, keeps it on
/// update, takes nothing else from an update of the status, and raises the generation when the
/// spec changes. A kind writes it as one line with [`shape!`](crate::shape).
pub struct Shape<T> {
    pub status: Option<StatusPart<T>>,
    /// Whether what raises `metadata.generation` is the same in both. `None`: the kind has no
    /// generation.
    pub same_spec: Option<fn(&T, &T) -> bool>,
}

impl<T> Shape<T> {
    /// A kind with neither status nor generation.
    pub const NONE: Self = Shape {
        status: None,
        same_spec: None,
    };
}

/// The status of a kind.
pub struct StatusPart<T> {
    /// Replaces it by an empty one.
    pub clear: fn(&mut T),
    /// Copies it.
    pub copy: fn(to: &mut T, from: &T),
    pub meta: StatusMeta,
}

/// What an update of the status takes from the client's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusMeta {
    /// All that an update of the object takes.
    Take,
    /// All but the labels.
    KeepLabels,
    /// Only `managedFields`, and what is wrong is still noticed.
    Keep,
    /// Only `managedFields`, and nothing else is looked at.
    KeepAll,
}

/// The [`Shape`] of a kind: `shape!(generation: spec, status)`, `shape!(status,
/// StatusMeta::Keep)`, `shape!(generation: template)`.
#[macro_export]
macro_rules! shape {
    (generation: $spec:ident) => {
        $crate::strategy::Shape {
            status: None,
            same_spec: Some(|new, old| new.$spec == old.$spec),
        }
    };
    (generation: $spec:ident, status) => {
        $crate::shape!(generation: $spec, status, $crate::strategy::StatusMeta::Take)
    };
    (generation: $spec:ident, status, $meta:expr) => {
        $crate::strategy::Shape {
            same_spec: Some(|new, old| new.$spec == old.$spec),
            ..$crate::shape!(status, $meta)
        }
    };
    (status) => {
        $crate::shape!(status, $crate::strategy::StatusMeta::Take)
    };
    (status, $meta:expr) => {
        $crate::strategy::Shape {
            status: Some($crate::strategy::StatusPart {
                clear: |object| object.status = Some($crate::decode::empty()),
                copy: |to, from| to.status.clone_from(&from.status),
                meta: $meta,
            }),
            same_spec: None,
        }
    };
}

/// What a built-in kind adds to the generic handling. Every method has the default that fits a
/// kind without peculiarities.
///
/// The methods that prepare an object run after the generic handling of [`Behaviour::SHAPE`].
pub trait Behaviour: Typed {
    /// The parts that are handled generically.
    const SHAPE: Shape<Self> = Shape::NONE;
    /// Whether clients may create it with a status.
    const CREATED_WITH_STATUS: bool = false;

    /// What no object that is read may be, beyond the types of its fields.
    fn check_decoded(&self) -> Result<(), String> {
        Ok(())
    }
    /// Fills in upstream's default values.
    fn default_fields(&mut self) {}
    /// Drops what a client may not set.
    fn prepare_for_create(&mut self) {}
    /// Keeps from `old` what an update through the main resource may not change.
    fn prepare_for_update(&mut self, _old: &Self) {}
    /// Keeps from `old` what an update through the subresource may not change.
    fn prepare_for_subresource(&mut self, _old: &Self, _subresource: Subresource) {}
    /// What is wrong with it. Metadata is validated generically.
    fn validate(&self) -> ErrorList {
        ErrorList::new()
    }
    /// What is wrong with it as a change of `old`; the default is [`Behaviour::validate`], which
    /// a kind with rules for changes calls where upstream does.
    fn validate_update(&self, _old: &Self) -> ErrorList {
        self.validate()
    }
    /// The CEL expressions in it, each behind those that it may speak of.
    fn expressions(&self) -> Vec<Expression<'_>> {
        Vec::new()
    }
    /// What is wrong with a change through a subresource.
    fn validate_subresource(&self, _old: &Self, _subresource: Subresource) -> ErrorList {
        ErrorList::new()
    }
    /// Whether the change raises `metadata.generation` (mostly: whether the spec changed).
    /// `None`: the kind has no generation.
    fn generation_changed(&self, old: &Self) -> Option<bool> {
        Self::SHAPE.same_spec.map(|same| !same(self, old))
    }
    /// Warnings for the client, as upstream's `WarningsOnCreate` and `WarningsOnUpdate`.
    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        Vec::new()
    }
    /// Warnings for the client that wrote the status.
    fn status_warnings(&self) -> Vec<String> {
        Vec::new()
    }
    /// The fields that field selectors may name, beside `metadata.name` and
    /// `metadata.namespace`.
    const SELECTABLE_FIELDS: &'static [&'static str] = &[];
    /// The values of [`Behaviour::SELECTABLE_FIELDS`], in the same order.
    fn selectable_fields(&self) -> Vec<String> {
        Vec::new()
    }
    /// Upstream's columns; the default is Name and Created At.
    fn columns() -> &'static [Column] {
        NAME_AND_CREATION
    }
    /// One cell per column. Ages are computed from `now`.
    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        name_and_creation(self.metadata())
    }
    /// How long a deletion waits before the object goes; `None`: it goes at once. `requested`
    /// is the client's `gracePeriodSeconds`.
    fn grace_period_seconds(&self, _requested: Option<i64>) -> Option<i64> {
        None
    }
}

/// [`Behaviour`] without the type. See there for what each method means.
pub trait Strategy: Send + Sync {
    /// Reads a JSON object of this kind. `problems` takes what strict decoding refuses; see
    /// [`decode::from_slice`].
    fn decode(
        &self,
        json: &[u8],
        problems: &mut Vec<String>,
    ) -> Result<Box<dyn Object>, DecodeError>;
    /// The same of JSON that was parsed before, such as a patched object.
    fn decode_value(
        &self,
        json: &Value,
        problems: &mut Vec<String>,
    ) -> Result<Box<dyn Object>, DecodeError> {
        self.decode(json.to_string().as_bytes(), problems)
    }
    /// Reads what [`Object::write_json`] wrote of an object that was decoded before: it is in
    /// canonical form already, and nothing in it is unknown.
    fn decode_stored(&self, json: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        self.decode(json, &mut Vec::new())
    }
    fn default_fields(&self, object: &mut dyn Object);
    fn prepare_for_create(&self, object: &mut dyn Object);
    fn prepare_for_update(
        &self,
        new: &mut dyn Object,
        old: &dyn Object,
        subresource: Option<Subresource>,
    );
    fn validate_create(&self, object: &dyn Object) -> ErrorList;
    fn validate_update(
        &self,
        new: &dyn Object,
        old: &dyn Object,
        subresource: Option<Subresource>,
    ) -> ErrorList;
    /// Whoever validates an object checks these too, but for writes of subresources.
    fn expressions<'o>(&self, _object: &'o dyn Object) -> Vec<Expression<'o>> {
        Vec::new()
    }
    fn generation_changed(&self, new: &dyn Object, old: &dyn Object) -> Option<bool>;
    /// `subresource`: what was written, unless it was the object as a whole.
    fn warnings(
        &self,
        new: &dyn Object,
        old: Option<&dyn Object>,
        subresource: Option<Subresource>,
    ) -> Vec<String>;
    fn selectable_field_names(&self) -> Vec<String>;
    fn selectable_fields(&self, object: &dyn Object) -> Vec<String>;
    fn columns(&self) -> Vec<Column>;
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value>;
    fn grace_period_seconds(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64>;
}

/// The [`Strategy`] of a built-in type.
pub struct Builtin<T>(PhantomData<fn() -> T>);

impl<T> Default for Builtin<T> {
    fn default() -> Self {
        Builtin(PhantomData)
    }
}

fn typed<T: Typed>(object: &dyn Object) -> &T {
    object
        .as_any()
        .downcast_ref()
        .expect("a strategy is only given objects that it decoded")
}

fn typed_mut<T: Typed>(object: &mut dyn Object) -> &mut T {
    object
        .as_any_mut()
        .downcast_mut()
        .expect("a strategy is only given objects that it decoded")
}

impl<T: Behaviour> Strategy for Builtin<T> {
    fn decode(
        &self,
        json: &[u8],
        problems: &mut Vec<String>,
    ) -> Result<Box<dyn Object>, DecodeError> {
        let object: T = decode::from_slice(json, problems)?;
        object.check_decoded().map_err(DecodeError::Other)?;
        Ok(Box::new(object))
    }

    fn decode_value(
        &self,
        json: &Value,
        problems: &mut Vec<String>,
    ) -> Result<Box<dyn Object>, DecodeError> {
        let object: T = decode::from_value(json, problems)?;
        object.check_decoded().map_err(DecodeError::Other)?;
        Ok(Box::new(object))
    }

    fn decode_stored(&self, json: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        match serde_json::from_slice::<T>(json) {
            Ok(object) => Ok(Box::new(object)),
            // Something that another program stored.
            Err(_) => self.decode(json, &mut Vec::new()),
        }
    }

    fn default_fields(&self, object: &mut dyn Object) {
        typed_mut::<T>(object).default_fields();
    }

    fn prepare_for_create(&self, object: &mut dyn Object) {
        let object = typed_mut::<T>(object);
        if let Some(status) = T::SHAPE.status.as_ref().filter(|_| !T::CREATED_WITH_STATUS) {
            (status.clear)(object);
        }
        object.prepare_for_create();
    }

    fn prepare_for_update(
        &self,
        new: &mut dyn Object,
        old: &dyn Object,
        subresource: Option<Subresource>,
    ) {
        let (new, old) = (typed_mut::<T>(new), typed::<T>(old));
        let Some(subresource) = subresource else {
            if let Some(status) = &T::SHAPE.status {
                (status.copy)(new, old);
            }
            return new.prepare_for_update(old);
        };
        if let (Subresource::Status, Some(status)) = (subresource, &T::SHAPE.status) {
            take_status(new, old, status);
        }
        new.prepare_for_subresource(old, subresource);
    }

    fn validate_create(&self, object: &dyn Object) -> ErrorList {
        typed::<T>(object).validate()
    }

    fn validate_update(
        &self,
        new: &dyn Object,
        old: &dyn Object,
        subresource: Option<Subresource>,
    ) -> ErrorList {
        let (new, old) = (typed::<T>(new), typed::<T>(old));
        match subresource {
            Some(subresource) => new.validate_subresource(old, subresource),
            None => new.validate_update(old),
        }
    }

    fn expressions<'o>(&self, object: &'o dyn Object) -> Vec<Expression<'o>> {
        typed::<T>(object).expressions()
    }

    fn generation_changed(&self, new: &dyn Object, old: &dyn Object) -> Option<bool> {
        typed::<T>(new).generation_changed(typed::<T>(old))
    }

    fn warnings(
        &self,
        new: &dyn Object,
        old: Option<&dyn Object>,
        subresource: Option<Subresource>,
    ) -> Vec<String> {
        let new = typed::<T>(new);
        match subresource {
            None => new.warnings(old.map(typed::<T>)),
            Some(Subresource::Status) => new.status_warnings(),
            Some(_) => Vec::new(),
        }
    }

    fn selectable_field_names(&self) -> Vec<String> {
        T::SELECTABLE_FIELDS
            .iter()
            .map(|&name| name.to_owned())
            .collect()
    }

    fn selectable_fields(&self, object: &dyn Object) -> Vec<String> {
        typed::<T>(object).selectable_fields()
    }

    fn columns(&self) -> Vec<Column> {
        T::columns().to_vec()
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        typed::<T>(object).cells(now)
    }

    fn grace_period_seconds(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        typed::<T>(object).grace_period_seconds(requested)
    }
}

/// Makes `new` the old object with the new status, and as much new metadata as the kind allows.
fn take_status<T: Typed>(new: &mut T, old: &T, status: &StatusPart<T>) {
    let written = std::mem::replace(new, old.clone());
    (status.copy)(new, &written);
    let mut meta = written.metadata().clone();
    match status.meta {
        StatusMeta::Take => {}
        StatusMeta::KeepLabels => meta.labels.clone_from(&old.metadata().labels),
        StatusMeta::Keep => keep_meta_for_status(&mut meta, old.metadata()),
        StatusMeta::KeepAll => {
            let managed_fields = meta.managed_fields.take();
            meta.clone_from(old.metadata());
            meta.managed_fields = managed_fields;
        }
    }
    *new.metadata_mut() = meta;
}

/// Keeps all metadata that belongs to the object rather than to its status.
///
/// Name, namespace, uid and resource version stay, so that what is wrong with them is still
/// noticed; `managedFields` are maintained for each write.
pub(crate) fn keep_meta_for_status(meta: &mut ObjectMeta, old: &ObjectMeta) {
    meta.deletion_timestamp.clone_from(&old.deletion_timestamp);
    meta.generation = old.generation;
    meta.self_link.clone_from(&old.self_link);
    meta.labels.clone_from(&old.labels);
    meta.annotations.clone_from(&old.annotations);
    meta.finalizers.clone_from(&old.finalizers);
    meta.owner_references.clone_from(&old.owner_references);
}

/// The columns of a kind that defines none.
pub const NAME_AND_CREATION: &[Column] = &[
    table::NAME,
    Column {
        name: "Created At",
        column_type: "date",
        ..table::AGE
    },
];

/// The cells of [`NAME_AND_CREATION`].
pub fn name_and_creation(metadata: &ObjectMeta) -> Vec<Value> {
    let created = metadata.creation_timestamp.as_ref();
    vec![
        table::name(metadata),
        serde_json::to_value(created).unwrap_or_default(),
    ]
}
