//! The SQLite file: opening, loading, writing groups, giving space back.

use std::{
    collections::BTreeMap,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi, params};

use super::{OpenError, spare::Spare};
use crate::{Error, KeyValue, Revision, stage::Change, state::Object};

/// `user_version` of the files that this version writes.
const FORMAT: i64 = 1;
/// `application_id`: "crcl".
const APPLICATION: i64 = 0x6372_636c;
/// The write-ahead log is copied into the file when it has this many pages of 4 KiB.
const CHECKPOINT_PAGES: i64 = 512;
/// The write-ahead log is cut back to this many bytes after a large transaction.
const LOG_BYTES: i64 = 4 << 20;
/// Free pages that are kept for coming writes.
const SPARE_PAGES: i64 = 256;
/// Free pages given back in one step, so that no writer waits long.
const STEP_PAGES: i64 = 256;

/// What `auto_vacuum` tells of a file that gives space back in steps.
const INCREMENTAL: i64 = 2;

/// There is no index: the row of every key is known in memory, so that a write touches one page.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS object (
        row INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        create_revision INTEGER NOT NULL,
        mod_revision INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS reserved (one INTEGER PRIMARY KEY, revision INTEGER NOT NULL);
    INSERT OR IGNORE INTO reserved VALUES (1, 0);
";

/// Why a group was not written. Nothing of it is in the file.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to the store {}: {source}", path.display())]
pub(super) struct WriteError {
    path: PathBuf,
    source: rusqlite::Error,
}

impl WriteError {
    /// What the writers of the group are told.
    pub fn refusal(&self) -> Error {
        if is_full(&self.source) {
            Error::Full
        } else {
            Error::Backend(self.to_string())
        }
    }
}

/// What the file held when it was opened.
pub(super) struct Loaded {
    pub objects: BTreeMap<Arc<str>, Object>,
    /// No revision above this one was ever given out.
    pub revision: Revision,
}

pub(super) struct File {
    connection: Connection,
    path: PathBuf,
    spare: Spare,
    /// Something was written since space was last given back.
    written: bool,
}

impl File {
    /// `max_bytes`: see [`super::SqliteConfig`].
    pub fn open(path: &Path, max_bytes: Option<u64>) -> Result<(Self, Loaded), OpenError> {
        let fail = |error| open_error(path, &error);
        create_private(path)?;
        // One thread uses the connection, so SQLite's own locking is not needed.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
        prepare(&connection, max_bytes).map_err(fail)?;
        // A file that has its tables is not written to: the device may be full.
        if check_format(&connection, path)? == 0 {
            connection
                .execute_batch(&format!(
                    "BEGIN EXCLUSIVE; {SCHEMA} PRAGMA application_id={APPLICATION}; PRAGMA user_version={FORMAT}; COMMIT;"
                ))
                .map_err(fail)?;
        }
        let loaded = load(&connection).map_err(fail)?;
        let file = File {
            connection,
            path: path.to_owned(),
            spare: Spare::of(path),
            written: false,
        };
        Ok((file, loaded))
    }

