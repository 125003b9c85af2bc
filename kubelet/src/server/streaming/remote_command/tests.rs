//! Tables for [`super::Input`], [`super::Channels`] and [`super::reported`], and what a process says
//! last.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::codec::Encoder as _;

use super::*;

fn process(tty: bool, stdin_once: bool) -> Process {
    Process { tty, stdin_once }
}

/// What a process is given of "ls", with or without a new line, and the end after it.
fn end_after(text: &'static [u8], process: Process) -> Option<Frame> {
    let channels = Channels {
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut input = Input::new(channels, process);
    input.frame(Bytes::from_static(text)).expect("it is input");
    let end = input.frame(Bytes::from_static(b"\xff\x00"));
    end.expect("it is the end of input")
}

#[test]
fn the_end_of_input_is_typed_at_a_terminal_that_the_client_does_not_know_of() {
    let data = |payload: &'static [u8], fin| {
        Some(Frame::Data {
            id: 3,
            payload: Bytes::from_static(payload),
            fin,
        })
    };
    let terminal = process(true, true);
    assert_eq!(end_after(b"\x00ls\n", terminal), data(b"\x04", false));
    assert_eq!(end_after(b"\x00ls", terminal), data(b"\x04\x04", false));
    assert_eq!(end_after(b"\x00", terminal), data(b"\x04", false));
    let lasting = process(true, false);
    assert_eq!(end_after(b"\x00ls\n", lasting), data(b"", true));
    let pipe = process(false, true);
    assert_eq!(end_after(b"\x00ls\n", pipe), data(b"", true));
}

#[test]
fn the_runtime_has_the_streams_of_the_process() {
    let names = |tty: bool, process| {
        let channels = Channels {
            stdin: true,
            stdout: true,
            stderr: !tty,
            tty,
        };
        let streams = channels.at(process).streams();
        streams.map(|(_, name)| name).collect::<Vec<_>>()
    };
    let (terminal, pipe) = (process(true, true), process(false, true));
    let with_terminal = ["error", "stdin", "stdout", "resize"];
    assert_eq!(names(true, terminal), with_terminal);
    assert_eq!(names(false, terminal), with_terminal);
    assert_eq!(names(true, pipe), ["error", "stdin", "stdout"]);
    let all = ["error", "stdin", "stdout", "stderr"];
    assert_eq!(names(false, pipe), all);
}

#[test]
fn messages_of_the_client_become_frames() {
    let channels = Channels {
        stdin: true,
        ..Channels::default()
    };
    let mut input = Input::new(channels, process(false, true));
    let data = |id, payload: &'static [u8], fin| {
        Some(Frame::Data {
            id,
            payload: Bytes::from_static(payload),
            fin,
        })
    };
    let mut give = |message: &'static [u8]| input.frame(Bytes::from_static(message)).ok();
    assert_eq!(give(b"\x00in"), Some(data(3, b"in", false)));
    assert_eq!(give(b"\x00"), Some(None));
    assert_eq!(give(b"\x04{}"), Some(None), "there is no terminal");
    assert_eq!(give(b"\x01out"), Some(None), "not the client's to write");
    assert_eq!(give(b"\xff\x00"), Some(data(3, b"", true)));
    assert_eq!(give(b"\x00more"), Some(None), "it was closed");
    assert_eq!(give(b"\xff"), None);
    assert_eq!(give(b"\xff\x09"), None);
}

#[test]
fn statuses_are_told_in_upstreams_words() {
    assert_eq!(reported(b"").status.as_deref(), Some("Success"));
    assert_eq!(
        reported(br#"{"metadata":{},"status":"Success"}"#),
        success()
    );
    let exit = br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit code 3",
        "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    assert_eq!(reported(exit), non_zero_exit(3));
    let failed = br#"{"status":"Failure","message":"Internal error occurred: no such file"}"#;
    assert_eq!(
        reported(failed).message.as_deref(),
        Some("Internal error occurred: Internal error occurred: no such file")
    );
    let wrong = br#"{"status":"Failure","reason":"NonZeroExitCode"}"#;
    assert_eq!(
        reported(wrong).message.as_deref(),
        Some("Internal error occurred: error stream protocol error: details must be set")
    );
}

#[test]
fn a_terminal_has_no_stderr() {
    let channels = Channels {
        stdin: true,
        stdout: true,
        stderr: true,
        tty: true,
    };
    let names: Vec<_> = channels.streams().map(|(_, name)| name).collect();
    assert_eq!(names, ["error", "stdin", "stdout", "resize"]);
}

/// What the runtime sends for a process that says this and ends.
fn said_last(said: &'static [u8]) -> BytesMut {
    let data = |id, payload: &'static [u8], fin| Frame::Data {
        id,
        payload: Bytes::from_static(payload),
        fin,
    };
    let mut wire = BytesMut::new();
    let stdout = stream_of(channel::STDOUT);
    let frames = [
        data(stdout, said, false),
        data(stdout, b"", true),
        data(stream_of(channel::ERROR), b"{\"status\":\"Success\"}", true),
    ];
    let mut codec = Codec::default();
    for frame in frames {
        codec.encode(frame, &mut wire).expect("a frame");
    }
    wire
}

/// What a client gets of a process that ends at once while there is more input for it.
async fn output_of_a_process_that_ends_at_once() -> Vec<u8> {
    let channels = Channels {
        stdin: true,
        stdout: true,
        ..Channels::default()
    };
    let (client, server) = tokio::io::duplex(64);
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let runtime = async move {
        let mut begun = [0; 8];
        theirs.read_exact(&mut begun).await.expect("streams");
        theirs
            .write_all(&said_last(b"answer-42\n"))
            .await
            .expect("read");
        // Closed with input that nobody has read.
    };
    let server = async move {
        let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        translate(socket, ours, channels, process(false, true)).await;
    };
    let client = async move {
        let socket = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let (mut sink, mut source) = socket.split();
        let typed = async {
            while sink.send(message(channel::STDIN, b"exit\n")).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let mut got = Vec::new();
        let read = async {
            while let Some(Ok(message)) = source.next().await {
                if let Message::Binary(bytes) = message
                    && bytes.first() == Some(&channel::STDOUT)
                {
                    got.extend_from_slice(&bytes[1..]);
                }
            }
        };
        tokio::pin!(read);
        tokio::select! {
            () = &mut read => {}
            () = typed => read.await,
        }
        got
    };
    tokio::join!(runtime, server, client).2
}

#[tokio::test]
async fn what_a_process_says_last_is_not_lost() {
    for _ in 0..200 {
        let output = output_of_a_process_that_ends_at_once();
        let output = timeout(Duration::from_secs(20), output).await;
        assert_eq!(output.expect("it ends"), b"answer-42\n");
    }
}
