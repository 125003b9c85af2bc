//! exec and attach of a client that speaks `v5.channel.k8s.io` over a WebSocket, translated to
//! the SPDY/3.1 of the runtime.
//!
//! Over the WebSocket each message starts with a channel's number, and 255 with a number closes
//! that channel; over SPDY each channel is a stream. The status comes last, on the error
//! channel. Each direction is a loop of its own, so that neither can stall the other.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use coracle_transport::Stream;
use futures::{Sink, SinkExt as _, StreamExt as _};
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message},
};
use tokio_util::codec::Framed;

use crate::pods::spec::find_container;

use super::{
    super::spdy::{Codec, Frame, SpdyError, StreamId},
    websocket::closing,
};

#[cfg(test)]
mod tests;

/// Frames that the reading side has for the writing side: answers to pings.
const CONTROL_WAITING: usize = 8;
/// An error stream holds one Status; more is cut off.
const MAX_STATUS_BYTES: usize = 1 << 20;
/// A client that was told the status has this long to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_SIGNAL: u8 = 255;

mod channel {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    pub const ERROR: u8 = 3;
    pub const RESIZE: u8 = 4;
}

/// The channels in the order in which their streams are opened: as upstream's clients do.
const STREAMS: [(u8, &str); 5] = [
    (channel::ERROR, "error"),
    (channel::STDIN, "stdin"),
    (channel::STDOUT, "stdout"),
    (channel::STDERR, "stderr"),
    (channel::RESIZE, "resize"),
];

/// A client's streams have odd ids, each greater than those opened before.
fn stream_of(channel: u8) -> StreamId {
    let position = STREAMS.iter().position(|&(known, _)| known == channel);
    position.map_or(0, |position| position as StreamId * 2 + 1)
}

/// The channel that a stream stands for.
fn channel_of(id: StreamId) -> Option<u8> {
    STREAMS
        .iter()
        .map(|&(channel, _)| channel)
        .find(|&channel| stream_of(channel) == id)
}

/// Which streams the client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Channels {
    fn has(self, channel: u8) -> bool {
        match channel {
            channel::STDIN => self.stdin,
            channel::STDOUT => self.stdout,
            channel::STDERR => self.stderr && !self.tty,
            channel::ERROR => true,
            channel::RESIZE => self.tty,
            _ => false,
        }
    }

    /// The streams of the runtime for a client with these: only what was started with a terminal
    /// has one, whatever the client takes it for.
    fn at(self, process: Process) -> Self {
        Channels {
            tty: process.tty,
            ..self
        }
    }

    fn streams(self) -> impl Iterator<Item = (u8, &'static str)> {
        let wanted = move |&(channel, _): &(u8, &str)| self.has(channel);
        STREAMS.into_iter().filter(wanted)
    }
}

/// What was decided about a process when it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub tty: bool,
    /// Whether its input ends when the client's does.
    pub stdin_once: bool,
}

impl Process {
    /// The main process of a container; `None` if the pod has no such.
    pub fn of(pod: &Pod, container: &str) -> Option<Self> {
        let (_, container) = find_container(pod.spec.as_ref()?, container)?;
        Some(Process {
            tty: container.tty == Some(true),
            stdin_once: container.stdin_once == Some(true),
        })
    }
}

/// Why a translation ended without status of its own.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client has gone")]
    Client,
    #[error("{0}")]
    Runtime(#[from] SpdyError),
    #[error("error reading from error stream: the runtime closed the connection")]
    RuntimeClosed,
}

impl From<tungstenite::Error> for Broken {
    fn from(_: tungstenite::Error) -> Self {
        Broken::Client
    }
}

/// Tells the client that its WebSocket is ready, by an empty message on the first channel that
/// it reads.
pub async fn greet(
    socket: &mut WebSocketStream<impl Stream>,
    channels: Channels,
) -> Result<(), tungstenite::Error> {
    let first = [channel::STDOUT, channel::STDERR]
        .into_iter()
        .find(|&channel| channels.has(channel))
        .unwrap_or(channel::ERROR);
    socket.send(message(first, &[])).await
}

