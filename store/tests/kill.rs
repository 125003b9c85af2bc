//! `kill -9` at any moment loses no acknowledged write and leaves a store that opens.
//!
//! This test starts itself again as the writer, reads the writer's acknowledgements from a pipe
//! and kills it at a random moment, many times over on one file.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use coracle_store::{Revision, SqliteConfig, SqliteStore, Store, Transaction, Write};

const FILE: &str = "CORACLE_STORE_KILL_FILE";
const ROUNDS: usize = 100;
const WRITERS: usize = 8;

fn open(path: &Path) -> SqliteStore {
    let config = SqliteConfig {
        volatile: vec!["/volatile/".to_owned()],
        ..SqliteConfig::default()
    };
    SqliteStore::open(path, config).expect("the store opens after a kill")
}

/// What has been acknowledged: per key the latest number, and the latest revision.
#[derive(Default)]
struct Acknowledged {
    numbers: BTreeMap<String, u64>,
    revision: Revision,
}

#[test]
fn no_acknowledged_write_is_lost() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("state.db");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        let before = acknowledged.revision;
        write_and_kill(&path, &mut acknowledged);
        assert!(
            acknowledged.revision > before,
            "round {round} wrote nothing"
        );
        runtime.block_on(verify(&path, &mut acknowledged));
    }
    assert!(acknowledged.numbers.len() >= WRITERS);
}

fn write_and_kill(path: &Path, acknowledged: &mut Acknowledged) {
    let mut writer = Command::new(std::env::current_exe().expect("this test's path"))
        .args(["--exact", "writer", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let mut lines = BufReader::new(writer.stdout.take().expect("a pipe")).lines();
    while !record(
        &lines.next().expect("the writer writes").expect("a line"),
        acknowledged,
    ) {}
    let delay = Duration::from_micros(RandomState::new().hash_one(writer.id()) % 60_000);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(delay);
        writer.kill().expect("the writer is killed");
        writer.wait().expect("the writer has ended");
    });
    // The pipe holds what was acknowledged before the kill.
    for line in lines.map_while(Result::ok) {
        record(&line, acknowledged);
    }
    killer.join().expect("the writer was killed");
}

/// Reads `ack KEY NUMBER REVISION`; a line cut short by the kill is no acknowledgement.
fn record(line: &str, acknowledged: &mut Acknowledged) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let ["ack", key, number, revision, "."] = words[..] else {
        return false;
    };
    let number = number.parse().expect("a number");
    let revision: Revision = revision.parse().expect("a revision");
    if !key.starts_with("/volatile/") {
        acknowledged.numbers.insert(key.to_owned(), number);
    }
    acknowledged.revision = acknowledged.revision.max(revision);
    true
}

async fn verify(path: &Path, acknowledged: &mut Acknowledged) {
    let store = open(path);
    assert!(store.revision().await.expect("a revision") >= acknowledged.revision);
    for (key, number) in &mut acknowledged.numbers {
        let stored = store.get(key).await.expect("a get").expect("the key");
        let stored: u64 = String::from_utf8_lossy(&stored.value[..20])
            .parse()
            .expect("a number");
        assert!(
            stored >= *number,
            "{key} is at {stored}, acknowledged was {number}"
        );
        assert!(stored <= *number + 1, "{key} is at {stored}, never written");
        // A write that was under way at the kill may be there, and then it has to stay.
        *number = stored;
    }
    store.close().await;
}

/// The process that is killed. It does nothing unless the test above starts it.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(Path::new(&path));
        let writers = (0..=WRITERS).map(|writer| write_forever(&store, writer));
        futures::future::join_all(writers).await;
    });
}

async fn write_forever(store: &SqliteStore, writer: usize) {
    let key = match writer {
        WRITERS => "/volatile/k".to_owned(),
        _ => format!("/k/{writer}"),
    };
    let stored = store.get(&key).await.expect("a get");
    let mut number: u64 = stored.map_or(0, |stored| {
        String::from_utf8_lossy(&stored.value[..20])
            .parse()
            .expect("a number")
    });
    loop {
        number += 1;
        // Numbers come first; the rest makes some values span several pages.
        let value = format!("{number:020}{}", "x".repeat(writer * 1000));
        let write = Write::Put {
            key: key.as_str().into(),
            value: value.into(),
        };
        let transaction = Transaction {
            compares: Vec::new(),
            writes: vec![write],
            ..Transaction::default()
        };
        let revision = store.commit(transaction).await.expect("a commit");
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {key} {number} {revision} .").expect("the pipe is read");
    }
}
