//! Projected volumes: several sources in one directory.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    KeyToPath, PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection,
};

use super::volumes::{downward_file, file_mode, key_to_path, local_path};
use crate::{
    check,
    field::{ErrorList, Path},
    zero::list,
};

const MIN_TOKEN_SECONDS: i64 = 10 * 60;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;

/// A projected volume. Sources of features that are off are dropped before validation.
pub fn projected(projected: &ProjectedVolumeSource, path: &Path, errors: &mut ErrorList) {
    file_mode(projected.default_mode, &path.child("defaultMode"), errors);
    let mut paths = Paths {
        path,
        seen: BTreeSet::new(),
    };
    for (index, source) in list(&projected.sources).iter().enumerate() {
        let path = path.child("sources").index(index);
        if let Some(secret) = &source.secret {
            let path = path.child("secret");
            check::required(&secret.name, &path.child("name"), errors);
            paths.items(list(&secret.items), &secret.name, &path, errors);
        }
        if let Some(config_map) = &source.config_map {
            let path = path.child("configMap");
            check::required(&config_map.name, &path.child("name"), errors);
            paths.items(list(&config_map.items), &config_map.name, &path, errors);
        }
        if let Some(downward) = &source.downward_api {
            let path = path.child("downwardAPI");
            for file in list(&downward.items) {
                downward_file(file, &path, errors);
                paths.take(&file.path, &file.path, errors);
            }
        }
        if let Some(token) = &source.service_account_token {
            service_account_token(token, paths.path, &path, errors);
        }
        let sources = usize::from(source.secret.is_some())
            + usize::from(source.config_map.is_some())
            + usize::from(source.downward_api.is_some())
            + usize::from(source.service_account_token.is_some());
        if sources > 1 {
            errors.push(path.forbidden("may not specify more than 1 volume type per source"));
        }
    }
}

fn service_account_token(
    token: &ServiceAccountTokenProjection,
    volume_path: &Path,
    path: &Path,
    errors: &mut ErrorList,
) {
    let seconds = token.expiration_seconds.unwrap_or(0);
    let seconds_path = path.child("serviceAccountToken.expirationSeconds");
    if seconds < MIN_TOKEN_SECONDS {
        errors
            .push(seconds_path.invalid(seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_TOKEN_SECONDS {
        errors.push(seconds_path.invalid(
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    // Upstream names the volume here, not the source.
    if token.path.is_empty() {
        errors.push(volume_path.child("path").required(""));
    } else {
        local_path(&token.path, &volume_path.child("path"), errors);
    }
}

/// The files that the sources write, of which no two may be the same.
struct Paths<'a> {
    path: &'a Path,
    seen: BTreeSet<String>,
}

impl Paths<'_> {
    fn items(&mut self, items: &[KeyToPath], name: &str, path: &Path, errors: &mut ErrorList) {
        for (index, item) in items.iter().enumerate() {
            key_to_path(item, &path.child("items").index(index), errors);
            self.take(&item.path, name, errors);
        }
    }

    fn take(&mut self, file: &str, value: &str, errors: &mut ErrorList) {
        if !file.is_empty() && !self.seen.insert(file.to_owned()) {
            errors.push(self.path.invalid(value, "conflicting duplicate paths"));
        }
    }
}

/// A Pod without a service account can have no token of one.
pub fn forbid_tokens(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for (volume, projected) in list(&spec.volumes)
        .iter()
        .enumerate()
        .filter_map(|(index, volume)| Some((index, volume.projected.as_ref()?)))
    {
        let path = path
            .child("volumes")
            .index(volume)
            .child("projected.sources");
        for (index, source) in list(&projected.sources).iter().enumerate() {
            if source.service_account_token.is_some() {
                errors.push(
                    path.index(index)
                        .child("serviceAccountToken")
                        .forbidden("must not be specified when serviceAccountName is not set"),
                );
            }
        }
    }
}
