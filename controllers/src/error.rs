//! Why a controller could not do its work, and what the API's answers mean.

/// Why an object could not be brought nearer to what it asks for; the work is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", message(.0))]
    Api(#[from] kube::Error),
    #[error("{action}: {}", message(.source))]
    Action { action: String, source: kube::Error },
    /// What was found rules the work out for now.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// Says what was attempted, with the object's name.
    pub(crate) fn doing(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
        move |source| Error::Action {
            action: action.into(),
            source,
        }
    }

    /// Somebody else wrote the object first; looking again resolves it.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Error::Api(error) | Error::Action { source: error, .. } => is_conflict(error),
            Error::Refused(_) => false,
        }
    }
}

/// The answer's message alone, as upstream's clients print it into events and conditions.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() && !status.is_already_exists())
}

pub(crate) fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

pub(crate) fn is_invalid(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_invalid())
}

/// The namespace is going away: nothing can be created in it, and nothing needs to be.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let details = status.details.iter();
    details
        .flat_map(|details| &details.causes)
        .any(|cause| cause.reason == "NamespaceTerminating")
}

/// Takes "it is not there any more" for an answer.
pub(crate) fn optional<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
