//! The embedded server under clients that mean ill: everybody else is served as if they were not there.

#[allow(dead_code)]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use support::raw::Raw;
use tempfile::TempDir;
use xenstore::server::{Server, ServerConfig, ServerHandle};
use xenstore::wire::{self, Header, Kind};
use xenstore::{Client, Error, Permission};

/// A guard against hanging, no measure of anything.
const GUARD: Duration = Duration::from_secs(20);

fn start(config: ServerConfig) -> (TempDir, ServerHandle, Client) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path().join("socket"), config).unwrap();
    let client = Client::connect(server.socket()).unwrap();
    (folder, server, client)
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + GUARD;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to be");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn message_when_only_half_sent_then_holds_up_nobody() {
    let (_folder, server, client) = start(ServerConfig::default());
    let whole = wire::encode(Kind::Write, 1, 0, &[b"/a\0half"]).unwrap();
    let halves: Vec<Raw> = (0..whole.len())
        .map(|length| {
            let mut raw = Raw::connect(server.socket());
            raw.send_bytes(&whole[..length]);
            raw
        })
        .collect();
    client.write("/b", "whole").unwrap();
    assert_eq!(client.read_string("/b").unwrap(), "whole");
    drop(halves);
    client.read("/b").unwrap();
    assert!(client.read("/a").unwrap_err().is_not_found());
}

#[test]
fn client_when_it_never_reads_its_events_then_is_disconnected() {
    let (_folder, server, client) = start(ServerConfig { output_limit: 64 << 10, ..ServerConfig::default() });
    let mut deaf = Raw::connect(server.socket());
    deaf.get(Kind::Watch, 0, b"/a\0t\0");
    let name = "x".repeat(200);
    // Almost a megabyte of events: more than the limit and a socket buffer.
    for number in 0..4000 {
        client.write(&format!("/a/{name}{number}"), "").unwrap();
        client.remove(&format!("/a/{name}{number}")).unwrap();
    }
    let received = std::iter::from_fn(|| deaf.receive()).count();
    assert!(received < 4000, "{received}");
    client.read("/a").unwrap();
}

#[test]
fn client_when_it_asks_without_reading_then_waits_and_gets_every_answer() {
    let (_folder, server, client) =
        start(ServerConfig { output_limit: 128 << 10, ..ServerConfig::default() });
    client.write("/a", vec![7; 4000]).unwrap();
    let mut stream = UnixStream::connect(server.socket()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let request = wire::encode(Kind::Read, 1, 0, &[b"/a\0"]).unwrap();
    let (mut asked, mut rest) = (0, &request[..]);
    // Until the server has stopped reading: a while without room. More time would only mean more requests.
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(50) && asked < 100_000 {
        match stream.write(rest) {
            Ok(count) => {
                rest = &rest[count..];
                if rest.is_empty() {
                    (asked, rest) = (asked + 1, &request[..]);
                }
                last = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("disconnected: {error}"),
        }
    }
    // All answers together are beyond the output limit, whatever the server had time to read.
    assert!((100..100_000).contains(&asked), "{asked}");
    client.read("/a").unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(GUARD)).unwrap();
    let mut raw = Raw::over(stream);
    for _ in 0..asked {
        assert_eq!(raw.receive().unwrap().payload.len(), 4000);
    }
}

#[test]
fn domain_when_it_connects_too_often_then_is_refused_until_it_lets_go() {
    let (_folder, server, client) =
        start(ServerConfig { connections_per_domain: 4, ..ServerConfig::default() });
    server.introduce(3).unwrap();
    let socket = server.domain_socket(3).unwrap();
    let mut held: Vec<Raw> = (0..4).map(|_| Raw::connect(&socket)).collect();
    for raw in &mut held {
        raw.get(Kind::GetDomainPath, 0, b"3\0");
    }
    for _ in 0..100 {
        assert_eq!(Raw::connect(&socket).receive(), None);
    }
    client.read("/").unwrap();
    held.pop();
    eventually(|| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let request = wire::encode(Kind::GetDomainPath, 1, 0, &[b"3\0"]).unwrap();
        // Refused again and again until the server has seen the other go.
        stream.write_all(&request).is_ok() && stream.read(&mut [0; Header::SIZE]).is_ok_and(|count| count > 0)
    });
}

#[test]
fn domain_when_released_then_its_clients_and_its_socket_go() {
    let (_folder, server, client) = start(ServerConfig::default());
    server.introduce(3).unwrap();
    let socket = server.domain_socket(3).unwrap();
    let mut raw = Raw::connect(&socket);
    raw.get(Kind::Watch, 0, b"@releaseDomain\0t\0");
    client.set_permissions("@releaseDomain", &[Permission::read(0)]).unwrap();
    let other = server.domain_socket(4).unwrap();
    server.release(3).unwrap();
    while raw.receive().is_some() {}
    assert!(!socket.exists() && other.exists());
    // One that was never introduced has a socket all the same, and keeps it.
    assert!(!server.is_introduced(4));
    assert!(matches!(server.release(4), Err(Error::NotFound { .. })));
}

#[test]
fn socket_when_left_behind_then_is_replaced_and_when_alive_then_is_not() {
    let (folder, server, client) = start(ServerConfig::default());
    let socket = server.socket().to_owned();
    assert!(matches!(Server::start(&socket, ServerConfig::default()), Err(Error::Io { .. })));
    client.read("/").unwrap();
    server.introduce(3).unwrap();
    server.stop();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "sockets are removed");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let server = Server::start(&socket, ServerConfig::default()).unwrap();
    Client::connect(server.socket()).unwrap().read("/").unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn client_when_it_sends_garbage_then_holds_up_nobody(
        streams in prop::collection::vec(garbage(), 1..6),
    ) {
        let (_folder, server, client) = start(ServerConfig::default());
        server.introduce(3).unwrap();
        let socket = server.domain_socket(3).unwrap();
        client.mkdir("/local/domain/3").unwrap();
        client.set_permissions("/local/domain/3", &[Permission::none(3)]).unwrap();
        client.write("/mine", "mine").unwrap();
        for bytes in &streams {
            let mut stream = UnixStream::connect(&socket).unwrap();
            // The server may hang up in the middle.
            let _ = stream.write_all(bytes);
            drop(stream);
            prop_assert_eq!(client.read_string("/mine").unwrap(), "mine");
        }
    }
}

/// Bytes that are often nearly messages.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let header = (0u32..30, any::<u32>(), 0u32..4, 0u32..5000)
        .prop_map(|(kind, request, transaction, length)| Header { kind, request, transaction, length });
    let payload = prop::collection::vec(prop::sample::select(b"/ab\0\0T1nrwb@".to_vec()), 0..40);
    let exact = prop::bool::weighted(0.8);
    let message = (header, payload, exact).prop_map(|(mut header, payload, exact)| {
        if exact {
            header.length = u32::try_from(payload.len()).unwrap();
        }
        [&header.to_bytes()[..], &payload].concat()
    });
    prop_oneof![
        3 => prop::collection::vec(message, 1..30).prop_map(|messages| messages.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..2000),
    ]
}
