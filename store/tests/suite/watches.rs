//! Watches: nothing is missed, nothing is buffered without end.

use std::{collections::BTreeMap, sync::Arc};

use coracle_store::{Compare, Error, Event, Revision};

use crate::fixture::{
    DEADLINE, Fixture, delete, describe, events_until, next, put, transaction, write_delete,
    write_put,
};

pub async fn a_watch_replays_and_then_follows(fixture: &Fixture) {
    let store = &*fixture.store;
    let created = put(store, "/k", "1").await;
    let updated = put(store, "/k", "2").await;
    let mut watch = store.watch("/", created).await.expect("a watch");
    let events = events_until(&mut watch, updated).await;
    let [Event::Put { current, previous }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(
        (&*current.value, current.mod_revision),
        (&b"2"[..], updated)
    );
    assert_eq!(current.create_revision, created);
    let previous = previous.as_ref().expect("what the key was before");
    assert_eq!(
        (&*previous.value, previous.mod_revision),
        (&b"1"[..], created)
    );

    let deleted = delete(store, "/k").await;
    let events = events_until(&mut watch, deleted).await;
    let [Event::Delete { revision, previous }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(*revision, deleted);
    assert_eq!(
        (&*previous.value, previous.mod_revision),
        (&b"2"[..], updated)
    );

    let both = store
        .commit(transaction(
            &[],
            &[write_put("/a", "1"), write_put("/b", "1")],
        ))
        .await
        .expect("a commit");
    let batch = next(&mut watch).await.expect("a batch");
    assert_eq!(batch.revision, both, "one transaction is one batch");
    let described: Vec<String> = batch.events.iter().map(describe).collect();
    assert_eq!(described, ["+/a=1", "+/b=1"]);
}

pub async fn a_watch_sees_its_prefix_only_but_learns_the_revision(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.revision().await.expect("a revision");
    let mut watch = store.watch("/pods/", start).await.expect("a watch");
    put(store, "/podsx", "x").await;
    put(store, "/pods/a", "1").await;
    put(store, "/nodes/a", "x").await;
    delete(store, "/nodes/a").await;
    let last = put(store, "/pods/b", "1").await;
    let events = events_until(&mut watch, last).await;
    let described: Vec<String> = events.iter().map(describe).collect();
    assert_eq!(described, ["+/pods/a=1", "+/pods/b=1"]);
}

pub async fn a_watch_gets_to_every_revision_that_was_told(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.revision().await.expect("a revision");
    let mut watch = store.watch("/pods/", start).await.expect("a watch");
    for _ in 0..3 {
        put(store, "/nodes/a", "x").await;
        let told = store.revision().await.expect("a revision");
        assert!(events_until(&mut watch, told).await.is_empty());
    }
    let last = put(store, "/pods/a", "1").await;
    assert_eq!(events_until(&mut watch, last).await.len(), 1);
}

pub async fn every_watcher_sees_every_change_under_load(fixture: &Fixture) {
    const WRITERS: usize = 8;
    const WRITES: usize = 60;
    let start = fixture.store.revision().await.expect("a revision");
    let mut watchers = Vec::new();
    for _ in 0..3 {
        let watch = fixture.store.watch("/", start).await.expect("a watch");
        watchers.push(tokio::spawn(follow(watch, WRITERS * (WRITES + 1))));
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                for index in 0..WRITES {
                    put(&*store, &format!("/k/{writer}/{}", index % 7), "v").await;
                }
                delete(&*store, &format!("/k/{writer}/0")).await;
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let listing = fixture.store.list("/").await.expect("a list");
    let listed: BTreeMap<Arc<str>, Revision> = listing
        .items
        .into_iter()
        .map(|item| (item.key.clone(), item.mod_revision))
        .collect();
    for watcher in watchers {
        let followed = tokio::time::timeout(DEADLINE, watcher)
            .await
            .expect("a watcher sees all events before the deadline");
        assert_eq!(followed.expect("a watcher"), listed);
    }
}

/// Keeps a copy of the store from its events, and checks that they are in order and whole.
async fn follow(mut watch: coracle_store::Watch, expected: usize) -> BTreeMap<Arc<str>, Revision> {
    let mut copy = BTreeMap::new();
    let (mut seen, mut last) = (0, 0);
    while seen < expected {
        let batch = next(&mut watch).await.expect("the watch goes on");
        for event in batch.events {
            assert!(event.revision() > last && event.revision() <= batch.revision);
            last = event.revision();
            seen += 1;
            match event {
                Event::Put { current, previous } => {
                    let known = copy.insert(current.key.clone(), current.mod_revision);
                    assert_eq!(known, previous.map(|previous| previous.mod_revision));
                }
                Event::Delete { previous, .. } => {
                    assert_eq!(copy.remove(&previous.key), Some(previous.mod_revision));
                }
            }
        }
    }
    copy
}

pub async fn a_watch_from_the_distant_past_is_refused(fixture: &Fixture) {
    let store = &*fixture.store;
    let past = put(store, "/k", "1").await;
    fixture.forget_history().await;
    match store.watch("/", past).await.map(drop) {
        Err(Error::Compacted { requested, oldest }) => {
            assert_eq!(requested, past);
            assert!(oldest > past);
            store
                .watch("/", oldest)
                .await
                .map(drop)
                .expect("the oldest is kept");
        }
        other => panic!("{other:?}"),
    }
}

pub async fn a_watch_from_the_future_is_refused(fixture: &Fixture) {
    let current = put(&*fixture.store, "/k", "1").await;
    let outcome = fixture.store.watch("/", current + 1).await.map(drop);
    assert!(matches!(outcome, Err(Error::Future { .. })), "{outcome:?}");
    fixture
        .store
        .watch("/", current)
        .await
        .map(drop)
        .expect("now is no future");
}

pub async fn a_watcher_that_does_not_read_is_closed(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = put(store, "/k", "1").await;
    let mut watch = store.watch("/", start).await.expect("a watch");
    put(store, "/k", "2").await;
    next(&mut watch).await.expect("it reads at first");
    fixture.forget_history().await;
    let error = loop {
        if let Err(error) = next(&mut watch).await {
            break error;
        }
    };
    assert!(matches!(error, Error::Compacted { .. }), "{error}");
    use futures::StreamExt as _;
    assert!(watch.next().await.is_none(), "the error is the last item");
}

pub async fn a_watch_ends_when_the_store_closes(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = put(store, "/k", "1").await;
    let mut watch = store.watch("/", start).await.expect("a watch");
    let last = store
        .commit(transaction(
            &[Compare::ModRevision("/k".into(), start)],
            &[write_delete("/k")],
        ))
        .await
        .expect("a commit");
    assert_eq!(events_until(&mut watch, last).await.len(), 1);
    store.close().await;
    let error = next(&mut watch).await.expect_err("the watch ends");
    assert!(matches!(error, Error::Closed), "{error}");
}
