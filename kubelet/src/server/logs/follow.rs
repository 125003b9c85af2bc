//! Streams a log to a client, and follows it while its container runs.

use std::{fs::File, io, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{
    reader::{LogOptions, Progress, Reader},
    watch::{FileChange, FileWatch},
};

/// Bytes sent to the client at a time.
const CHUNK_BYTES: usize = 32 << 10;
/// Chunks read ahead of a slow client.
pub const CHUNKS_AHEAD: usize = 2;
/// A container whose log was closed but that seems to run is looked at again, first after the
/// shorter time: the runtime closes the log a moment before it reports the end.
const RECHECK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Whether the container whose log is followed still runs.
#[async_trait]
pub trait Liveness: Send + Sync {
    async fn is_running(&self) -> bool;
}

/// Sends the log at `path` through `sender` until it is complete, the client is gone, or, when
/// it is followed, the container has ended.
pub async fn stream(
    path: PathBuf,
    options: LogOptions,
    container: impl Liveness,
    sender: mpsc::Sender<io::Result<Bytes>>,
) {
    let follow = options.follow;
    let opened = blocking(move || {
        let path = path.canonicalize()?;
        let reader = Reader::new(File::open(&path)?, options)?;
        Ok((path, reader))
    });
    let result = match opened.await {
        Ok((path, reader)) => {
            let mut follower = Follower {
                path,
                reader: Some(reader),
                sender: sender.clone(),
            };
            if follow {
                follower.follow(container).await
            } else {
                follower.drain(true).await.map(|_| ())
            }
        }
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        // The head of the answer was sent long ago: all that is left is the text.
        let _ = sender.send(Ok(Bytes::from(error.to_string()))).await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

struct Follower {
    path: PathBuf,
    /// Always there but while it reads.
    reader: Option<Reader<File>>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Follower {
    async fn follow(&mut self, container: impl Liveness) -> io::Result<()> {
        // Watch first: nothing that is written after the end was read can then be missed.
        let mut watch = FileWatch::new(&self.path);
        let mut recheck = Recheck::default();
        recheck.again();
        if self.drain(false).await? {
            return Ok(());
        }
        let mut running = container.is_running().await;
        loop {
            // What was written before the container was seen to have ended is there now.
            if self.drain(!running).await? || !running {
                return Ok(());
            }
            let change = tokio::select! {
                () = self.sender.closed() => return Ok(()),
                change = watch.changed() => change,
                () = recheck.due() => {
                    running = container.is_running().await;
                    recheck.again();
                    continue;
                }
            };
            if change.replaced {
                self.rotate(change, &mut watch).await?;
            }
            if change.closed {
                running = container.is_running().await;
                recheck.closed();
            } else if change.modified {
                recheck.stop();
            }
        }
    }

    /// Sends what the file has. Gives whether that was all there will be.
    async fn drain(&mut self, finished: bool) -> io::Result<bool> {
        loop {
            let Some(mut reader) = self.reader.take() else {
                return Ok(true);
            };
            let (reader, out, progress) = blocking(move || {
                let mut out = Vec::new();
                let progress = reader.read(&mut out, CHUNK_BYTES, finished)?;
                Ok((reader, out, progress))
            })
            .await?;
            self.reader = Some(reader);
            if !out.is_empty() && self.sender.send(Ok(Bytes::from(out))).await.is_err() {
                return Ok(true);
            }
            match progress {
                Progress::More => {}
                Progress::End => return Ok(false),
                Progress::Complete => return Ok(true),
            }
        }
    }

    /// Goes on with the file that took the place of the one read so far. The runtime may write
    /// to the old one until it closes it.
    async fn rotate(&mut self, change: FileChange, watch: &mut FileWatch) -> io::Result<()> {
        let deadline = Instant::now() + RECHECK.1;
        let mut old_closed = change.other_closed;
        while !old_closed {
            match timeout_at(deadline, watch.changed()).await {
                Ok(change) => old_closed = change.other_closed,
                Err(_) => break,
            }
        }
        if self.drain(true).await? {
            return Ok(());
        }
        let path = self.path.clone();
        match blocking(move || File::open(path)).await {
            Ok(file) => self.reader = self.reader.take().map(|reader| reader.rotate(file)),
            // Rotated again already: the next event tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// When to look again whether the container runs: for a while after the start, as the log may
/// have been closed just before, and since it was seen to be closed.
#[derive(Default)]
struct Recheck {
    delay: Duration,
    at: Option<Instant>,
    closed: bool,
}

impl Recheck {
    async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn again(&mut self) {
        let done = self.delay == RECHECK.1 && !self.closed;
        self.delay = (self.delay * 2).clamp(RECHECK.0, RECHECK.1);
        self.at = (!done).then(|| Instant::now() + self.delay);
    }

    fn closed(&mut self) {
        if !self.closed {
            *self = Recheck {
                closed: true,
                ..Recheck::default()
            };
            self.again();
        }
    }

    /// Somebody writes to the log: the container runs.
    fn stop(&mut self) {
        *self = Recheck::default();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write as _,
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use tokio::{task::JoinHandle, time::timeout};

    use super::*;

    struct Switch(Arc<AtomicBool>);

    #[async_trait]
    impl Liveness for Switch {
        async fn is_running(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    struct Fixture {
        directory: tempfile::TempDir,
        running: Arc<AtomicBool>,
        received: mpsc::Receiver<io::Result<Bytes>>,
        task: JoinHandle<()>,
        text: String,
    }

    impl Fixture {
        fn start(written: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("0.log");
            fs::write(&path, written).unwrap();
            let running = Arc::new(AtomicBool::new(true));
            let (sender, received) = mpsc::channel(CHUNKS_AHEAD);
            let options = LogOptions {
                follow: true,
                ..LogOptions::default()
            };
            let task = tokio::spawn(stream(path, options, Switch(running.clone()), sender));
            Fixture {
                directory,
                running,
                received,
                task,
                text: String::new(),
            }
        }

        fn path(&self) -> std::path::PathBuf {
            self.directory.path().join("0.log")
        }

        async fn expect(&mut self, text: &str) {
            while self.text.len() < text.len() {
                let chunk = timeout(Duration::from_secs(10), self.received.recv())
                    .await
                    .unwrap_or_else(|_| panic!("waiting for {text:?}, got {:?}", self.text));
                let chunk = chunk.expect("the log has not ended").unwrap();
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
            assert_eq!(self.text, text);
        }

        async fn expect_end(&mut self) {
            let end = timeout(Duration::from_secs(10), self.received.recv());
            assert!(end.await.expect("the log ends").is_none());
        }
    }

    fn append(path: &Path) -> File {
        let mut options = OpenOptions::new();
        options.append(true).create(true).open(path).unwrap()
    }

    #[tokio::test]
    async fn what_is_written_later_is_sent_until_the_container_ends() {
        let mut log = Fixture::start("2016-10-06T00:17:01Z stdout F one\n");
        log.expect("one\n").await;
        let mut file = append(&log.path());
        file.write_all(b"2016-10-06T00:17:01Z stdout F two\n")
            .unwrap();
        log.expect("one\ntwo\n").await;
        file.write_all(b"2016-10-06T00:17:01Z stdout F last")
            .unwrap();
        drop(file);
        // The log is closed a moment before the end is reported.
        log.running.store(false, Ordering::SeqCst);
        log.expect("one\ntwo\nlast").await;
        log.expect_end().await;
    }

    #[tokio::test]
    async fn a_rotation_loses_nothing() {
        let mut log = Fixture::start("2016-10-06T00:17:01Z stdout F one\n");
        log.expect("one\n").await;
        let mut old = append(&log.path());
        fs::rename(log.path(), log.directory.path().join("0.log.1")).unwrap();
        old.write_all(b"2016-10-06T00:17:01Z stdout F two\n")
            .unwrap();
        let mut new = append(&log.path());
        old.write_all(b"2016-10-06T00:17:01Z stdout F three\n")
            .unwrap();
        drop(old);
        new.write_all(b"2016-10-06T00:17:01Z stdout F four\n")
            .unwrap();
        log.expect("one\ntwo\nthree\nfour\n").await;
        fs::remove_file(log.path()).unwrap();
        log.running.store(false, Ordering::SeqCst);
        drop(new);
        log.expect_end().await;
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_stream() {
        let mut log = Fixture::start("2016-10-06T00:17:01Z stdout F one\n");
        log.expect("one\n").await;
        log.received.close();
        timeout(Duration::from_secs(10), log.task)
            .await
            .expect("the stream ends")
            .unwrap();
    }
}
