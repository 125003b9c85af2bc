//! The options of the verbs, read from the query or the body.
//!
//! Upstream's rules and messages (`apimachinery/pkg/apis/meta/internalversion/validation` and
//! `meta/v1/validation`).

use coracle_api::{
    decode,
    field::{ErrorList, FieldError, Path},
    meta,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

use http::StatusCode;
use serde_json::{Value, json};

use crate::{decode::type_meta, error::ApiError, query::Query};

/// Which group errors about options name.
const META: &str = "meta.k8s.io";

/// How a list or watch reads its resourceVersion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// `ListOptions`, without the selectors.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub watch: bool,
    pub allow_bookmarks: bool,
    /// As the client wrote it; empty when it did not.
    pub resource_version: String,
    pub version_match: Option<VersionMatch>,
    pub timeout_seconds: Option<u64>,
    /// 0: everything.
    pub limit: usize,
    pub continue_token: String,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// `watch`: whether the path or the query asks for a watch.
    pub fn parse(query: &Query<'_>, watch: bool) -> Result<Self, ApiError> {
        let text = |name| query.get(name).unwrap_or_default();
        let mut options = ListOptions {
            watch,
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            resource_version: text("resourceVersion").to_owned(),
            version_match: None,
            timeout_seconds: integer(query, "timeoutSeconds")?
                .map(|seconds| u64::try_from(seconds).unwrap_or(0)),
            limit: integer(query, "limit")?.map_or(0, |limit| usize::try_from(limit).unwrap_or(0)),
            continue_token: text("continue").to_owned(),
            send_initial_events: query.boolean("sendInitialEvents"),
        };
        let version_match = text("resourceVersionMatch");
        let legacy = matches!(options.resource_version.as_str(), "" | "0");
        if watch && legacy && version_match.is_empty() && options.send_initial_events.is_none() {
            // Such watches have always begun with the current objects.
            options.send_initial_events = Some(true);
            options.version_match = Some(VersionMatch::NotOlderThan);
            return Ok(options);
        }
        let errors = options.check(version_match);
        if !errors.is_empty() {
            return Err(ApiError::invalid(META, "ListOptions", "", &errors));
        }
        options.version_match = match version_match {
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            _ => None,
        };
        Ok(options)
    }

    fn check(&self, version_match: &str) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("resourceVersionMatch");
        if self.watch {
            let sends = self.send_initial_events.is_some();
            if sends && version_match != "NotOlderThan" {
                errors.push(path.forbidden(
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            if !version_match.is_empty() {
                if !sends {
                    errors.push(path.forbidden(
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    ));
                }
                if version_match != "NotOlderThan" {
                    errors.push(path.not_supported(version_match, &["NotOlderThan"]));
                }
                if !self.continue_token.is_empty() {
                    errors.push(continued(&path));
                }
            }
            return errors;
        }
        if !version_match.is_empty() {
            if self.resource_version.is_empty() {
                errors.push(path.forbidden(
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !self.continue_token.is_empty() {
                errors.push(continued(&path));
            }
            if !matches!(version_match, "Exact" | "NotOlderThan") {
                errors.push(path.not_supported(version_match, &["Exact", "NotOlderThan", ""]));
            }
            if version_match == "Exact" && self.resource_version == "0" {
                errors.push(path.forbidden(
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if self.send_initial_events.is_some() {
            errors.push(
                Path::new("sendInitialEvents").forbidden("sendInitialEvents is forbidden for list"),
            );
        }
        errors
    }
}

fn continued(path: &Path) -> FieldError {
    path.forbidden("resourceVersionMatch is forbidden when continue is provided")
}

/// A resourceVersion; empty counts as 0.
pub fn parse_version(text: &str) -> Result<u64, ApiError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        let error = Path::new("resourceVersion").invalid(text, why);
        // Upstream gives it no reason.
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", error.to_string())
    })
}

fn integer(query: &Query<'_>, name: &str) -> Result<Option<i64>, ApiError> {
    match query.get(name) {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!(
                "strconv.ParseInt: parsing {text:?}: invalid syntax"
            ))
        }),
    }
}

/// What to do about fields that are unknown or given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions`.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Of an apply: takes fields from other managers.
    pub force: bool,
}

impl WriteOptions {
    /// `kind` is the options' kind, for errors. `patch`: they are of a patch, and whether that
    /// is a server-side apply.
    pub fn parse(query: &Query<'_>, kind: &str, patch: Option<bool>) -> Result<Self, ApiError> {
        let dry_runs: Vec<String> = query.all("dryRun").map(str::to_owned).collect();
        let manager = query.get("fieldManager").unwrap_or_default();
        let validation = query.get("fieldValidation").unwrap_or_default();
        let force = query.boolean("force");
        let errors = match patch {
            Some(apply) => {
                meta::validate_patch_options(apply, force, manager, &dry_runs, validation)
            }
            None => meta::validate_create_options(manager, &dry_runs, validation),
        };
        if !errors.is_empty() {
            return Err(ApiError::invalid(META, kind, "", &errors));
        }
        Ok(WriteOptions {
            dry_run: !dry_runs.is_empty(),
            field_manager: manager.to_owned(),
            force: force.unwrap_or(false),
            field_validation: match validation {
                "Ignore" => FieldValidation::Ignore,
                "Strict" => FieldValidation::Strict,
                _ => FieldValidation::Warn,
            },
        })
    }

    /// As admission plugins see them. `kind` is the options' kind.
    pub fn to_json(&self, kind: &str) -> Value {
        let mut json = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
        if self.dry_run {
            json["dryRun"] = json!(["All"]);
        }
        if !self.field_manager.is_empty() {
            json["fieldManager"] = json!(self.field_manager);
        }
        json["fieldValidation"] = json!(match self.field_validation {
            FieldValidation::Ignore => "Ignore",
            FieldValidation::Warn => "Warn",
            FieldValidation::Strict => "Strict",
        });
        json
    }
}

/// Upstream takes them in any version, but nothing else in their place.
fn check_delete_type(body: &[u8]) -> Result<(), ApiError> {
    let declared = type_meta::read(body).map_err(|error| {
        ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    })?;
    let version = match declared.api_version.as_str() {
        "" => "meta.k8s.io/v1",
        version => version,
    };
    match (version, declared.kind.as_str()) {
        (_, "" | "DeleteOptions") => Ok(()),
        (
            "v1",
            kind @ ("Status" | "APIVersions" | "APIGroup" | "APIGroupList" | "APIResourceList"),
        ) => Err(ApiError::bad_request(format!(
            "converting (v1.{kind}) to (v1.DeleteOptions): unknown conversion"
        ))),
        (version, kind) => Err(ApiError::bad_request(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme \
             \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
        ))),
    }
}

/// Refuses values that the options of a deletion may not have.
pub fn check_delete_options(options: &DeleteOptions) -> Result<(), ApiError> {
    let errors = meta::validate_delete_options(options);
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(META, "DeleteOptions", "", &errors))
}

/// Reads `DeleteOptions` from the body, or from the query when there is none, and checks them.
pub fn delete_options(body: &[u8], query: &Query<'_>) -> Result<DeleteOptions, ApiError> {
    let mut options: DeleteOptions = if body.is_empty() {
        DeleteOptions {
            grace_period_seconds: integer(query, "gracePeriodSeconds")?,
            orphan_dependents: query.boolean("orphanDependents"),
            propagation_policy: query.get("propagationPolicy").map(str::to_owned),
            dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
            ignore_store_read_error_with_cluster_breaking_potential: query
                .boolean("ignoreStoreReadErrorWithClusterBreakingPotential"),
            ..DeleteOptions::default()
        }
    } else {
        check_delete_type(body)?;
        let mut unknown = Vec::new();
        decode::from_slice(body, &mut unknown)
            .map_err(|error| ApiError::bad_request(error.to_string()))?
    };
    check_delete_options(&options)?;
    if options
        .grace_period_seconds
        .is_some_and(|seconds| seconds < 0)
    {
        options.grace_period_seconds = Some(1);
    }
    Ok(options)
}
