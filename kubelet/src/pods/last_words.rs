//! What a container leaves behind when it ends: its termination message, or the end of its log
//! in place of it.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use k8s_cri::v1::ContainerStatus;

use super::labels;

/// The most bytes of a message.
const MESSAGE: u64 = 4096;
/// The most bytes and lines of a log that stand in for a message.
const LOG: usize = 2048;
const LOG_LINES: usize = 80;
/// More of a log's end than is needed for its last lines.
const LOG_END: u64 = 256 << 10;

/// Reads the message of an ended container; empty when it has left none.
pub fn read(status: &ContainerStatus) -> Option<String> {
    let wanted = labels::message_path(&status.annotations);
    let falls_back = labels::falls_back_to_logs(&status.annotations)
        && status.exit_code != 0
        && status.reason != "ContainerCannotRun";
    if !wanted.is_empty() {
        let wanted = match wanted.starts_with('/') {
            true => wanted.to_owned(),
            false => format!("/{wanted}"),
        };
        let mount = status.mounts.iter().find(|it| it.container_path == wanted);
        if let Some(mount) = mount {
            match end_of(Path::new(&mount.host_path), MESSAGE) {
                Ok(message) if !message.is_empty() || !falls_back => {
                    return Some(String::from_utf8_lossy(&message).into_owned());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Some(format!(
                        "Error on reading termination log {}: {error}",
                        mount.host_path
                    ));
                }
            }
        }
    }
    if !falls_back {
        return None;
    }
    Some(match end_of(Path::new(&status.log_path), LOG_END) {
        Ok(log) => last_lines(&log),
        Err(error) => format!("Error on reading termination message from logs: {error}"),
    })
}

fn end_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// The last lines of a log in CRI's format, without what the runtime put before them.
fn last_lines(log: &[u8]) -> String {
    let lines: Vec<&[u8]> = log.split_inclusive(|&byte| byte == b'\n').collect();
    let mut text = Vec::new();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        // Time, stream and tag come before the text.
        let mut parts = line.splitn(4, |&byte| byte == b' ');
        let tag = parts.nth(2);
        let Some(content) = parts.next() else {
            continue;
        };
        match tag {
            // A part of a longer line goes on in the next one.
            Some(b"P") => text.extend_from_slice(content.strip_suffix(b"\n").unwrap_or(content)),
            _ => text.extend_from_slice(content),
        }
    }
    let start = text.len().saturating_sub(LOG);
    String::from_utf8_lossy(&text[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::Mount;

    fn status(policy: &str, exit_code: i32, message: &Path, log: &Path) -> ContainerStatus {
        let key = |name: &str| format!("io.kubernetes.container.{name}");
        ContainerStatus {
            exit_code,
            annotations: [
                (key("terminationMessagePath"), "/dev/termination-log".into()),
                (key("terminationMessagePolicy"), policy.into()),
            ]
            .into(),
            mounts: vec![Mount {
                container_path: "/dev/termination-log".into(),
                host_path: message.to_string_lossy().into_owned(),
                ..Mount::default()
            }],
            log_path: log.to_string_lossy().into_owned(),
            ..ContainerStatus::default()
        }
    }

    #[test]
    fn the_log_stands_in_only_where_it_may() {
        let directory = tempfile::tempdir().expect("a directory");
        let message = directory.path().join("message");
        let log = directory.path().join("0.log");
        std::fs::write(&log, "t stdout F one\nt stderr P two-\nt stderr F three\n")
            .expect("it is written");
        std::fs::write(&message, "").expect("it is written");
        let fallback = "FallbackToLogsOnError";
        let cases = [
            ("File", 1, "", Some("")),
            (fallback, 0, "", Some("")),
            (fallback, 1, "", Some("one\ntwo-three\n")),
            (fallback, 1, "said", Some("said")),
        ];
        for (policy, exit_code, said, expected) in cases {
            std::fs::write(&message, said).expect("it is written");
            let found = read(&status(policy, exit_code, &message, &log));
            assert_eq!(found.as_deref(), expected, "{policy} {exit_code}");
        }
        let long = "x".repeat(5000);
        std::fs::write(&message, long).expect("it is written");
        let found = read(&status("File", 0, &message, &log));
        assert_eq!(found.map(|text| text.len()), Some(4096));
    }
}
