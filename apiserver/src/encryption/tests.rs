//! Encryption through the whole server.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_api::{codec::protobuf, kinds};
use coracle_store::{Compare, MemoryStore, Store, Transaction, Write};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Control, EncryptedStore, OwnKeys, Rules};
use crate::{Config, Plugins, testing::TestServer};

/// Base64 of 32 bytes.
const A: &str = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=";
const B: &str = "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn rules(resources: &str, providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [{resources}]\n  providers: [{providers}]\n"
    )
}

fn provider(kind: &str, keys: &[(&str, &str)]) -> String {
    let keys: Vec<String> = keys
        .iter()
        .map(|(name, secret)| format!("{{name: {name}, secret: '{secret}'}}"))
        .collect();
    format!("{{{kind}: {{keys: [{}]}}}}", keys.join(", "))
}

struct Fixture {
    below: Arc<MemoryStore>,
    store: EncryptedStore,
    server: TestServer,
}

impl Fixture {
    async fn start(rules: Rules) -> Self {
        let below = Arc::new(MemoryStore::default());
        let store = EncryptedStore::new(below.clone(), rules);
        let server = TestServer::on(
            Arc::new(store.clone()),
            Config::default(),
            kinds::builtin(),
            |_| Plugins::default(),
        )
        .await;
        Fixture {
            below,
            store,
            server,
        }
    }

    async fn stored(&self, key: &str) -> String {
        let item = self.below.get(key).await.unwrap().unwrap();
        String::from_utf8_lossy(&item.value).into_owned()
    }

    async fn put_raw(&self, key: &str, value: impl AsRef<[u8]>) {
        let transaction = Transaction {
            compares: Vec::new(),
            writes: vec![Write::Put {
                key: key.into(),
                value: Bytes::copy_from_slice(value.as_ref()),
            }],
            ..Transaction::default()
        };
        self.below.commit(transaction).await.unwrap();
    }

    async fn secret(&self, name: &str) {
        let secret = json!({"metadata": {"name": name}, "stringData": {"word": "abracadabra"}});
        let answer = self.server.post(SECRETS, &secret).await;
        assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.message());
    }
}

