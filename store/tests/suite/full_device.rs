//! A device that is full to the last block, which takes root: a small tmpfs, seen by the test's
//! thread and its children only.

use std::path::Path;

use coracle_store::{Error, SqliteConfig, SqliteStore, Store, Transaction};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::fixture::{delete, keys, open, put, transaction, write_put};

fn on_a_small_device(test: impl AsyncFnOnce(&Path) + Send + 'static) {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: needs root");
        return;
    }
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("root");
        let none = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).expect("a private view");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let size = Some("size=16m");
        mount(
            none,
            directory.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            size,
        )
        .expect("a small device");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(test(directory.path()));
        nix::mount::umount(directory.path()).expect("nothing is open any more");
    };
    std::thread::spawn(run).join().expect("the test passes");
}

/// Puts until the device is full; how many objects there are then.
async fn fill(store: &dyn Store, value: &str) -> usize {
    for index in 0.. {
        let write = write_put(&format!("/k/{index:03}"), value);
        match store.commit(transaction(&[], &[write])).await {
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, Error::Full), "{error}");
                return index;
            }
        }
    }
    0
}

fn open_with_leases(directory: &Path) -> SqliteStore {
    let config = SqliteConfig {
        volatile: vec!["/leases/".to_owned()],
        ..SqliteConfig::default()
    };
    SqliteStore::open(&directory.join("state.db"), config).expect("the store opens")
}

#[test]
fn deletes_and_leases_go_on_and_make_room() {
    on_a_small_device(async |directory| {
        let value = "v".repeat(60 << 10);
        let store = open_with_leases(directory);
        let kept = fill(&store, &value).await;
        assert!(kept > 100, "{kept}");
        // Nothing is left for others either.
        let _ = std::fs::write(directory.join("foreign"), vec![0; 16 << 20]);
        put(&store, "/leases/node", "v").await;
        for index in 0..kept / 2 {
            delete(&store, &format!("/k/{index:03}")).await;
        }
        put(&store, "/k/new", &value).await;
        assert_eq!(keys(&store, "/k/").await.len(), kept - kept / 2 + 1);
        store.close().await;
        let store = open(&directory.join("state.db"));
        assert_eq!(keys(&store, "/").await.len(), kept - kept / 2 + 1);
        store.close().await;
    });
}

#[test]
fn what_is_to_go_can_be_marked() {
    on_a_small_device(async |directory| {
        let store = open_with_leases(directory);
        let kept = fill(&store, &"v".repeat(8 << 10)).await;
        let _ = std::fs::write(directory.join("foreign"), vec![0; 16 << 20]);
        let longer = |key: &str, by: usize, frees| Transaction {
            frees,
            ..transaction(&[], &[write_put(key, &"v".repeat((8 << 10) + by))])
        };
        // The file has no room for one more, be it marked or not.
        for refused in [
            longer("/k/000", 40, false),
            longer("/k/000", 8 << 10, true),
            longer("/k/new", 0, true),
        ] {
            let outcome = store.commit(refused).await;
            assert!(matches!(outcome, Err(Error::Full)), "{outcome:?}");
        }
        for index in 0..kept {
            let key = format!("/k/{index:03}");
            let marked = store.commit(longer(&key, 40, true)).await;
            marked.unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        for index in 0..kept {
            delete(&store, &format!("/k/{index:03}")).await;
        }
        put(&store, "/k/new", "v").await;
        store.close().await;
    });
}

#[test]
fn a_restart_works_and_so_do_writes_when_others_made_room() {
    on_a_small_device(async |directory| {
        let foreign = directory.join("foreign");
        let store = open_with_leases(directory);
        put(&store, "/k/first", "v").await;
        store.close().await;
        std::fs::remove_file(directory.join("state.db-spare")).expect("the kept space");
        let _ = std::fs::write(&foreign, vec![0; 16 << 20]);

        let store = open_with_leases(directory);
        assert_eq!(keys(&store, "/").await, ["/k/first"]);
        assert_eq!(fill(&store, "v").await, 0);
        std::fs::remove_file(&foreign).expect("the foreign file");
        put(&store, "/k/second", "v").await;
        store.close().await;
    });
}
