//! Keys, revisions and transactions.

use std::sync::Arc;

use coracle_store::{Compare, Error, Store};

use crate::fixture::{Fixture, delete, keys, put, transaction, write_delete, write_put};

pub async fn a_key_has_the_revisions_of_its_life(fixture: &Fixture) {
    let store = &*fixture.store;
    let before = store.revision().await.expect("a revision");
    let created = put(store, "/k", "1").await;
    assert!(created > before);
    let updated = put(store, "/k", "2").await;
    assert!(updated > created);
    let key = store.get("/k").await.expect("a get").expect("the key");
    assert_eq!(
        (
            &*key.key,
            &*key.value,
            key.create_revision,
            key.mod_revision
        ),
        ("/k", &b"2"[..], created, updated)
    );

    let deleted = delete(store, "/k").await;
    assert!(deleted > updated);
    assert_eq!(store.get("/k").await.expect("a get"), None);
    let reborn = put(store, "/k", "3").await;
    let key = store.get("/k").await.expect("a get").expect("the key");
    assert_eq!(key.create_revision, reborn);
    assert!(store.revision().await.expect("a revision") >= reborn);
}

pub async fn a_list_holds_what_is_below_the_prefix_in_order(fixture: &Fixture) {
    let store = &*fixture.store;
    for key in [
        "/r/pods/b",
        "/r/pods/a",
        "/r/podsx",
        "/r/pod",
        "/r/pods/a/c",
    ] {
        put(store, key, "v").await;
    }
    assert_eq!(
        keys(store, "/r/pods/").await,
        ["/r/pods/a", "/r/pods/a/c", "/r/pods/b"]
    );
    assert_eq!(keys(store, "/r/none/").await, [""; 0]);
    let listing = store.list("/r/").await.expect("a list");
    assert_eq!(listing.items.len(), 5);
    assert_eq!(
        listing.revision,
        store.revision().await.expect("a revision")
    );
}

pub async fn a_failed_comparison_writes_nothing_and_tells_the_current_key(fixture: &Fixture) {
    let store = &*fixture.store;
    let revision = put(store, "/k", "1").await;
    let cases = [
        (Compare::Absent("/k".into()), Some("1")),
        (Compare::ModRevision("/k".into(), revision + 1), Some("1")),
        (Compare::ModRevision("/absent".into(), revision), None),
    ];
    for (compare, expected) in cases {
        let outcome = store
            .commit(transaction(
                &[Compare::ModRevision("/k".into(), revision), compare.clone()],
                &[write_put("/other", "x"), write_put("/k", "2")],
            ))
            .await;
        let Err(Error::Conflict { key, current }) = outcome else {
            panic!("{compare:?} gave {outcome:?}");
        };
        let (Compare::Absent(compared) | Compare::ModRevision(compared, _)) = compare;
        assert_eq!(key, compared);
        let current = current.map(|current| (current.value.clone(), current.mod_revision));
        assert_eq!(current, expected.map(|value| (value.into(), revision)));
    }
    assert_eq!(keys(store, "/").await, ["/k"]);

    let updated = store
        .commit(transaction(
            &[
                Compare::ModRevision("/k".into(), revision),
                Compare::Absent("/other".into()),
            ],
            &[write_put("/k", "2")],
        ))
        .await
        .expect("comparisons that hold let the write through");
    assert!(updated > revision);
}

pub async fn a_transaction_writes_all_its_keys_at_one_revision(fixture: &Fixture) {
    let store = &*fixture.store;
    put(store, "/gone", "x").await;
    let revision = store
        .commit(transaction(
            &[],
            &[
                write_put("/a", "1"),
                write_put("/b", "2"),
                write_delete("/gone"),
            ],
        ))
        .await
        .expect("a commit");
    let listing = store.list("/").await.expect("a list");
    let found: Vec<_> = listing
        .items
        .iter()
        .map(|item| (&*item.key, item.mod_revision))
        .collect();
    assert_eq!(found, [("/a", revision), ("/b", revision)]);
    assert_eq!(listing.revision, revision);
}

pub async fn a_transaction_that_changes_nothing_takes_no_revision(fixture: &Fixture) {
    let store = &*fixture.store;
    let revision = put(store, "/k", "1").await;
    assert_eq!(delete(store, "/absent").await, revision);
    let checked = store
        .commit(transaction(
            &[Compare::ModRevision("/k".into(), revision)],
            &[],
        ))
        .await;
    assert_eq!(checked.expect("a comparison alone"), revision);
    assert_eq!(put(store, "/k", "2").await, revision + 1);
}

pub async fn a_key_is_written_once_in_a_transaction(fixture: &Fixture) {
    let outcome = fixture
        .store
        .commit(transaction(
            &[],
            &[
                write_put("/k", "1"),
                write_put("/l", "1"),
                write_delete("/k"),
            ],
        ))
        .await;
    assert!(matches!(outcome, Err(Error::Backend(_))), "{outcome:?}");
    assert_eq!(keys(&*fixture.store, "/").await, [""; 0]);
}

pub async fn no_update_is_lost_among_many_writers(fixture: &Fixture) {
    const WRITERS: u64 = 16;
    const INCREMENTS: u64 = 20;
    put(&*fixture.store, "/counter", "0").await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                for _ in 0..INCREMENTS {
                    increment(&store).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let counter = fixture.store.get("/counter").await.expect("a get");
    let expected = (WRITERS * INCREMENTS).to_string();
    assert_eq!(counter.expect("the counter").value, expected);
}

/// Retries from the key that the conflict reports, as an API server does.
async fn increment(store: &Arc<dyn Store>) {
    let mut current = store.get("/counter").await.expect("a get");
    loop {
        let known = current.expect("the counter");
        let count: u64 = String::from_utf8_lossy(&known.value)
            .parse()
            .expect("a number");
        let compare = Compare::ModRevision(known.key.clone(), known.mod_revision);
        let write = write_put("/counter", &(count + 1).to_string());
        match store.commit(transaction(&[compare], &[write])).await {
            Ok(_) => return,
            Err(Error::Conflict { current: now, .. }) => current = now,
            Err(error) => panic!("{error}"),
        }
    }
}

pub async fn a_closed_store_refuses(fixture: &Fixture) {
    let store = &*fixture.store;
    put(store, "/k", "1").await;
    store.close().await;
    store.close().await;
    assert!(matches!(store.get("/k").await, Err(Error::Closed)));
    assert!(matches!(store.list("/").await, Err(Error::Closed)));
    assert!(matches!(store.revision().await, Err(Error::Closed)));
    assert!(matches!(store.watch("/", 0).await, Err(Error::Closed)));
    let outcome = store
        .commit(transaction(&[], &[write_put("/k", "2")]))
        .await;
    assert!(matches!(outcome, Err(Error::Closed)));
}
