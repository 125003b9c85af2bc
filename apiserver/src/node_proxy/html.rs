//! Links in what is proxied: a page served at `/` is seen by the client below the proxy's path,
//! so its absolute links, and those of redirects, are led there.

use std::io::{Read as _, Write as _};

use axum::body::Body;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::error::ApiError;

/// Pages are held whole while they are rewritten.
const MAX_PAGE_BYTES: usize = 32 << 20;

/// The attributes that hold a URL, by tag: upstream's table.
#[rustfmt::skip]
const URL_ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]), ("applet", &["codebase"]), ("area", &["href"]), ("audio", &["src"]),
    ("base", &["href"]), ("blockquote", &["cite"]), ("body", &["background"]),
    ("button", &["formaction"]), ("command", &["icon"]), ("del", &["cite"]),
    ("embed", &["src"]), ("form", &["action"]), ("frame", &["longdesc", "src"]),
    ("head", &["profile"]), ("html", &["manifest"]), ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]), ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]), ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]), ("script", &["src"]),
    ("q", &["cite"]), ("source", &["src"]), ("video", &["poster", "src"]),
];

/// What links are to be led to.
#[derive(Clone, Debug)]
pub struct Links {
    /// The path of the proxy, without slash at its end.
    pub prefix: String,
    /// `host:port` of what is proxied.
    pub backend: String,
    /// The host that the client spoke to.
    pub request_host: String,
}

impl Links {
    /// The link as it is to be seen by the client; `None` if it stays as it is.
    fn lead(&self, link: &str) -> Option<String> {
        let (host, path) = split(link);
        let same_host = host.is_empty() || host == self.backend || host == self.request_host;
        if !same_host || !path.starts_with('/') || path.starts_with(&self.prefix) {
            return None;
        }
        let led = format!("{}{path}", self.prefix);
        if !host.is_empty() && host == self.request_host {
            let before = &link[..link.len() - path.len()];
            return Some(format!("{before}{led}"));
        }
        Some(led)
    }
}

/// The host of a URL, empty if it has none, and what comes after it.
fn split(link: &str) -> (&str, &str) {
    let after_scheme = link.strip_prefix("//").or_else(|| {
        let (scheme, rest) = link.split_once("://")?;
        let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_scheme.then_some(rest)
    });
    match after_scheme {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (&rest[..end], &rest[end..])
        }
        None => ("", link),
    }
}

/// Leads the links of a response: its `Location`, or those in it if it is a page.
pub async fn rewrite(
    mut response: Response<Body>,
    links: &Links,
) -> Result<Response<Body>, ApiError> {
    let headers = response.headers_mut();
    if let Some(location) = headers.get(header::LOCATION) {
        let led = location.to_str().ok().and_then(|link| links.lead(link));
        if let Some(led) = led.and_then(|led| HeaderValue::from_str(&led).ok()) {
            headers.insert(header::LOCATION, led);
        }
        return Ok(response);
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let is_page = content_type.split(';').next().map(str::trim) == Some("text/html");
    let gzip = match text(header::CONTENT_ENCODING) {
        None | Some("") => false,
        Some("gzip") => true,
        // What is not understood is passed on as it is.
        Some(_) => return Ok(response),
    };
    if !is_page {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let page = match Limited::new(body, MAX_PAGE_BYTES).collect().await {
        Ok(page) => page.to_bytes().to_vec(),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = "error trying to reach service: the page is too large";
            return Err(ApiError::service_unavailable(message));
        }
        Err(error) => {
            let message = format!("error trying to reach service: {error}");
            return Err(ApiError::service_unavailable(message));
        }
    };
    let page = if gzip {
        rewrite_compressed(&page, links).map_err(ApiError::internal)?
    } else {
        rewrite_page(&page, links)
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(page)))
}

fn rewrite_compressed(page: &[u8], links: &Links) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(page)
        .take(MAX_PAGE_BYTES as u64)
        .read_to_end(&mut plain)?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&rewrite_page(&plain, links))?;
    encoder.finish()
}

fn rewrite_page(page: &[u8], links: &Links) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + 64);
    let mut rest = page;
    while let Some(start) = memchr::memchr(b'<', rest) {
        out.extend(&rest[..start]);
        rest = &rest[start..];
        let length = if rest.starts_with(b"<!--") {
            memchr::memmem::find(rest, b"-->").map_or(rest.len(), |end| end + 3)
        } else if rest.get(1).is_some_and(u8::is_ascii_alphabetic) {
            tag_length(rest)
        } else {
            // The end of an element, a declaration, or a sign in the text.
            1
        };
        let (tag, after) = rest.split_at(length);
        rewrite_tag(tag, links, &mut out);
        rest = after;
    }
    out.extend(rest);
    out
}

/// Up to the `>` that ends the tag; one in quotes does not.
fn tag_length(text: &[u8]) -> usize {
    let mut quote = None;
    for (index, &byte) in text.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return index + 1,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    text.len()
}

