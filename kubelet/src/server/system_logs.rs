//! `/logs/`: the host's log files, as upstream serves `/var/log`.

use std::path::{Path, PathBuf};

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use tokio::{fs, io};
use tokio_util::io::ReaderStream;

use super::respond;

const PIECE_BYTES: usize = 32 << 10;

/// Answers for `path` (decoded, relative) below `root`. What a link outside `root` points at
/// is not served: a pod that can write to the log directory must not read the host by it.
pub async fn serve(root: &Path, path: &str, url_path: &str) -> Response<Body> {
    match find(root, path).await {
        Ok(found) if found.is_dir() && !url_path.ends_with('/') => redirect(url_path),
        Ok(found) if found.is_dir() => list(&found).await.unwrap_or_else(|error| failed(&error)),
        Ok(found) => file(&found).await.unwrap_or_else(|error| failed(&error)),
        Err(error) => failed(&error),
    }
}

async fn find(root: &Path, path: &str) -> io::Result<PathBuf> {
    let root = fs::canonicalize(root).await?;
    let found = fs::canonicalize(root.join(path.trim_matches('/'))).await?;
    if found.starts_with(&root) {
        Ok(found)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn failed(error: &io::Error) -> Response<Body> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => respond::text(StatusCode::FORBIDDEN, "403 Forbidden\n"),
        _ => respond::text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn redirect(url_path: &str) -> Response<Body> {
    let name = url_path.rsplit('/').next().unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{name}/")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

async fn list(directory: &Path) -> io::Result<Response<Body>> {
    let mut names = Vec::new();
    let mut entries = fs::read_dir(directory).await?;
    while let Some(entry) = entries.next_entry().await? {
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().await?.is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort();
    let mut page = "<!doctype html>\n<pre>\n".to_owned();
    for name in names {
        let text = escape(&name);
        page.push_str(&format!("<a href=\"{text}\">{text}</a>\n"));
    }
    page.push_str("</pre>\n");
    let page = Body::from(page);
    let html = "text/html; charset=utf-8";
    Ok(respond::with_type(StatusCode::OK, html, page))
}

fn escape(name: &str) -> String {
    name.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
}

async fn file(path: &Path) -> io::Result<Response<Body>> {
    let file = fs::File::open(path).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(file, PIECE_BYTES));
    let text = "text/plain; charset=utf-8";
    Ok(respond::with_type(StatusCode::OK, text, body))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn get(root: &Path, path: &str) -> (StatusCode, String) {
        let response = serve(root, path, &format!("/logs/{path}")).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn files_and_directories_but_nothing_outside() {
        let host = tempfile::tempdir().unwrap();
        let root = host.path().join("log");
        std::fs::create_dir_all(root.join("pods")).unwrap();
        std::fs::write(root.join("syslog"), "hello").unwrap();
        std::fs::write(host.path().join("shadow"), "secret").unwrap();
        std::os::unix::fs::symlink(host.path().join("shadow"), root.join("link")).unwrap();
        assert_eq!(
            get(&root, "syslog").await,
            (StatusCode::OK, "hello".to_owned())
        );
        let (_, page) = get(&root, "").await;
        assert!(page.contains("<a href=\"pods/\">pods/</a>"), "{page}");
        assert_eq!(get(&root, "pods").await.0, StatusCode::MOVED_PERMANENTLY);
        for outside in ["../shadow", "link", "pods/../../shadow", "missing"] {
            assert_eq!(
                get(&root, outside).await.0,
                StatusCode::NOT_FOUND,
                "{outside}"
            );
        }
    }
}
