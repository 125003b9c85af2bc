//! Volumes that are written from objects of the API.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, Volume};
use kube::ResourceExt as _;

use super::{
    Around, MountedVolume, PodVolumes,
    needs::{group, only_user},
    on_disk,
};
use crate::{
    pods::spec::spec,
    volumes::{
        Error, atomic, directories, nested, ownership,
        payload::{self, Selection},
        tokens::Wanted,
    },
};

/// The modes of files when a volume does not say; the API server fills them in.
const DEFAULT_MODE: u32 = 0o644;

impl PodVolumes {
    /// Volumes that are written from objects of the API.
    pub(super) async fn of_files(
        &mut self,
        pod: &Pod,
        volume: &Volume,
        around: &Around<'_>,
        now: Timestamp,
    ) -> Result<MountedVolume, Error> {
        let namespace = pod.namespace().unwrap_or_default();
        let mode = |mode| payload::mode(mode, DEFAULT_MODE);
        let (plugin, in_memory, payload) = if let Some(source) = &volume.config_map {
            let selection = Selection {
                items: source.items.as_deref().unwrap_or_default(),
                default_mode: mode(source.default_mode),
                optional: source.optional == Some(true),
            };
            let payload = self
                .config_map(&namespace, &source.name, &selection)
                .await?;
            ("configmap", false, payload)
        } else if let Some(source) = &volume.secret {
            let selection = Selection {
                items: source.items.as_deref().unwrap_or_default(),
                default_mode: mode(source.default_mode),
                optional: source.optional == Some(true),
            };
            let name = source.secret_name.as_deref().unwrap_or_default();
            let payload = self.secret(&namespace, name, &selection).await?;
            ("secret", true, payload)
        } else if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            let default_mode = mode(source.default_mode);
            let payload = payload::downward(
                items,
                pod,
                default_mode,
                around.addresses,
                around.allocatable,
            )?;
            ("downward-api", true, payload)
        } else if let Some(source) = &volume.projected {
            let payload = self.projected(pod, source, around, now).await?;
            ("projected", true, payload)
        } else {
            return Err(Error::Source("no volume plugin matched".to_owned()));
        };
        let directory = self.volume_dir(plugin, &volume.name);
        self.write(pod, volume, &directory, in_memory, payload)
            .await?;
        Ok(MountedVolume {
            path: directory,
            read_only: true,
            image: None,
        })
    }

    async fn write(
        &self,
        pod: &Pod,
        volume: &Volume,
        directory: &Path,
        in_memory: bool,
        payload: atomic::Payload,
    ) -> Result<(), Error> {
        let directory = directory.to_owned();
        let mount_points = nested::mount_points(spec(pod), &volume.name);
        let group = group(pod);
        on_disk(move || {
            if in_memory {
                directories::make_in_memory(&directory, None)?;
            } else {
                directories::make(&directory)?;
            }
            for point in mount_points {
                let point = directory.join(point);
                std::fs::create_dir_all(&point).map_err(Error::io(&point))?;
            }
            atomic::write(&directory, &payload, |_| match group {
                Some(group) => ownership::give(&directory, group, true),
                None => Ok(()),
            })?;
            Ok(())
        })
        .await
    }

    async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        selection: &Selection<'_>,
    ) -> Result<atomic::Payload, Error> {
        let object = self.node.config_maps.get(namespace, name).await;
        let object = object.map_err(Error::Source)?;
        if object.is_none() && !selection.optional {
            return Err(Error::Source(format!("configmap {name:?} not found")));
        }
        payload::config_map(object.as_deref(), selection)
    }

    async fn secret(
        &self,
        namespace: &str,
        name: &str,
        selection: &Selection<'_>,
    ) -> Result<atomic::Payload, Error> {
        let object = self.node.secrets.get(namespace, name).await;
        let object = object.map_err(Error::Source)?;
        if object.is_none() && !selection.optional {
            return Err(Error::Source(format!("secret {name:?} not found")));
        }
        payload::secret(object.as_deref(), selection)
    }

    async fn projected(
        &mut self,
        pod: &Pod,
        source: &ProjectedVolumeSource,
        around: &Around<'_>,
        now: Timestamp,
    ) -> Result<atomic::Payload, Error> {
        let namespace = pod.namespace().unwrap_or_default();
        let default_mode = payload::mode(source.default_mode, DEFAULT_MODE);
        let user = only_user(pod);
        let mut payload = atomic::Payload::new();
        let mut errors = Vec::new();
        for source in source.sources.iter().flatten() {
            let part = if let Some(source) = &source.config_map {
                let selection = Selection {
                    items: source.items.as_deref().unwrap_or_default(),
                    default_mode,
                    optional: source.optional == Some(true),
                };
                self.config_map(&namespace, &source.name, &selection).await
            } else if let Some(source) = &source.secret {
                let selection = Selection {
                    items: source.items.as_deref().unwrap_or_default(),
                    default_mode,
                    optional: source.optional == Some(true),
                };
                self.secret(&namespace, &source.name, &selection).await
            } else if let Some(source) = &source.downward_api {
                let items = source.items.as_deref().unwrap_or_default();
                let (addresses, allocatable) = (around.addresses, around.allocatable);
                payload::downward(items, pod, default_mode, addresses, allocatable)
            } else if let Some(source) = &source.service_account_token {
                let wanted = Wanted::new(source.audience.as_deref(), source.expiration_seconds);
                let token = self.tokens.get(&self.node.client, pod, &wanted, now).await;
                // Only whom the token is for may read it, where that is known.
                let private = user.is_some() || group(pod).is_some();
                token.map(|token| {
                    let file = atomic::File {
                        content: token.into_bytes(),
                        mode: if private { 0o600 } else { default_mode },
                        user,
                    };
                    [(source.path.clone(), file)].into()
                })
            } else {
                Err(Error::Source(
                    "the projected volume has a source of unknown type".to_owned(),
                ))
            };
            match part {
                Ok(part) => payload.extend(part),
                Err(error) => errors.push(error.to_string()),
            }
        }
        match errors.as_slice() {
            [] => Ok(payload),
            [only] => Err(Error::Source(only.clone())),
            several => Err(Error::Source(format!("[{}]", several.join(", ")))),
        }
    }
}
