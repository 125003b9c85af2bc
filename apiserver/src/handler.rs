//! Resources and subresources that are answered by code instead of from the store: reviews,
//! tokens, and everything that is passed on to a node.
//!
//! Enter at [`Handler`]; [`Handlers`] finds the one for a request.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response};

use crate::{
    error::ApiError,
    registry::Resource,
    server::{ApiServer, Context},
};

/// A request that was authenticated and authorised, for a resource that is in the table of
/// kinds with this verb.
pub struct Call<'a> {
    pub server: &'a ApiServer,
    pub context: &'a Context,
    pub resource: &'a Arc<Resource>,
    pub body: Body,
}

impl Call<'_> {
    /// The request as it came, to be passed on or upgraded.
    pub fn into_request(self) -> Request<Body> {
        Request::from_parts(self.context.parts.clone(), self.body)
    }
}

/// Answers the requests for one resource or subresource.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError>;
}

/// What a handler is for. `subresource` is empty for the resource itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub group: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
}

/// A request for a path that names no resource.
pub struct PathCall<'a> {
    pub server: &'a ApiServer,
    pub context: &'a Context,
    pub body: Body,
}

/// Answers the requests for one path.
#[async_trait]
pub trait PathHandler: Send + Sync + 'static {
    async fn handle(&self, call: PathCall<'_>) -> Result<Response<Body>, ApiError>;
}

/// Handlers by their place. Cheap to clone.
#[derive(Clone, Default)]
pub struct Handlers {
    places: Arc<HashMap<Place, Arc<dyn Handler>>>,
    paths: Arc<HashMap<&'static str, Arc<dyn PathHandler>>>,
}

impl Handlers {
    pub fn new(handlers: impl IntoIterator<Item = (Place, Arc<dyn Handler>)>) -> Self {
        Handlers {
            places: Arc::new(handlers.into_iter().collect()),
            paths: Arc::default(),
        }
    }

    /// The same, with handlers of paths such as `/openid/v1/jwks`.
    pub fn with_paths(
        mut self,
        paths: impl IntoIterator<Item = (&'static str, Arc<dyn PathHandler>)>,
    ) -> Self {
        self.paths = Arc::new(paths.into_iter().collect());
        self
    }

    pub fn path(&self, path: &str) -> Option<&Arc<dyn PathHandler>> {
        self.paths.get(path)
    }

    /// The paths that there are handlers of.
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.paths.keys().copied()
    }

    pub fn find(
        &self,
        group: &str,
        resource: &str,
        subresource: &str,
    ) -> Option<&Arc<dyn Handler>> {
        self.places
            .iter()
            .find(|(place, _)| {
                place.group == group
                    && place.resource == resource
                    && place.subresource == subresource
            })
            .map(|(_, handler)| handler)
    }
}
