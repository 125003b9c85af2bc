//! The log file: a thread that writes lines, turns to a new file when one is full, and removes
//! old ones.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::event::{Event, Format};

/// Lines that wait for the device; further ones are dropped and counted.
const WAITING: usize = 10_000;
const MEGABYTE: u64 = 1 << 20;

/// Where and how the log is written.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `-` is standard output.
    pub path: PathBuf,
    pub format: Format,
    /// Days that old files are kept for; 0: forever.
    pub max_age_days: u64,
    /// Old files that are kept; 0: all.
    pub max_backups: usize,
    /// Megabytes of a file; 0: 100.
    pub max_megabytes: u64,
}

/// The log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the audit log {}: {source}", path.display())]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct LogFile {
    lines: Arc<Mutex<Option<mpsc::Sender<Vec<u8>>>>>,
    format: Format,
    written: watch::Receiver<bool>,
}

impl LogFile {
    /// Opens the file, with the directories above it, and starts the thread.
    pub fn open(config: LogConfig) -> Result<Self, LogError> {
        let path = config.path.clone();
        let failed = |source| LogError {
            path: path.clone(),
            source,
        };
        let format = config.format;
        let mut file = Rotated::open(config).map_err(&failed)?;
        let (lines, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING);
        let (writing, written) = watch::channel(false);
        std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || {
                while let Some(line) = waiting.blocking_recv() {
                    if let Err(error) = file.write(&line) {
                        tracing::error!(%error, "cannot write the audit log");
                    }
                }
                writing.send_replace(true);
            })
            .map_err(&failed)?;
        Ok(LogFile {
            lines: Arc::new(Mutex::new(Some(lines))),
            format,
            written,
        })
    }

    /// Whether the event was taken.
    pub(super) fn write(&self, event: &Event) -> bool {
        let lines = self.lines.lock().clone();
        lines.is_some_and(|lines| lines.try_send(event.line(self.format)).is_ok())
    }

    /// Takes no more, and waits until everything is written.
    pub async fn close(&self) {
        self.lines.lock().take();
        let mut written = self.written.clone();
        // An error means that the thread is gone.
        let _ = written.wait_for(|written| *written).await;
    }
}

struct Rotated {
    config: LogConfig,
    /// `None`: standard output.
    file: Option<File>,
    size: u64,
}

impl Rotated {
    fn open(config: LogConfig) -> io::Result<Self> {
        if config.path == Path::new("-") {
            return Ok(Rotated {
                config,
                file: None,
                size: 0,
            });
        }
        if let Some(folder) = config.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let (file, size) = append(&config.path)?;
        Ok(Rotated {
            config,
            file: Some(file),
            size,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return io::stdout().lock().write_all(line);
        };
        let max = match self.config.max_megabytes {
            0 => 100,
            max => max,
        };
        if self.size > 0 && self.size + line.len() as u64 > max * MEGABYTE {
            let now = jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H-%M-%S%.3f")
                .to_string();
            fs::rename(&self.config.path, backup(&self.config.path, &now))?;
            (*file, self.size) = append(&self.config.path)?;
            self.remove_old();
        }
        self.size += line.len() as u64;
        if let Some(file) = &mut self.file {
            file.write_all(line)?;
        }
        Ok(())
    }

    fn remove_old(&self) {
        let mut backups = backups(&self.config.path);
        // Their names are in the order of time; the latest first.
        backups.sort();
        backups.reverse();
        let old = |path: &PathBuf| {
            let days = self.config.max_age_days;
            let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
            let age = modified
                .ok()
                .and_then(|modified| SystemTime::now().duration_since(modified).ok());
            days > 0 && age.is_some_and(|age| age > Duration::from_secs(days * 24 * 3600))
        };
        for (index, path) in backups.iter().enumerate() {
            let surplus = self.config.max_backups > 0 && index >= self.config.max_backups;
            if (surplus || old(path))
                && let Err(error) = fs::remove_file(path)
            {
                tracing::warn!(path = %path.display(), %error, "an old audit log cannot be removed");
            }
        }
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// `audit.log` becomes `audit-{time}.log`.
fn backup(path: &Path, time: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{time}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{time}"),
    };
    path.with_file_name(name)
}

fn backups(path: &Path) -> Vec<PathBuf> {
    let start = format!(
        "{}-",
        path.file_stem().unwrap_or_default().to_string_lossy()
    );
    let folder = path.parent().unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|found| {
            let name = found.file_name().unwrap_or_default().to_string_lossy();
            let time = name.strip_prefix(&start).unwrap_or_default();
            // 2026-01-02T03-04-05.678
            found.extension() == path.extension()
                && time.len() >= 23
                && time.starts_with(|first: char| first.is_ascii_digit())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_put_aside_and_the_oldest_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/audit.log");
        let mut log = Rotated::open(LogConfig {
            path: path.clone(),
            format: Format::Json,
            max_age_days: 0,
            max_backups: 2,
            max_megabytes: 1,
        })
        .unwrap();
        let line = vec![b'x'; 700_000];
        for index in 0..5 {
            log.write(&line).unwrap();
            // Files are told apart by their milliseconds.
            let marked = backup(&path, &format!("2026-01-01T00-00-00.00{index}"));
            for found in backups(&path).iter().filter(|found| !found.ends_with("x")) {
                if !found.to_string_lossy().contains("2026-01-01T") {
                    fs::rename(found, &marked).unwrap();
                }
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 700_000);
        assert!(backups(&path).len() <= 3);
        fs::write(folder.path().join("logs/audit-notes.log"), "").unwrap();
        let before = backups(&path).len();
        assert!(before <= 3, "other files are left alone");
    }
}
