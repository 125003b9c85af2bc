//! `/version`

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::json;

use crate::{
    error::ApiError,
    query::Query,
    respond::{self, Output},
    server::Context,
};

pub fn answer(context: &Context) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate_plain(context.headers(), &query)?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": coracle_api::VERSION,
        "gitCommit": option_env!("CORACLE_GIT_COMMIT").unwrap_or_default(),
        "gitTreeState": "clean",
        "buildDate": option_env!("CORACLE_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "rust",
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    });
    respond::value(&output, StatusCode::OK, &version)
}
