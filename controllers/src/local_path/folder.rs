//! The folder in which each volume is a folder. Nothing outside of it is ever touched.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

/// Anybody may use a volume: which user its pods run as is not known.
const VOLUME_MODE: u32 = 0o777;
/// Nobody but root looks around among the volumes; containers see only their own.
const FOLDER_MODE: u32 = 0o701;

pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Folder(path)
    }

    /// Makes a volume's folder and returns its path. One that is there already is kept.
    ///
    /// # Errors
    /// In words: the name leads elsewhere, or the file system refuses.
    pub fn make(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.path_of(name)?;
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(&self.0)
            .and_then(|()| match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            });
        made.map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        self.check(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(VOLUME_MODE))
            .map_err(|error| format!("cannot open up {}: {error}", path.display()))?;
        Ok(path)
    }

    /// Removes a volume's folder with all that is in it, but nothing that links in it lead to.
    /// That there is none is no error.
    ///
    /// # Errors
    /// In words: the path is not that of a volume, or the file system refuses.
    pub fn remove(&self, path: &str) -> Result<(), String> {
        let path = self.inside(path)?;
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            _ => self.check(&path)?,
        }
        // Does not follow links: see the security advisory on CVE-2022-21658.
        fs::remove_dir_all(&path)
            .map_err(|error| format!("cannot remove {}: {error}", path.display()))
    }

    /// The path of a volume's folder that is there.
    ///
    /// # Errors
    /// In words: the path is not that of a volume.
    pub fn find(&self, path: &str) -> Result<PathBuf, String> {
        let path = self.inside(path)?;
        self.check(&path)?;
        Ok(path)
    }

    /// The folder that volumes are in.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn inside(&self, path: &str) -> Result<PathBuf, String> {
        let name = Path::new(path).strip_prefix(&self.0).ok();
        let name = name.and_then(Path::to_str);
        self.path_of(name.ok_or_else(|| self.outside(path))?)
    }

    fn path_of(&self, name: &str) -> Result<PathBuf, String> {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(part)), None) if part == name => Ok(self.0.join(name)),
            _ => Err(self.outside(name)),
        }
    }

    /// What is there must be a folder itself, no link to one.
    fn check(&self, path: &Path) -> Result<(), String> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(format!("{} is no folder", path.display())),
            Err(error) => Err(format!("cannot look at {}: {error}", path.display())),
        }
    }

    fn outside(&self, path: &str) -> String {
        format!("{path:?} is no volume in {}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_for_everybody_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("storage"));
        let path = folder.make("pvc-1_ns_data").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777);
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/file"), "x").unwrap();
        assert_eq!(folder.make("pvc-1_ns_data").unwrap(), path);
        assert!(path.join("sub/file").exists(), "what is there is kept");
        folder.remove(path.to_str().unwrap()).unwrap();
        assert!(!path.exists());
        folder.remove(path.to_str().unwrap()).unwrap();
    }

    #[test]
    fn nothing_outside_is_touched() {
        let root = tempfile::tempdir().unwrap();
        let storage = root.path().join("storage");
        let folder = Folder::new(storage.clone());
        let treasure = root.path().join("treasure");
        fs::create_dir_all(&treasure).unwrap();
        fs::write(treasure.join("gold"), "x").unwrap();
        for name in ["", ".", "..", "a/b", "../treasure", "/etc", "a/"] {
            assert!(folder.make(name).is_err(), "{name}");
        }
        for path in [
            "".to_owned(),
            "/".to_owned(),
            storage.display().to_string(),
            format!("{}/..", storage.display()),
            format!("{}/../treasure", storage.display()),
            format!("{}/a/../../treasure", storage.display()),
            treasure.display().to_string(),
        ] {
            assert!(folder.remove(&path).is_err(), "{path}");
        }
        // A link in the place of a volume is neither used nor followed.
        fs::create_dir_all(&storage).unwrap();
        std::os::unix::fs::symlink(&treasure, storage.join("link")).unwrap();
        assert!(folder.make("link").is_err());
        let link = storage.join("link").display().to_string();
        assert!(folder.remove(&link).is_err());
        // A link within a volume is removed, and what it leads to stays.
        let volume = folder.make("volume").unwrap();
        std::os::unix::fs::symlink(&treasure, volume.join("link")).unwrap();
        folder.remove(volume.to_str().unwrap()).unwrap();
        assert!(treasure.join("gold").exists() && !volume.exists());
    }
}
