//! What `coracle secrets-encrypt` asks of a running server: how Secrets are encrypted, another
//! key, everything written again.
//!
//! A rotation is never in a state that a crash could make worse: the new key is in the file
//! before anything is written with it, and the old one leaves the file only after nothing is
//! left that needs it. What was interrupted is finished by the next rotation or re-encryption.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use coracle_store::{Error, Store as _};
use http::{Method, Response, StatusCode, header};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinError;

use super::{ConfigurationError, EncryptedStore, OwnKeys, OwnKeysError, Rules, rules::KeyInfo};
use crate::{
    ApiError,
    handler::{PathCall, PathHandler},
    registry::ROOT,
};

pub const STATUS_PATH: &str = "/v1-coracle/encrypt/status";
pub const ROTATE_PATH: &str = "/v1-coracle/encrypt/rotate-keys";
pub const REENCRYPT_PATH: &str = "/v1-coracle/encrypt/reencrypt";

/// Why a rotation or re-encryption stopped.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error(transparent)]
    Keys(#[from] OwnKeysError),
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    #[error("a part of the work was cancelled: {0}")]
    Task(#[from] JoinError),
    #[error("the keys are those of --encryption-provider-config: change that file")]
    NotOurs,
    #[error("a rotation or re-encryption is under way")]
    Busy,
    #[error("values are still being written with an old key, which is kept: try again")]
    StillStale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Start,
    Rotate,
    ReencryptActive,
    ReencryptFinished,
}

/// Answers `coracle secrets-encrypt`.
pub struct Control {
    store: EncryptedStore,
    own: Mutex<Option<OwnKeys>>,
    /// Whether the own keys are only there to read what was written before.
    configured: bool,
    stage: Mutex<Stage>,
    working: tokio::sync::Mutex<()>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    enabled: bool,
    stage: Stage,
    keys: Vec<KeyInfo>,
    /// Values that are stored in another way than they would be now.
    stale: usize,
    unreadable: usize,
}

impl Control {
    /// Of a store that is encrypted with keys of its own.
    pub fn with_own_keys(store: EncryptedStore, own: OwnKeys) -> Self {
        let stage = if own.has_old_keys() {
            Stage::Rotate
        } else {
            Stage::Start
        };
        Control {
            store,
            own: Mutex::new(Some(own)),
            configured: false,
            stage: Mutex::new(stage),
            working: tokio::sync::Mutex::default(),
        }
    }

    /// Of a store with a configuration from outside. `own`: the keys from before it.
    pub fn with_configuration(store: EncryptedStore, own: Option<OwnKeys>) -> Self {
        Control {
            store,
            own: Mutex::new(own),
            configured: true,
            stage: Mutex::new(Stage::Start),
            working: tokio::sync::Mutex::default(),
        }
    }

    /// The rules of a configuration from outside. What was encrypted with `own` keys before can
    /// be read.
    pub fn rules(text: &str, own: Option<&OwnKeys>) -> Result<Rules, ControlError> {
        let rules = Rules::parse(text)?;
        Ok(match own {
            Some(own) => rules.also_reading(&own.rules()?),
            None => rules,
        })
    }

    /// Goes on with another configuration.
    pub async fn reload(&self, text: &str) -> Result<(), ControlError> {
        let rules = Self::rules(text, self.own.lock().as_ref())?;
        self.store.set_rules(rules).await?;
        *self.stage.lock() = Stage::Start;
        Ok(())
    }

    /// The handlers of the paths that the command calls.
    pub fn handlers(self: &Arc<Self>) -> Vec<(&'static str, Arc<dyn PathHandler>)> {
        [
            (STATUS_PATH, Action::Status),
            (ROTATE_PATH, Action::Rotate),
            (REENCRYPT_PATH, Action::Reencrypt),
        ]
        .map(|(path, action)| {
            let control = self.clone();
            let handler: Arc<dyn PathHandler> = Arc::new(ControlHandler { control, action });
            (path, handler)
        })
        .into()
    }

    async fn status(&self) -> Result<Status, Error> {
        let keys = self.store.rules().secret_keys();
        let stale = self.store.stale().await?;
        Ok(Status {
            enabled: keys.iter().any(|key| key.active),
            stage: *self.stage.lock(),
            keys,
            stale,
            unreadable: self.store.unreadable(ROOT).len(),
        })
    }

    /// Encrypts everything with a new key and forgets the old ones. Returns how many values were
    /// written again.
    pub async fn rotate_keys(self: Arc<Self>) -> Result<usize, ControlError> {
        let _working = self.working.try_lock().map_err(|_| ControlError::Busy)?;
        if self.configured {
            return Err(ControlError::NotOurs);
        }
        self.finish().await?;
        *self.stage.lock() = Stage::Rotate;
        self.change_keys(OwnKeys::add_key).await?;
        self.finish().await
    }

    /// Writes again what is not stored as it would be now, and finishes a rotation that was
    /// interrupted.
    pub async fn reencrypt(self: Arc<Self>) -> Result<usize, ControlError> {
        let _working = self.working.try_lock().map_err(|_| ControlError::Busy)?;
        self.finish().await
    }

    async fn finish(&self) -> Result<usize, ControlError> {
        *self.stage.lock() = Stage::ReencryptActive;
        let result = self.store.reencrypt().await;
        let stale = self.store.stale().await;
        let outcome = match (result, stale) {
            (Err(error), _) | (_, Err(error)) => Err(error.into()),
            (Ok(_), Ok(1..)) => Err(ControlError::StillStale),
            (Ok(count), Ok(0)) => {
                let old = self.own.lock().as_ref().is_some_and(OwnKeys::has_old_keys);
                if old && !self.configured {
                    self.change_keys(OwnKeys::drop_old_keys).await?;
                }
                Ok(count)
            }
        };
        *self.stage.lock() = match outcome {
            Ok(_) => Stage::ReencryptFinished,
            Err(_) => Stage::Rotate,
        };
        outcome
    }

    /// Changes the file first, then what is in use.
    async fn change_keys(
        &self,
        change: fn(&mut OwnKeys) -> Result<(), OwnKeysError>,
    ) -> Result<(), ControlError> {
        let Some(mut keys) = self.own.lock().clone() else {
            return Ok(());
        };
        let keys = tokio::task::spawn_blocking(move || change(&mut keys).map(|()| keys)).await??;
        let rules = keys.rules()?;
        *self.own.lock() = Some(keys);
        self.store.set_rules(rules).await?;
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Action {
    Status,
    Rotate,
    Reencrypt,
}

struct ControlHandler {
    control: Arc<Control>,
    action: Action,
}

#[async_trait]
impl PathHandler for ControlHandler {
    async fn handle(&self, call: PathCall<'_>) -> Result<Response<Body>, ApiError> {
        let method = match self.action {
            Action::Status => Method::GET,
            Action::Rotate | Action::Reencrypt => Method::POST,
        };
        if call.context.parts.method != method {
            return Err(ApiError::method_not_allowed());
        }
        let control = self.control.clone();
        let json = match self.action {
            Action::Status => json(&control.status().await?),
            // In tasks of their own, so that a lost connection does not interrupt them.
            Action::Rotate => rewritten(tokio::spawn(control.rotate_keys()).await),
            Action::Reencrypt => rewritten(tokio::spawn(control.reencrypt()).await),
        }?;
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = StatusCode::OK;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok(response)
    }
}

#[derive(Serialize)]
struct Rewritten {
    rewritten: usize,
}

fn rewritten(done: Result<Result<usize, ControlError>, JoinError>) -> Result<Vec<u8>, ApiError> {
    let refused = |error: ControlError| match error {
        ControlError::Busy | ControlError::NotOurs => ApiError::bad_request(error.to_string()),
        error => ApiError::internal(error),
    };
    let rewritten = done
        .map_err(ControlError::Task)
        .flatten()
        .map_err(refused)?;
    json(&Rewritten { rewritten })
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(ApiError::internal)
}