    /// Writes a group and, if given, the revision up to which numbers are set aside. When it
    /// returns, the group survives a loss of power. On a full device only a group that adds
    /// nothing ([`Change::adds`]) is written.
    pub fn write<'a>(
        &mut self,
        changes: impl Iterator<Item = &'a Change> + Clone,
        reserved: Option<Revision>,
    ) -> Result<(), WriteError> {
        let adds = changes.clone().any(Change::adds);
        let mut outcome = if adds && !self.spare.take() {
            Err(full())
        } else {
            self.write_or_roll_back(changes.clone(), reserved)
        };
        if !adds && self.spare.is_held() && outcome.as_ref().is_err_and(is_full) {
            self.spare.give_up();
            self.copy_log();
            outcome = self.write_or_roll_back(changes, reserved);
        }
        self.written |= outcome.is_ok();
        outcome.map_err(|source| WriteError {
            path: self.path.clone(),
            source,
        })
    }

    fn write_or_roll_back<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change>,
        reserved: Option<Revision>,
    ) -> rusqlite::Result<()> {
        let outcome = self.try_write(changes, reserved);
        // SQLite has rolled back by itself after some errors.
        if outcome.is_err() && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        outcome
    }

    fn try_write<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change>,
        reserved: Option<Revision>,
    ) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for change in changes {
            match &change.object {
                Some(new) if change.previous_row == 0 => connection
                    .prepare_cached("INSERT INTO object VALUES (?1, ?2, ?3, ?4, ?5)")?
                    .execute(params![
                        new.row,
                        &*change.key,
                        &*new.stored.value,
                        new.stored.create_revision.cast_signed(),
                        new.stored.mod_revision.cast_signed(),
                    ])?,
                Some(new) => connection
                    .prepare_cached(
                        "UPDATE object SET value = ?2, mod_revision = ?3 WHERE row = ?1",
                    )?
                    .execute(params![
                        new.row,
                        &*new.stored.value,
                        new.stored.mod_revision.cast_signed()
                    ])?,
                None => connection
                    .prepare_cached("DELETE FROM object WHERE row = ?1")?
                    .execute([change.previous_row])?,
            };
        }
        if let Some(reserved) = reserved {
            set_reserved(connection, reserved)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Takes one step in returning free pages to the device when many are free, or when the
    /// device is full. Whether another step is due.
    pub fn give_back_space(&mut self) -> bool {
        // After a refused write nothing is different.
        if !self.written {
            return false;
        }
        let full = !self.spare.is_held();
        let more = self.try_give_back(full).unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot give free space back");
            false
        });
        if full {
            self.copy_log();
            self.spare.take();
        }
        self.written = more;
        more
    }

    fn try_give_back(&self, all: bool) -> rusqlite::Result<bool> {
        let number = |pragma: &str| -> rusqlite::Result<i64> {
            self.connection
                .prepare_cached(pragma)?
                .query_row([], |row| row.get(0))
        };
        let free = number("PRAGMA freelist_count")?;
        let few = free <= SPARE_PAGES || free <= number("PRAGMA page_count")? / 4;
        if free == 0 || few && !all {
            return Ok(false);
        }
        // The statement frees one page for each row that is asked of it.
        let mut vacuum = self
            .connection
            .prepare_cached(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        Ok(number("PRAGMA freelist_count")? < free)
    }

    /// Copies the log into the file and cuts it back to nothing, so that its space is free.
    fn copy_log(&self) {
        let copied = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = copied {
            tracing::debug!(%error, "the log stays as long as it is");
        }
    }

    /// Records the exact revision, so that a clean restart skips no numbers.
    pub fn close(mut self, revision: Revision) -> Result<(), WriteError> {
        self.write(std::iter::empty(), Some(revision))?;
        let File {
            connection, path, ..
        } = self;
        connection
            .close()
            .map_err(|(_, source)| WriteError { path, source })
    }
}

fn full() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None)
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn set_reserved(connection: &Connection, revision: Revision) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE reserved SET revision = ?1")?
        .execute([revision.cast_signed()])?;
    Ok(())
}

/// The file holds Secrets: only its owner may read it. SQLite gives its log the same mode.
fn create_private(path: &Path) -> Result<(), OpenError> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|error| OpenError::Other {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

fn prepare(connection: &Connection, max_bytes: Option<u64>) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(16);
    // The lock is held from the first access on: a second opener is refused, and the log's index
    // needs no shared memory file.
    connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE")?;
    // Must come before the first table. It writes even if it changes nothing.
    let vacuum: i64 = connection.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
    if vacuum != INCREMENTAL {
        connection.execute_batch("PRAGMA auto_vacuum=INCREMENTAL")?;
    }
    connection.execute_batch(&format!(
        "PRAGMA journal_mode=WAL;
         PRAGMA synchronous=FULL;
         PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES};
         PRAGMA journal_size_limit={LOG_BYTES};
         PRAGMA cache_size=-1024;
         PRAGMA temp_store=MEMORY;"
    ))?;
    if let Some(max_bytes) = max_bytes {
        let page: u64 = connection
            .query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?
            .unsigned_abs();
        connection.execute_batch(&format!("PRAGMA max_page_count={}", max_bytes / page))?;
    }
    Ok(())
}

/// The format of the file, 0 when it is new.
fn check_format(connection: &Connection, path: &Path) -> Result<i64, OpenError> {
    let number = |pragma: &str| -> Result<i64, OpenError> {
        connection
            .query_row(pragma, [], |row| row.get(0))
            .map_err(|error| open_error(path, &error))
    };
    let found = number("PRAGMA user_version")?;
    if found > FORMAT {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: FORMAT,
        });
    }
    let application = number("PRAGMA application_id")?;
    if application != 0 && application != APPLICATION {
        return Err(OpenError::Other {
            path: path.to_owned(),
            reason: "it is a database of another program".to_owned(),
        });
    }
    Ok(found)
}

fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    let mut objects = BTreeMap::new();
    let mut statement =
        connection.prepare("SELECT key, value, create_revision, mod_revision, row FROM object")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key: Arc<str> = row.get_ref(0)?.as_str()?.into();
        let object = Object {
            stored: Arc::new(KeyValue {
                key: key.clone(),
                value: Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?),
                create_revision: row.get::<_, i64>(2)?.cast_unsigned(),
                mod_revision: row.get::<_, i64>(3)?.cast_unsigned(),
            }),
            row: row.get(4)?,
        };
        objects.insert(key, object);
    }
    let reserved: i64 =
        connection.query_row("SELECT revision FROM reserved", [], |row| row.get(0))?;
    Ok(Loaded {
        objects,
        revision: reserved.cast_unsigned(),
    })
}

fn open_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Damaged {
            path,
            reason: error.to_string(),
        },
        _ => OpenError::Other {
            path,
            reason: error.to_string(),
        },
    }
}
