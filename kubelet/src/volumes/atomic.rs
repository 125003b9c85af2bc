//! Writing a set of files so that a reader sees either all old or all new ones.
//!
//! The files are in a directory named after the time, `..data` is a link to it, and each visible
//! name is a link through `..data`: renaming a new `..data` over the old one changes them all at
//! once. The layout is upstream's (pkg/volume/util/atomic_writer.go); programs in containers
//! watch `..data`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{PermissionsExt as _, lchown, symlink},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::Error;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4096;

/// One file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub content: Vec<u8>,
    pub mode: u32,
    /// The owner, where it is not root.
    pub user: Option<u32>,
}

/// Files by their paths relative to the volume.
pub type Payload = BTreeMap<String, File>;

/// Makes `directory` hold just `payload`. `set_owner` is called on a new data directory before
/// anybody sees it. Tells whether anything was written.
///
/// # Errors
/// When a path would leave the directory, or a file cannot be written.
pub fn write(
    directory: &Path,
    payload: &Payload,
    set_owner: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<bool, Error> {
    for path in payload.keys() {
        validate(path)?;
    }
    let data = directory.join(DATA);
    let old = match fs::read_link(&data) {
        Ok(target) => Some(directory.join(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(&data)(error)),
    };
    let surplus = match &old {
        Some(old) => Surplus::of(old, payload),
        None => Surplus::default(),
    };
    let unchanged = old
        .as_ref()
        .is_some_and(|old| !surplus.files && is_written(old, payload));
    if unchanged {
        link_visible(directory, payload).map_err(Error::io(directory))?;
        return Ok(false);
    }
    let new = new_directory(directory).map_err(Error::io(directory))?;
    let written = fill(&new, payload).and_then(|()| set_owner(&new));
    if let Err(error) = written.and_then(|()| swing(directory, &new)) {
        // What is not linked is nobody's; the error that led here is the one to tell.
        let _ = fs::remove_dir_all(&new);
        return Err(Error::io(new)(error));
    }
    link_visible(directory, payload).map_err(Error::io(directory))?;
    for name in surplus.names {
        remove_file(&directory.join(name))?;
    }
    if let Some(old) = old {
        fs::remove_dir_all(&old).map_err(Error::io(old))?;
    }
    Ok(true)
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

fn validate(path: &str) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Source(format!("invalid path: {why}")));
    if path.is_empty() {
        return refuse("must not be empty: \"\"".to_owned());
    }
    if path.starts_with('/') {
        return refuse(format!("must be relative path: {path}"));
    }
    if path.len() > MAX_PATH {
        return refuse(format!(
            "must be less than or equal to {MAX_PATH} characters"
        ));
    }
    if path.split('/').any(|item| item == "..") {
        return refuse(format!("must not contain '..': {path}"));
    }
    if path.split('/').any(|item| item.len() > MAX_NAME) {
        return refuse(format!(
            "filenames must be less than or equal to {MAX_NAME} characters"
        ));
    }
    if path.starts_with("..") {
        return refuse(format!("must not start with '..': {path}"));
    }
    Ok(())
}

fn is_written(old: &Path, payload: &Payload) -> bool {
    payload
        .iter()
        .all(|(path, file)| fs::read(old.join(path)).is_ok_and(|found| found == file.content))
}

/// What the old data directory has and the payload does not.
#[derive(Default)]
struct Surplus {
    /// Whether there is any such file.
    files: bool,
    /// Visible names that stand for nothing any more.
    names: BTreeSet<String>,
}

impl Surplus {
    fn of(old: &Path, payload: &Payload) -> Self {
        let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
        let wanted: BTreeSet<String> = payload.keys().map(|path| first(path)).collect();
        let mut surplus = Surplus::default();
        for (path, is_file) in walk(old) {
            let path = path.to_string_lossy().into_owned();
            surplus.files |= is_file && !payload.contains_key(&path);
            let name = first(&path);
            if !wanted.contains(&name) {
                surplus.names.insert(name);
            }
        }
        surplus
    }
}

/// Everything below a directory, relative to it, and whether it is a file.
fn walk(root: &Path) -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let Ok(relative) = path.strip_prefix(root) {
                found.push((relative.to_owned(), !is_directory));
            }
            if is_directory {
                pending.push(path);
            }
        }
    }
    found
}

fn new_directory(directory: &Path) -> io::Result<PathBuf> {
    let now = Timestamp::now();
    let time = now.strftime("..%Y_%m_%d_%H_%M_%S");
    // A volume has one writer: only two writes in the same nanosecond could meet.
    let new = directory.join(format!("{time}.{:09}", now.subsec_nanosecond()));
    fs::create_dir(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    Ok(new)
}

fn fill(directory: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        if let Some(user) = file.user {
            lchown(&path, Some(user), None)?;
        }
    }
    Ok(())
}

/// Points `..data` to the new directory.
fn swing(directory: &Path, new: &Path) -> io::Result<()> {
    let link = directory.join(NEW_DATA);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(new.file_name().unwrap_or_default(), &link)?;
    fs::rename(&link, directory.join(DATA))
}

fn link_visible(directory: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let name = path.split('/').next().unwrap_or_default();
        let visible = directory.join(name);
        if visible.symlink_metadata().is_ok() {
            continue;
        }
        symlink(Path::new(DATA).join(name), &visible)?;
        if let Some(user) = file.user {
            lchown(&visible, Some(user), None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, content)| {
                let file = File {
                    content: content.as_bytes().to_vec(),
                    mode: 0o640,
                    user: None,
                };
                ((*path).to_owned(), file)
            })
            .collect()
    }

    fn put(directory: &Path, files: &[(&str, &str)]) -> bool {
        write(directory, &payload(files), |_| Ok(())).expect("it is written")
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("it can be listed")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with("..2"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_change_all_at_once_and_old_ones_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        assert!(put(path, &[("a", "1"), ("sub/b", "2")]));
        assert_eq!(names(path), ["..data", "a", "sub"]);
        assert_eq!(
            fs::read_to_string(path.join("sub/b")).ok().as_deref(),
            Some("2")
        );
        let mode = fs::metadata(path.join("a"))
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        let before = fs::read_link(path.join(DATA)).expect("a link");

        assert!(
            !put(path, &[("a", "1"), ("sub/b", "2")]),
            "nothing has changed"
        );
        assert_eq!(fs::read_link(path.join(DATA)).expect("a link"), before);

        assert!(put(path, &[("a", "3"), ("c", "4")]));
        assert_eq!(names(path), ["..data", "a", "c"]);
        assert_eq!(
            fs::read_to_string(path.join("a")).ok().as_deref(),
            Some("3")
        );
        assert!(!path.join(before).exists(), "the old data is removed");

        assert!(put(path, &[("d/x", "1"), ("d/y", "2")]));
        assert!(put(path, &[("d/x", "1")]));
        assert!(!path.join("d/y").exists());
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        for path in ["", "/etc/passwd", "../x", "a/../../x", "..data"] {
            let result = write(directory.path(), &payload(&[(path, "x")]), |_| Ok(()));
            assert!(matches!(result, Err(Error::Source(_))), "{path}");
        }
        assert_eq!(names(directory.path()), Vec::<String>::new());
    }
}