/// Translates between the client and the runtime's upgraded connection until the command has
/// ended, and tells the client how.
pub async fn translate(
    mut socket: WebSocketStream<impl Stream>,
    runtime: impl Stream,
    channels: Channels,
    process: Process,
) {
    let there = channels.at(process);
    let input = Input::new(channels, process);
    let (spdy_sink, spdy_source) = Framed::new(runtime, Codec::default()).split();
    let (control, controls) = mpsc::channel(CONTROL_WAITING);
    let ended = {
        let (mut sink, source) = (&mut socket).split();
        let mut output = std::pin::pin!(to_client(spdy_source, &mut sink, control, there));
        tokio::select! {
            broken = to_runtime(source, spdy_sink, controls, there, input) => match broken {
                Broken::Client => Err(Broken::Client),
                // A process that has ended takes no more input, but what it said last may still
                // be on its way.
                Broken::Runtime(_) | Broken::RuntimeClosed => output.await,
            },
            ended = &mut output => ended,
        }
    };
    match ended {
        Ok(status) => finish(socket, &reported(&status)).await,
        Err(Broken::Client) => {}
        Err(error) => finish(socket, &internal_error(&error.to_string())).await,
    }
}

/// Sends the status on the error channel and closes the WebSocket.
pub async fn finish(mut socket: WebSocketStream<impl Stream>, status: &Status) {
    let text = serde_json::to_vec(status).unwrap_or_default();
    let goodbye = async {
        socket.send(message(channel::ERROR, &text)).await?;
        socket.close(closing()).await?;
        // Closing with unread input would reset the connection under the client's feet.
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<_, tungstenite::Error>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
}

fn message(channel: u8, payload: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(payload.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(payload);
    Message::Binary(bytes.freeze())
}

/// Opens the streams, then carries input and sizes to the runtime. Returns when the client or
/// the runtime is gone.
async fn to_runtime(
    mut client: impl futures::Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
    mut runtime: impl Sink<Frame, Error = SpdyError> + Unpin,
    mut controls: mpsc::Receiver<Frame>,
    channels: Channels,
    mut input: Input,
) -> Broken {
    for (channel, name) in channels.streams() {
        let open = Frame::SynStream {
            id: stream_of(channel),
            headers: vec![("streamtype".to_owned(), name.to_owned())],
            fin: false,
        };
        if let Err(error) = runtime.send(open).await {
            return error.into();
        }
    }
    loop {
        let frame = tokio::select! {
            Some(frame) = controls.recv() => frame,
            received = client.next() => match received {
                Some(Ok(Message::Binary(bytes))) => match input.frame(bytes) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => continue,
                    Err(broken) => return broken,
                },
                Some(Ok(Message::Text(text))) => match input.frame(text.into()) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => continue,
                    Err(broken) => return broken,
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Broken::Client,
            },
        };
        if let Err(error) = runtime.send(frame).await {
            return error.into();
        }
    }
}

/// What the client may still write.
struct Input {
    stdin: bool,
    resize: bool,
    /// Whether the end of stdin is typed: the process has a terminal, which can only so be told,
    /// and the client does not know that.
    typed_end: bool,
    line_begun: bool,
}

impl Input {
    fn new(channels: Channels, process: Process) -> Self {
        Input {
            stdin: channels.stdin,
            resize: channels.tty && process.tty,
            typed_end: process.tty && !channels.tty && process.stdin_once,
            line_begun: false,
        }
    }

    /// A message of the client as a frame.
    fn frame(&mut self, mut message: Bytes) -> Result<Option<Frame>, Broken> {
        if message.is_empty() {
            return Ok(None);
        }
        let head = message.split_to(1)[0];
        let (channel, mut fin) = match (head, message.as_ref()) {
            (CLOSE_SIGNAL, &[channel]) if channel <= channel::RESIZE => (channel, true),
            // Upstream takes any other use of the signal for the end of the connection.
            (CLOSE_SIGNAL, _) => return Err(Broken::Client),
            _ => (head, false),
        };
        let open = match channel {
            channel::STDIN => &mut self.stdin,
            channel::RESIZE => &mut self.resize,
            _ => return Ok(None),
        };
        if !*open || (message.is_empty() && !fin) {
            return Ok(None);
        }
        *open = !fin;
        let mut payload = if fin { Bytes::new() } else { message };
        if channel == channel::STDIN && self.typed_end {
            if fin {
                // In the middle of a line the first one only ends the line.
                payload = Bytes::from_static(if self.line_begun {
                    b"\x04\x04"
                } else {
                    b"\x04"
                });
                fin = false;
            }
            self.line_begun = !payload.ends_with(b"\n");
        }
        Ok(Some(Frame::Data {
            id: stream_of(channel),
            payload,
            fin,
        }))
    }
}

/// Carries output to the client until every output and the error stream have ended. Gives
/// what came on the error stream.
async fn to_client(
    mut runtime: impl futures::Stream<Item = Result<Frame, SpdyError>> + Unpin,
    client: &mut (impl Sink<Message, Error = tungstenite::Error> + Unpin),
    control: mpsc::Sender<Frame>,
    channels: Channels,
) -> Result<Vec<u8>, Broken> {
    let mut status = Vec::new();
    let mut waiting: Vec<StreamId> = [channel::STDOUT, channel::STDERR, channel::ERROR]
        .into_iter()
        .filter(|&channel| channels.has(channel))
        .map(stream_of)
        .collect();
    while !waiting.is_empty() {
        let (id, fin) = match runtime.next().await.ok_or(Broken::RuntimeClosed)?? {
            Frame::Data { id, payload, fin } => {
                if id == stream_of(channel::ERROR) {
                    let room = MAX_STATUS_BYTES - status.len();
                    status.extend(&payload[..payload.len().min(room)]);
                } else if let Some(channel) = channel_of(id)
                    && waiting.contains(&id)
                    && !payload.is_empty()
                {
                    client.send(message(channel, &payload)).await?;
                }
                (id, fin)
            }
            Frame::SynReply { id, fin, .. } | Frame::Headers { id, fin, .. } => (id, fin),
            Frame::Reset { id, .. } => (id, true),
            frame @ Frame::Ping { .. } => {
                // If it does not fit, the runtime is not reading: then the ping can wait too.
                let _ = control.try_send(frame);
                continue;
            }
            Frame::SynStream { .. } | Frame::GoAway { .. } => continue,
        };
        if fin {
            waiting.retain(|&open| open != id);
        }
        if fin && id == stream_of(channel::STDIN) {
            let _ = control.try_send(Frame::Data {
                id,
                payload: Bytes::new(),
                fin: true,
            });
        }
    }
    Ok(status)
}

/// The status for the client, from what the runtime said. Upstream reads it and writes it
/// anew, and so come its words.
fn reported(said: &[u8]) -> Status {
    if said.is_empty() {
        return success();
    }
    let Ok(status) = serde_json::from_slice::<Status>(said) else {
        let said = String::from_utf8_lossy(said);
        return internal_error(&format!("error stream protocol error: {said:?}"));
    };
    match status.status.as_deref() {
        Some("Success") => success(),
        Some("Failure") if status.reason.as_deref() == Some("NonZeroExitCode") => {
            match exit_code(&status) {
                Ok(code) => non_zero_exit(code),
                Err(message) => internal_error(&message),
            }
        }
        Some("Failure") => internal_error(status.message.as_deref().unwrap_or_default()),
        _ => internal_error("error stream protocol error: unknown error"),
    }
}

fn exit_code(status: &Status) -> Result<u8, String> {
    let details = status
        .details
        .as_ref()
        .ok_or("error stream protocol error: details must be set")?;
    let causes = details.causes.as_deref().unwrap_or_default();
    let cause = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .ok_or("error stream protocol error: no ExitCode cause given")?;
    let code = cause.message.as_deref().unwrap_or_default();
    code.parse()
        .map_err(|_| format!("error stream protocol error: invalid exit code value {code:?}"))
}

fn success() -> Status {
    Status {
        status: Some("Success".to_owned()),
        ..Status::default()
    }
}

fn non_zero_exit(code: u8) -> Status {
    Status {
        status: Some("Failure".to_owned()),
        message: Some(format!(
            "command terminated with non-zero exit code: command terminated with exit code {code}"
        )),
        reason: Some("NonZeroExitCode".to_owned()),
        details: Some(StatusDetails {
            causes: Some(vec![StatusCause {
                reason: Some("ExitCode".to_owned()),
                message: Some(code.to_string()),
                field: None,
            }]),
            ..StatusDetails::default()
        }),
        ..Status::default()
    }
}

pub fn internal_error(message: &str) -> Status {
    Status {
        status: Some("Failure".to_owned()),
        message: Some(format!("Internal error occurred: {message}")),
        reason: Some("InternalError".to_owned()),
        details: Some(StatusDetails {
            causes: Some(vec![StatusCause {
                message: Some(message.to_owned()),
                ..StatusCause::default()
            }]),
            ..StatusDetails::default()
        }),
        code: Some(500),
        ..Status::default()
    }
}
