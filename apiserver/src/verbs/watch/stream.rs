//! The body of a watch: events as the cache has them, bookmarks between, until the time is up,
//! the watcher is left behind or the server ends.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use coracle_api::Kind;
use coracle_store::Revision;
use futures::Stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::encode::Encoder;
use crate::{
    cache::{TooOld, WatchEvent, Watcher},
    error::ApiError,
    metrics::watches,
    options::ListOptions,
    registry::Registry,
    server::ApiServer,
};

/// How often a watch that allows it gets a bookmark.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A last bookmark is sent this long before the watch ends.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Events are gathered into frames of up to about this size.
const FRAME: usize = 64 << 10;

/// Where a watch starts.
pub struct Initial {
    pub watcher: Watcher,
    /// The objects that there are, when the client wants them first.
    pub events: Vec<WatchEvent>,
    /// The revision of `events`.
    pub revision: Revision,
}

/// A watch under way.
pub struct WatchStream {
    registry: Registry,
    shutdown: CancellationToken,
    encoder: Encoder,
    state: State,
    bookmarks: bool,
    /// Whether the end of the initial events is still to be marked, and at which revision.
    initial_end: Option<Revision>,
    /// What is listed first, and the scope of it, until that is done.
    listing: Option<(Arc<Kind>, &'static str)>,
    since: std::time::Instant,
    next_bookmark: Instant,
    end: Instant,
}

enum State {
    /// Initial events that are not sent yet, and the watcher.
    Initial(std::vec::IntoIter<WatchEvent>, Watcher),
    Watching(Watcher),
    Failed(ApiError),
    Ended,
}

impl WatchStream {
    pub fn new(
        server: &ApiServer,
        encoder: Encoder,
        of: (Arc<Kind>, &'static str),
        initial: Result<Initial, ApiError>,
        options: &ListOptions,
        timeout: Duration,
    ) -> Self {
        let now = Instant::now();
        let sends_initial = options.send_initial_events == Some(true);
        let (initial_end, state) = match initial {
            Ok(initial) => (
                Some(initial.revision).filter(|_| sends_initial && options.allow_bookmarks),
                State::Initial(initial.events.into_iter(), initial.watcher),
            ),
            Err(error) => (None, State::Failed(error)),
        };
        let mut stream = WatchStream {
            registry: server.registry().clone(),
            shutdown: server.shutdown().clone(),
            encoder,
            state,
            bookmarks: options.allow_bookmarks,
            initial_end,
            listing: sends_initial.then_some(of),
            since: std::time::Instant::now(),
            next_bookmark: now,
            end: now + timeout,
        };
        stream.schedule_bookmark(now);
        stream
    }

    /// The frames of the body.
    pub fn frames(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        futures::stream::unfold(self, |mut stream| async move {
            let frame = stream.next_frame().await?;
            Some((Ok(frame), stream))
        })
    }

    async fn next_frame(&mut self) -> Option<Bytes> {
        let mut frame = BytesMut::new();
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return None,
            State::Failed(error) => self.encoder.error(&mut frame, &error),
            State::Initial(mut events, watcher) => {
                for event in events.by_ref() {
                    self.encoder.event(&mut frame, &event);
                    if frame.len() >= FRAME {
                        self.state = State::Initial(events, watcher);
                        return Some(frame.freeze());
                    }
                }
                if let Some((kind, scope)) = self.listing.take() {
                    watches::listed(&kind, scope, self.since);
                }
                if let Some(revision) = self.initial_end.take() {
                    self.encoder.bookmark(&mut frame, revision, true);
                }
                if frame.is_empty() {
                    return self.watch(watcher).await;
                }
                self.state = State::Watching(watcher);
            }
            State::Watching(watcher) => return self.watch(watcher).await,
        }
        Some(frame.freeze())
    }

    /// Waits for events or the time of a bookmark.
    async fn watch(&mut self, mut watcher: Watcher) -> Option<Bytes> {
        let mut frame = BytesMut::new();
        let pause = if self.bookmarks {
            self.next_bookmark.min(self.end)
        } else {
            self.end
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return None,
            events = watcher.next() => {
                self.gather(&mut frame, &mut watcher, &events.ok()?).ok()?;
            }
            () = tokio::time::sleep_until(pause) => {
                let now = Instant::now();
                if now >= self.end {
                    return None;
                }
                // Progress first: all events up to it are in the history by then.
                let revision = self.registry.progress()?;
                while !watcher.at_end() {
                    let events = watcher.ready().ok()?;
                    self.gather(&mut frame, &mut watcher, &events).ok()?;
                }
                self.encoder.bookmark(&mut frame, revision, false);
                self.schedule_bookmark(now);
            }
        }
        self.state = State::Watching(watcher);
        Some(frame.freeze())
    }

    /// Encodes `events` and those that have happened since, until the frame is full.
    fn gather(
        &mut self,
        frame: &mut BytesMut,
        watcher: &mut Watcher,
        events: &[WatchEvent],
    ) -> Result<(), TooOld> {
        for event in events {
            self.encoder.event(frame, event);
        }
        while frame.len() < FRAME && !watcher.at_end() {
            for event in watcher.ready()? {
                self.encoder.event(frame, &event);
            }
        }
        Ok(())
    }

    fn schedule_bookmark(&mut self, now: Instant) {
        let before_end = self.end.checked_sub(BOOKMARK_BEFORE_END);
        self.next_bookmark = match before_end {
            Some(last) if last > now => last.min(now + BOOKMARK_EVERY),
            _ => self.end,
        };
    }
}
