//! The OpenAPI documents as clients read them.

use std::{collections::BTreeMap, io::Read as _, sync::Arc};

use axum::body::Body;
use coracle_api::{Kind, kinds, openapi::Schemas};
use http::{Request, header};
use serde_json::{Value, json};

use crate::testing::{Answer, TestServer};

/// Where the index says a document is.
async fn url(server: &TestServer, path: &str) -> String {
    let index = server.get("/openapi/v3").await.json();
    let url = &index["paths"][path]["serverRelativeURL"];
    url.as_str().unwrap_or_default().to_owned()
}

async fn get_with(server: &TestServer, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.request(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_index_leads_to_documents_that_may_be_kept() {
    let server = TestServer::start().await;
    let url = url(&server, "apis/apps/v1").await;
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="));
    let answer = server.get(&url).await;
    assert_eq!(answer.code, 200);
    let header = |name| {
        answer
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    assert_eq!(header(header::CACHE_CONTROL), Some("public, immutable"));
    assert!(header(header::EXPIRES).is_some_and(|date| date.ends_with("GMT")));
    let hash = url.rsplit('=').next().unwrap();
    assert_eq!(header(header::ETAG), Some(&*format!("\"{hash}\"")));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.0.0");
    assert!(document["paths"]["/apis/apps/v1/deployments"].is_object());
}

#[tokio::test]
async fn a_stale_hash_is_sent_to_the_right_one() {
    let server = TestServer::start().await;
    let answer = server.get("/openapi/v3/apis/apps/v1?hash=0").await;
    assert_eq!(answer.code, 301);
    let location = answer.headers[header::LOCATION].to_str().unwrap();
    assert_eq!(location, url(&server, "apis/apps/v1").await);
    assert_eq!(server.get("/openapi/v3/apis/none/v1").await.code, 404);
    assert_eq!(server.get("/openapi/v1").await.code, 404);
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let server = TestServer::start().await;
    for target in ["/openapi/v2", "/openapi/v3", "/openapi/v3/version"] {
        let first = server.get(target).await;
        let tag = first.headers[header::ETAG].to_str().unwrap();
        let again = get_with(&server, target, &[("if-none-match", tag)]).await;
        assert_eq!(
            (again.code.as_u16(), again.body.len()),
            (304, 0),
            "{target}"
        );
        let other = get_with(&server, target, &[("if-none-match", "\"0\"")]).await;
        assert_eq!(other.body, first.body, "{target}");
    }
}

#[tokio::test]
async fn documents_come_in_the_form_and_encoding_that_is_asked_for() {
    let server = TestServer::start().await;
    for (target, version) in [("/openapi/v2", 2), ("/openapi/v3/version", 3)] {
        let old = format!("application/com.github.proto-openapi.spec.v{version}@v1.0+protobuf");
        let new = format!("application/com.github.proto-openapi.spec.v{version}.v1.0+protobuf");
        for asked in [&old, &new] {
            let answer = server.get_as(target, asked).await;
            assert_eq!(answer.headers[header::CONTENT_TYPE], *new);
            // The first field is text: `2.0` or `3.0.0`.
            assert_eq!(answer.body[0], 0x0a);
        }
        let plain = server.get_as(target, "application/json").await;
        assert_eq!(plain.headers[header::CONTENT_TYPE], "application/json");
        let zipped = get_with(&server, target, &[("accept-encoding", "gzip")]).await;
        assert_eq!(zipped.headers[header::CONTENT_ENCODING], "gzip");
        let mut read = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&zipped.body[..]);
        decoder.read_to_end(&mut read).unwrap();
        assert!(read == plain.body);
        assert_eq!(server.get_as(target, "text/plain").await.code, 406);
    }
}

/// Schemas that someone changes.
struct Widgets(&'static str);

impl Schemas for Widgets {
    fn definitions(&self) -> BTreeMap<String, Value> {
        let schema = |text| json!({"type": "object", "description": text});
        BTreeMap::from([
            ("com.example.v1.Widget".to_owned(), schema(self.0)),
            ("com.example.v1.WidgetList".to_owned(), schema("A list.")),
        ])
    }

    fn revision(&self) -> String {
        self.0.to_owned()
    }
}

#[tokio::test]
async fn custom_resources_come_change_and_go() {
    let server = TestServer::start().await;
    let openapi = server.server.openapi();
    let before = url(&server, "apis/apps/v1").await;
    let mut kind = Kind::clone(kinds::find("apps", "v1", "Deployment").unwrap());
    kind.group = "example.com".to_owned();
    kind.kind = "Widget".to_owned();
    kind.resource = "widgets".to_owned();
    server.server.registry().add(&[Arc::new(kind)]).await;
    assert_eq!(url(&server, "apis/example.com/v1").await, "");
    let mut urls = Vec::new();
    for text in ["One.", "Another."] {
        openapi.describe("example.com", "v1", Some(Arc::new(Widgets(text))));
        let url = url(&server, "apis/example.com/v1").await;
        let v3 = server.get(&url).await.json();
        assert_eq!(
            v3["components"]["schemas"]["com.example.v1.Widget"]["description"],
            text
        );
        let v2 = server.get("/openapi/v2").await.json();
        assert_eq!(
            v2["definitions"]["com.example.v1.Widget"]["description"],
            text
        );
        urls.push(url);
    }
    assert_ne!(urls[0], urls[1]);
    openapi.describe("example.com", "v1", None);
    assert_eq!(url(&server, "apis/example.com/v1").await, "");
    assert_eq!(url(&server, "apis/apps/v1").await, before);
}