fn rewrite_tag(tag: &[u8], links: &Links, out: &mut Vec<u8>) {
    let Ok(text) = std::str::from_utf8(tag) else {
        out.extend(tag);
        return;
    };
    let name_end = text[1..]
        .find(|c: char| !c.is_ascii_alphanumeric())
        .map_or(text.len(), |end| end + 1);
    let name = text[1..name_end].to_ascii_lowercase();
    let attributes = URL_ATTRIBUTES
        .iter()
        .find(|(tag, _)| *tag == name)
        .map_or(&[][..], |(_, attributes)| attributes);
    let mut written = 0;
    if !attributes.is_empty() {
        for value in values(text, name_end, attributes) {
            let led = links.lead(&unescape(&text[value.clone()]));
            if let Some(led) = led {
                out.extend(&tag[written..value.start]);
                out.extend(escape(&led).as_bytes());
                written = value.end;
            }
        }
    }
    out.extend(&tag[written..]);
}

/// Where the values of the attributes are in a tag.
fn values(tag: &str, start: usize, attributes: &[&str]) -> Vec<std::ops::Range<usize>> {
    let bytes = tag.as_bytes();
    let mut found = Vec::new();
    let mut at = start;
    let skip = |at: &mut usize, wanted: fn(u8) -> bool| {
        while bytes.get(*at).is_some_and(|&byte| wanted(byte)) {
            *at += 1;
        }
    };
    while at < bytes.len() {
        skip(&mut at, |byte| byte.is_ascii_whitespace() || byte == b'/');
        let name_start = at;
        skip(&mut at, |byte| {
            !byte.is_ascii_whitespace() && !matches!(byte, b'=' | b'>' | b'/')
        });
        let name = tag[name_start..at].to_ascii_lowercase();
        skip(&mut at, |byte| byte.is_ascii_whitespace());
        if bytes.get(at) != Some(&b'=') {
            // An attribute without value, or the end of the tag.
            at = at.max(name_start + 1);
            continue;
        }
        at += 1;
        skip(&mut at, |byte| byte.is_ascii_whitespace());
        let value = match bytes.get(at) {
            Some(&quote @ (b'"' | b'\'')) => {
                let value_start = at + 1;
                let length = memchr::memchr(quote, &bytes[value_start..]);
                let end = length.map_or(bytes.len(), |length| value_start + length);
                at = end + 1;
                value_start..end
            }
            _ => {
                let value_start = at;
                skip(&mut at, |byte| !byte.is_ascii_whitespace() && byte != b'>');
                value_start..at
            }
        };
        if attributes.contains(&name.as_str()) {
            found.push(value);
        }
    }
    found
}

fn unescape(value: &str) -> String {
    value
        .replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

fn escape(value: &str) -> String {
    value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links {
            prefix: "/api/v1/namespaces/n/pods/p:80/proxy".to_owned(),
            backend: "10.0.0.1:80".to_owned(),
            request_host: "localhost:8001".to_owned(),
        }
    }

    #[test]
    fn links_of_the_page_are_led_through_the_proxy() {
        const P: &str = "/api/v1/namespaces/n/pods/p:80/proxy";
        let cases = [
            (
                r#"<a href="/rewriteme">test</a>"#,
                format!(r#"<a href="{P}/rewriteme">test</a>"#),
            ),
            (
                r#"<p>1 < 2 <IMG alt='>' src=/x.png disabled>"#,
                format!(r#"<p>1 < 2 <IMG alt='>' src={P}/x.png disabled>"#),
            ),
            (
                r#"<a href="http://10.0.0.1:80/x?a=1&amp;b=2">"#,
                format!(r#"<a href="{P}/x?a=1&amp;b=2">"#),
            ),
            (
                r#"<form action="http://localhost:8001/x">"#,
                format!(r#"<form action="http://localhost:8001{P}/x">"#),
            ),
        ];
        for (page, expected) in cases {
            let led = rewrite_page(page.as_bytes(), &links());
            assert_eq!(String::from_utf8(led).unwrap(), expected);
        }
        for untouched in [
            r#"<a href="relative/x">"#,
            r#"<a href="https://example.com/x">"#,
            r#"<div href="/x">"#,
            r#"<!-- <a href="/x"> -->"#,
            "<a href=",
            "<",
            "text",
            "<a href='/api/v1/namespaces/n/pods/p:80/proxy/x'>",
        ] {
            let led = rewrite_page(untouched.as_bytes(), &links());
            assert_eq!(String::from_utf8(led).unwrap(), untouched);
        }
    }

    #[tokio::test]
    async fn redirects_and_compressed_pages_too() {
        let response = Response::builder()
            .header(header::LOCATION, "/login")
            .body(Body::empty())
            .unwrap();
        let response = rewrite(response, &links()).await.unwrap();
        assert_eq!(
            response.headers()[header::LOCATION],
            "/api/v1/namespaces/n/pods/p:80/proxy/login"
        );
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"<a href='/x'>").unwrap();
        let response = Response::builder()
            .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
            .header(header::CONTENT_ENCODING, "gzip")
            .body(Body::from(encoder.finish().unwrap()))
            .unwrap();
        let response = rewrite(response, &links()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let mut page = String::new();
        GzDecoder::new(&*body).read_to_string(&mut page).unwrap();
        assert_eq!(page, "<a href='/api/v1/namespaces/n/pods/p:80/proxy/x'>");
    }
}
