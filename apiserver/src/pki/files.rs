//! Files of keys and certificates: readable by their owner only, and never half written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Replaces the file's content; after a power cut it holds either the old or the new.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if is_written(path, content) {
        return Ok(());
    }
    // A bare file name's parent is empty, and stands for the working directory.
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let folder = parent.unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Whether the file says this already, to its owner only.
fn is_written(path: &Path, content: &[u8]) -> bool {
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    mode.is_ok_and(|mode| mode == 0o600) && fs::read(path).is_ok_and(|found| found == content)
}

/// The file's content; `None` when there is no such file.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
