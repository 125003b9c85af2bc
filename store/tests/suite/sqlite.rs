//! What the embedded store promises beyond the trait: its file.

use std::{path::Path, sync::Arc};

use coracle_store::{Error, OpenError, SqliteConfig, SqliteStore, Store};

use crate::fixture::{delete, keys, open, put, transaction, write_put};

fn file_bytes(path: &Path) -> u64 {
    let log = path.with_extension("db-wal");
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    size(path) + size(&log)
}

#[tokio::test]
async fn a_restart_finds_the_objects_and_goes_on_from_the_revision() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    let store = open(&path);
    let created = put(&store, "/k", "1").await;
    put(&store, "/gone", "1").await;
    let updated = put(&store, "/k", "2").await;
    delete(&store, "/gone").await;
    let last = put(&store, "/volatile/lease", "v").await;
    assert_eq!(keys(&store, "/").await, ["/k", "/volatile/lease"]);
    store.close().await;

    let store = open(&path);
    assert_eq!(store.revision().await.expect("a revision"), last);
    assert_eq!(keys(&store, "/").await, ["/k"]);
    let key = store.get("/k").await.expect("a get").expect("the key");
    assert_eq!((key.create_revision, key.mod_revision), (created, updated));
    assert!(matches!(
        store.watch("/", updated).await.map(drop),
        Err(Error::Compacted { .. })
    ));
    assert_eq!(put(&store, "/k", "3").await, last + 1);
    store.close().await;
}

#[tokio::test]
async fn volatile_keys_never_reach_the_disk() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(&directory.path().join("state.db"));
    put(&store, "/registry/pods/default/web", "12345").await;
    put(&store, "/registry/pods/default/web", "1").await;
    put(&store, "/volatile/lease", "not on disk").await;
    let written = store.written();
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(written[0].prefix, "/registry/pods");
    assert_eq!((written[0].bytes, written[0].writes), (26 + 5 + 26 + 1, 2));
    store.close().await;
    for entry in std::fs::read_dir(directory.path()).expect("the directory") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(!bytes.windows(11).any(|window| window == b"not on disk"));
    }
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    let store = open(&path);
    let error = SqliteStore::open(&path, SqliteConfig::default())
        .err()
        .expect("the file is in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("another process is using it"));
    store.close().await;
    open(&path).close().await;
}

#[tokio::test]
async fn a_damaged_file_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    let damaged = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("a file");
        let error = SqliteStore::open(&path, SqliteConfig::default())
            .err()
            .expect("the file is damaged");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("state.db"));
    };
    damaged(&b"this is no database at all\n".repeat(200));

    std::fs::remove_file(&path).expect("a file");
    let store = open(&path);
    for index in 0..2000 {
        put(&store, &format!("/k/{index}"), &"v".repeat(300)).await;
    }
    store.close().await;
    let mut bytes = std::fs::read(&path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40_000].fill(0xA5);
    damaged(&bytes);
    assert!(matches!(
        SqliteStore::open(Path::new("/nowhere/state.db"), SqliteConfig::default()),
        Err(OpenError::Other { .. })
    ));
}

#[tokio::test]
async fn a_full_device_refuses_writes_until_there_is_space() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    let config = SqliteConfig {
        max_bytes: Some(1 << 20),
        ..SqliteConfig::default()
    };
    let store = SqliteStore::open(&path, config).expect("the store opens");
    let value = "v".repeat(100 << 10);
    let mut kept = 0;
    let error = loop {
        let write = write_put(&format!("/k/{kept:03}"), &value);
        match store.commit(transaction(&[], &[write])).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full), "{error}");
    assert!(kept > 5);
    assert_eq!(keys(&store, "/").await.len(), kept);

    delete(&store, "/k/000").await;
    put(&store, "/k/new", &value).await;
    store.close().await;
    let store = open(&path);
    assert_eq!(keys(&store, "/").await.len(), kept);
    store.close().await;
}

#[tokio::test]
async fn a_large_write_that_fails_takes_no_other_with_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = SqliteConfig {
        max_bytes: Some(1 << 20),
        ..SqliteConfig::default()
    };
    let path = directory.path().join("state.db");
    let store = Arc::new(SqliteStore::open(&path, config).expect("the store opens"));
    let large = "v".repeat(2 << 20);
    let writers = (0..50).map(|index| {
        let value = if index % 10 == 5 { &large } else { "small" };
        let write = write_put(&format!("/k/{index}"), value);
        store.commit(transaction(&[], &[write]))
    });
    let outcomes = futures::future::join_all(writers).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(_) => assert_ne!(index % 10, 5),
            Err(error) => {
                assert_eq!(index % 10, 5);
                assert!(matches!(error, Error::Full), "{error}");
            }
        }
    }
    assert_eq!(keys(&*store, "/").await.len(), 45);
    store.close().await;
}

#[tokio::test]
async fn the_file_does_not_grow_with_time_and_deletes_give_space_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    let store = Arc::new(open(&path));
    let value = "v".repeat(10 << 10);
    let round = |operation: &'static str| {
        let (store, value) = (store.clone(), value.clone());
        async move {
            let writes = (0..1000).map(|index| {
                let (store, key) = (store.clone(), format!("/k/{index}"));
                let value = &value;
                async move {
                    match operation {
                        "put" => put(&*store, &key, value).await,
                        _ => delete(&*store, &key).await,
                    }
                }
            });
            futures::future::join_all(writes).await;
        }
    };
    round("put").await;
    let full = file_bytes(&path);
    assert!(full > 10 << 20);
    for _ in 0..5 {
        round("put").await;
    }
    let bound = 16 << 20;
    assert!(file_bytes(&path) < full + bound, "{}", file_bytes(&path));
    round("delete").await;
    store.close().await;
    assert!(file_bytes(&path) < 3 << 20, "{}", file_bytes(&path));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&path).expect("the file").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600, "the file holds Secrets");
}