#[tokio::test]
async fn the_store_holds_what_nobody_can_read_and_clients_see_what_they_wrote() {
    let text = rules("secrets, configmaps", &provider("aesgcm", &[("one", A)]));
    let fixture = Fixture::start(Rules::parse(&text).unwrap()).await;
    let mut watch = fixture.server.watch(&format!("{SECRETS}?watch=1")).await;
    fixture.secret("s").await;
    let stored = fixture.stored("/registry/secrets/default/s").await;
    assert!(stored.starts_with("k8s:enc:aesgcm:v1:one:"), "{stored}");
    let seen = fixture.server.get(&format!("{SECRETS}/s")).await.json();
    assert_eq!(seen["data"]["word"], "YWJyYWNhZGFicmE=");
    let event = watch.next().await.unwrap();
    assert_eq!(event["object"]["data"]["word"], "YWJyYWNhZGFicmE=");
    let typed = format!("{SECRETS}?fieldSelector=type=Opaque");
    assert_eq!(
        fixture.server.get(&typed).await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let pod = json!({"metadata": {"name": "n"}});
    fixture.server.post("/api/v1/namespaces", &pod).await;
    assert!(
        fixture
            .stored("/registry/namespaces/n")
            .await
            .starts_with('{')
    );
    let gone = format!("{SECRETS}/s");
    assert_eq!(
        fixture.server.delete(&gone, &Value::Null).await.code,
        StatusCode::OK
    );
    assert_eq!(watch.next_name().await.unwrap().0, "DELETED");
}

#[tokio::test]
async fn what_upstream_has_stored_as_protobuf_is_read_and_written_as_json() {
    let fixture = Fixture::start(Rules::default()).await;
    let (key, url) = (
        "/registry/configmaps/default/c",
        "/api/v1/namespaces/default/configmaps",
    );
    let mut watch = fixture.server.watch(&format!("{url}?watch=1")).await;
    let stored = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"default","uid":"u"},"data":{"a":"b"}}"#;
    fixture
        .put_raw(key, protobuf::from_json(stored).unwrap())
        .await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["object"]["data"]["a"], "b");
    let mut seen = fixture.server.get(&format!("{url}/c")).await.json();
    assert_eq!(seen["metadata"]["uid"], "u");
    seen["data"]["a"] = json!("c");
    let put = fixture.server.put(&format!("{url}/c"), &seen).await;
    assert_eq!(put.code, StatusCode::OK, "{}", put.message());
    assert!(fixture.stored(key).await.starts_with('{'));
    let listing = fixture.store.list("/registry/configmaps/").await.unwrap();
    assert_eq!(
        listing.items[0].mod_revision.to_string(),
        put.json()["metadata"]["resourceVersion"]
    );

    fixture.put_raw(key, &b"k8s\0\x0a\xff"[..]).await;
    watch.next().await.unwrap();
    assert_eq!(watch.next_name().await.unwrap().0, "DELETED");
    let listed = fixture.server.get(url).await;
    assert_eq!(listed.code, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_value_that_cannot_be_decrypted_is_an_error_until_it_is_removed() {
    let text = rules("secrets", &provider("secretbox", &[("one", A)]));
    let fixture = Fixture::start(Rules::parse(&text).unwrap()).await;
    fixture.secret("good").await;
    let bad = format!("{SECRETS}/bad");
    let why = "no matching key was found for the provided Secretbox transformer";
    fixture
        .put_raw(
            "/registry/secrets/default/bad",
            b"k8s:enc:secretbox:v1:lost:x",
        )
        .await;
    let server = &fixture.server;
    let internal = format!("Internal error occurred: {why}");
    assert_eq!(server.get(&bad).await.message(), internal);
    assert_eq!(
        server.get(SECRETS).await.message(),
        format!(
            "Internal error occurred: unable to transform key \"/registry/secrets/default/bad\": {why}"
        )
    );
    let old = server.get(&format!("{SECRETS}?resourceVersion=0")).await;
    assert_eq!(old.json()["items"].as_array().unwrap().len(), 1);
    let object = json!({"metadata": {"name": "bad"}});
    assert_eq!(
        server.post(SECRETS, &object).await.code,
        StatusCode::CONFLICT
    );
    assert_eq!(server.put(&bad, &object).await.message(), internal);
    assert_eq!(server.delete(&bad, &Value::Null).await.message(), internal);
    let force = json!({"ignoreStoreReadErrorWithClusterBreakingPotential": true});
    let with_grace = json!({
        "ignoreStoreReadErrorWithClusterBreakingPotential": true, "gracePeriodSeconds": 1,
    });
    assert_eq!(
        server.delete(&bad, &with_grace).await.code,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(server.delete(&bad, &force).await.code, StatusCode::OK);
    assert_eq!(server.get(&bad).await.code, StatusCode::NOT_FOUND);
    assert_eq!(server.get(SECRETS).await.code, StatusCode::OK);
    // What can be read is deleted as without the option.
    let good = format!("{SECRETS}/good");
    assert_eq!(server.delete(&good, &with_grace).await.code, StatusCode::OK);
}

#[tokio::test]
async fn another_configuration_is_read_with_at_once() {
    let fixture = Fixture::start(
        Rules::parse(&rules("secrets", &provider("aescbc", &[("one", A)]))).unwrap(),
    )
    .await;
    fixture.secret("s").await;
    let control = Control::with_configuration(fixture.store.clone(), None);
    // The key is gone, then it is back.
    let other = rules("'*.'", &provider("aescbc", &[("two", B)]));
    control.reload(&other).await.unwrap();
    let get = async || fixture.server.get(&format!("{SECRETS}/s")).await.code;
    wait(async || get().await == StatusCode::INTERNAL_SERVER_ERROR).await;
    let both = rules("'*.'", &provider("aescbc", &[("two", B), ("one", A)]));
    control.reload(&both).await.unwrap();
    wait(async || get().await == StatusCode::OK).await;
    // An update that changes nothing writes it with the new key.
    let object = fixture.server.get(&format!("{SECRETS}/s")).await.json();
    fixture.server.put(&format!("{SECRETS}/s"), &object).await;
    let stored = fixture.stored("/registry/secrets/default/s").await;
    assert!(stored.starts_with("k8s:enc:aescbc:v1:two:"), "{stored}");
    assert!(control.reload("nonsense").await.is_err());
    assert_eq!(get().await, StatusCode::OK);
}

async fn wait(condition: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("it comes true in time");
}

#[tokio::test]
async fn a_rotation_leaves_nothing_of_the_old_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let own = OwnKeys::open(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let fixture = Fixture::start(own.rules().unwrap()).await;
    for index in 0..20 {
        fixture.secret(&format!("s{index}")).await;
    }
    // From before encryption.
    let plain = br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"old","namespace":"default"},"type":"Opaque"}"#;
    fixture
        .put_raw("/registry/secrets/default/old", plain)
        .await;
    let before = fixture.stored("/registry/secrets/default/s0").await;
    let control = Arc::new(Control::with_own_keys(fixture.store.clone(), own));
    let writers = async {
        for index in 0..20 {
            fixture.secret(&format!("t{index}")).await;
        }
    };
    let (rotated, ()) = tokio::join!(control.clone().rotate_keys(), writers);
    assert!(rotated.unwrap() >= 20);
    let after = fixture.stored("/registry/secrets/default/s0").await;
    assert_ne!(before[..50], after[..50]);
    let own = OwnKeys::open(&path).unwrap();
    assert!(!own.has_old_keys());
    // What is in the file now is enough to read everything.
    let reader = EncryptedStore::new(fixture.below.clone(), own.rules().unwrap());
    let items = reader.list("/registry/secrets/").await.unwrap().items;
    assert_eq!(items.len(), 41);
    assert!(reader.unreadable("").is_empty());
    assert_eq!(control.reencrypt().await.unwrap(), 0);
}

