//! The client under a server that means ill, or is broken: requests fail, nothing panics or hangs.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use xenstore::client::{Endpoint, UnixSocket};
use xenstore::wire::{self, Frames, Header, Kind, Message};
use xenstore::{Client, ClientOptions, Error};

/// A server that does to each connection what `serve` does.
fn serve(serve: impl Fn(UnixStream) + Send + 'static) -> (TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            serve(stream);
        }
    });
    let options = ClientOptions {
        reply_timeout: Duration::from_millis(200),
        patience: Duration::ZERO,
        ..ClientOptions::default()
    };
    let client = Client::connect_to(UnixSocket::new(&socket), options).unwrap();
    (folder, client)
}

/// Answers each request with what `answer` makes of it.
fn answering(answer: impl Fn(Message) -> Vec<u8> + Send + 'static) -> (TempDir, Client) {
    serve(move |mut stream| {
        let mut frames = Frames::new();
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            frames.push(&buffer[..count]);
            while let Some(message) = frames.next_message().unwrap() {
                if stream.write_all(&answer(message)).is_err() {
                    return;
                }
            }
        }
    })
}

fn reply(kind: Kind, to: &Message, payload: &[u8]) -> Vec<u8> {
    wire::encode(kind, to.header.request, to.header.transaction, &[payload]).unwrap()
}

#[test]
fn server_when_it_never_answers_then_the_request_fails() {
    let (_folder, client) = answering(|_| Vec::new());
    assert!(matches!(client.write("/a", ""), Err(Error::Disconnected)));
}

#[test]
fn server_when_it_hangs_up_on_every_request_then_requests_fail() {
    let (_folder, client) = serve(drop);
    for _ in 0..20 {
        assert!(matches!(client.read("/a"), Err(Error::Disconnected)));
        assert!(matches!(client.write("/a", ""), Err(Error::Disconnected)));
    }
}

#[test]
fn answer_when_of_another_kind_then_is_a_violation() {
    let (_folder, client) = answering(|message| reply(Kind::Mkdir, &message, b"OK\0"));
    assert!(matches!(client.read("/a"), Err(Error::Protocol(_))));
    assert!(matches!(client.directory("/a"), Err(Error::Protocol(_))));
    client.mkdir("/a").unwrap();
}

#[test]
fn answer_when_an_unknown_error_then_is_said_to_be() {
    let (_folder, client) = answering(|message| reply(Kind::Error, &message, b"EWHATEVER"));
    let error = client.read("/a").unwrap_err();
    assert!(matches!(error, Error::Refused { code: wire::Code::Unknown, .. }), "{error}");
}

#[test]
fn answer_when_to_another_request_then_is_passed_over() {
    let (_folder, client) = answering(|message| {
        let mut other = message.clone();
        other.header.request = message.header.request.wrapping_add(1000);
        [reply(Kind::Read, &other, b"other"), reply(Kind::Read, &message, b"mine")].concat()
    });
    assert_eq!(client.read("/a").unwrap(), b"mine");
}

#[test]
fn transaction_number_when_malformed_then_is_a_violation() {
    for number in [&b"0\0"[..], b"", b"x\0", b"99999999999\0"] {
        let (_folder, client) = answering(move |message| reply(Kind::TransactionStart, &message, number));
        assert!(matches!(client.transaction(|_| Ok(())), Err(Error::Protocol(_))), "{number:?}");
    }
}

/// Reached by a socket, but one request at a time.
struct Turns(UnixSocket);

impl Endpoint for Turns {
    fn open(&self) -> std::io::Result<OwnedFd> {
        self.0.open()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn takes_turns(&self) -> bool {
        true
    }
}

#[test]
fn requests_of_several_threads_when_the_endpoint_keeps_the_last_one_only_then_each_is_asked_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    // As Linux's device: what comes before the answer takes the place of the payload. A read gives its own path.
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut frames = Frames::new();
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            frames.push(&buffer[..count]);
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            if let Ok(count) = stream.read(&mut buffer) {
                frames.push(&buffer[..count]);
            }
            stream.set_read_timeout(None).unwrap();
            let mut asked = Vec::new();
            while let Some(message) = frames.next_message().unwrap() {
                asked.push(message);
            }
            let kept = asked.last().unwrap().payload.clone();
            for message in asked {
                stream.write_all(&reply(Kind::Read, &message, &kept)).unwrap();
            }
        }
    });
    let client = Client::connect_to(Turns(UnixSocket::new(&socket)), ClientOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for path in ["/a", "/b", "/c"] {
            let client = &client;
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(client.read(path).unwrap(), format!("{path}\0").as_bytes());
                }
            });
        }
    });
}

#[test]
fn message_when_oversized_then_costs_the_connection() {
    let (_folder, client) = answering(|message| {
        let header = Header { length: u32::MAX, ..message.header };
        header.to_bytes().to_vec()
    });
    assert!(matches!(client.read("/a"), Err(Error::Disconnected)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answer_when_arbitrary_then_is_believed_or_refused(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        payload in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(b'1')], 0..200),
    ) {
        let (_folder, client) = answering({
            // As the request asked for, or another kind.
            move |message| {
                let right = message.kind().unwrap_or(kind);
                let kind = if payload.len() % 2 == 0 { right } else { kind };
                reply(kind, &message, &payload)
            }
        });
        let _ = client.read_string("/a");
        let _ = client.directory("/a");
        let _ = client.permissions("/a");
        let _ = client.is_introduced(1);
        let _ = client.transaction(|transaction| transaction.directory("/a"));
        let _ = client.watch("/a", "t");
        while client.events().try_next().is_some() {}
    }

    #[test]
    fn bytes_when_arbitrary_then_do_not_hurt_the_client(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        let (_folder, client) = serve(move |mut stream| drop(stream.write_all(&bytes)));
        prop_assert!(client.write("/a", "").is_err());
        while client.events().try_next().is_some() {}
    }
}
