//! Files of a volume that hide each other.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume, VolumeProjection,
};

use crate::zero::{list, text};

/// A file and what writes it; the source is empty where the volume has only one.
#[derive(Clone, PartialEq)]
struct File {
    path: String,
    source: String,
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.path)?;
        if !self.source.is_empty() {
            write!(f, " ({})", self.source)?;
        }
        Ok(())
    }
}

/// Warns where two keys become one file, or a file and a directory of the same name.
pub fn overlaps(volumes: &[Volume], warnings: &mut Vec<String>) {
    for volume in volumes {
        let mut warn = |kind: String, files: Vec<File>| {
            for (file, other) in colliding(files) {
                warnings.push(format!(
                    "volume {:?} ({kind}): overlapping paths: {file} with {other}",
                    volume.name
                ));
            }
        };
        if let Some(config_map) = &volume.config_map {
            let kind = format!("ConfigMap {:?}", config_map.name);
            warn(kind, items(list(&config_map.items), ""));
        }
        if let Some(secret) = &volume.secret {
            let kind = format!("Secret {:?}", text(&secret.secret_name));
            warn(kind, items(list(&secret.items), ""));
        }
        if let Some(downward) = &volume.downward_api {
            warn(
                "DownwardAPI".to_owned(),
                downward_files(list(&downward.items), ""),
            );
        }
        if let Some(projected) = &volume.projected {
            warn("Projected".to_owned(), projected_files(projected));
            for source in list(&projected.sources) {
                if *source == VolumeProjection::default() {
                    warnings.push(format!(
                        "volume {:?} (Projected) has no sources provided",
                        volume.name
                    ));
                }
            }
        }
    }
}

fn projected_files(projected: &ProjectedVolumeSource) -> Vec<File> {
    let mut files = Vec::new();
    for source in list(&projected.sources) {
        if let Some(config_map) = &source.config_map {
            let name = format!("ConfigMap {:?}", config_map.name);
            files.extend(items(list(&config_map.items), &name));
        } else if let Some(secret) = &source.secret {
            let name = format!("Secret {:?}", secret.name);
            files.extend(items(list(&secret.items), &name));
        } else if let Some(downward) = &source.downward_api {
            files.extend(downward_files(list(&downward.items), "DownwardAPI"));
        } else if let Some(token) = &source.service_account_token {
            files.push(File {
                path: token.path.clone(),
                source: "ServiceAccountToken".to_owned(),
            });
        }
    }
    files
}

fn items(items: &[KeyToPath], source: &str) -> Vec<File> {
    items
        .iter()
        .map(|item| File {
            path: item.path.clone(),
            source: source.to_owned(),
        })
        .collect()
}

fn downward_files(files: &[DownwardAPIVolumeFile], source: &str) -> Vec<File> {
    files
        .iter()
        .map(|file| File {
            path: file.path.clone(),
            source: source.to_owned(),
        })
        .collect()
}

/// Each file with each earlier one that it clashes with.
fn colliding(files: Vec<File>) -> Vec<(File, File)> {
    let mut earlier: Vec<File> = Vec::new();
    let mut pairs = Vec::new();
    for mut file in files {
        file.path.truncate(file.path.trim_end_matches('/').len());
        for other in earlier.iter().filter(|other| collide(&file, other)) {
            pairs.push((file.clone(), other.clone()));
        }
        earlier.push(file);
    }
    pairs
}

fn collide(file: &File, other: &File) -> bool {
    let (path, other_path) = (format!("{}/", file.path), format!("{}/", other.path));
    !file.path.is_empty()
        && !other.path.is_empty()
        && (path.starts_with(&other_path) || other_path.starts_with(&path))
}