#[tokio::test]
async fn an_interrupted_rotation_is_finished_by_the_next_reencryption() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let mut own = OwnKeys::open(&path).unwrap();
    let fixture = Fixture::start(own.rules().unwrap()).await;
    fixture.secret("s").await;
    own.add_key().unwrap();
    // The process died here; the next one finds both keys.
    let own = OwnKeys::open(&path).unwrap();
    assert!(own.has_old_keys());
    let store = EncryptedStore::new(fixture.below.clone(), own.rules().unwrap());
    let control = Arc::new(Control::with_own_keys(store.clone(), own));
    assert_eq!(control.reencrypt().await.unwrap(), 1);
    assert!(!OwnKeys::open(&path).unwrap().has_old_keys());
    assert!(
        store
            .get("/registry/secrets/default/s")
            .await
            .unwrap()
            .unwrap()
            .value
            .starts_with(b"{")
    );
    // A configuration from outside reads what the own keys wrote.
    let own = OwnKeys::existing(&path).unwrap().unwrap();
    let text = rules("secrets", &provider("aescbc", &[("two", B)]));
    let store = EncryptedStore::new(
        fixture.below.clone(),
        Control::rules(&text, Some(&own)).unwrap(),
    );
    let compares = vec![Compare::Absent("/registry/secrets/default/s".into())];
    let conflict = store
        .commit(Transaction {
            compares,
            writes: Vec::new(),
            ..Transaction::default()
        })
        .await;
    let Err(coracle_store::Error::Conflict { current, .. }) = conflict else {
        panic!("{conflict:?}");
    };
    assert!(current.unwrap().value.starts_with(b"{"));
}

#[test]
fn configurations_are_refused_in_upstreams_words() {
    let key = provider("aescbc", &[("k", A)]);
    for (text, message) in [
        (
            rules("'*'", &key),
            "resources[0].resources[0]: Invalid value: \"*\": use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        ),
        (
            rules("secrets, '*.'", &key),
            "resources[0].resources: Invalid value: [\"secrets\",\"*.\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
        ),
        (
            rules("Secrets", &key),
            "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters",
        ),
        (
            rules("secrets", &provider("aesgcm", &[("k", "YQ==")])),
            "resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 1, expected one of [16 24 32]",
        ),
        (
            rules("secrets", &provider("secretbox", &[("k", "!")])),
            "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded",
        ),
        (
            rules("secrets", ""),
            "resources[0].providers: Required value: at least one resources[0].providers is required",
        ),
    ] {
        assert_eq!(Rules::parse(&text).err().unwrap().to_string(), message);
    }
    let masked = format!(
        "{}- resources: [secrets]\n  providers: [{key}]\n",
        rules("'*.*'", &key)
    );
    assert!(Rules::parse(&masked).is_err());
    assert!(Rules::parse(&rules("pods.apps", "{identity: {}}, {x: {}}")).is_err());
}
