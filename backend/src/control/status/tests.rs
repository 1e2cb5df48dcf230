//! Names of disks, and clients that are not as they should be.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn disk() -> DiskReport {
    DiskReport {
        id: "vbd3/7/51712".into(),
        domain: 7,
        guest: Some("web".into()),
        device: 51712,
        vdev: Some("xvda".into()),
        state: "connected".into(),
        backend: "Connected".into(),
        frontend: "Connected".into(),
        reason: None,
        target: Some("/srv/web.img".into()),
        bytes: Some(1 << 30),
        sector_size: Some(512),
        read_only: false,
        pi: None,
        connection: None,
        connections: 1,
        totals: Stats { reads: 3, ..Stats::default() },
    }
}

#[test]
fn disk_when_named_in_any_way_then_is_meant_and_others_are_not() {
    for word in ["vbd3/7/51712", "7", "web", "7/xvda", "web/51712", "web/xvda", "/srv/web.img"] {
        assert!(disk().is_named(word), "{word}");
    }
    for word in ["", "/", "8", "xvda", "51712", "web/xvdb", "8/xvda", "/srv/web", "vbd3/7"] {
        assert!(!disk().is_named(word), "{word}");
    }
    let nameless = DiskReport { guest: None, vdev: None, target: None, ..disk() };
    assert!(nameless.is_named("7/51712") && !nameless.is_named(""));
    assert_eq!((disk().title().as_str(), nameless.title().as_str()), ("web/xvda", "7/51712"));
}

#[test]
fn answer_when_written_and_read_then_is_the_same_and_unknown_names_are_passed_over() {
    let report = Report {
        version: "1".into(),
        pid: 4,
        uptime: 1.5,
        domain: 0,
        kinds: vec!["vbd3".into()],
        stopping: false,
        threads: Share { used: 1, limit: 2 },
        buffers: Share { used: 3, limit: 4 },
        disks: vec![disk()],
    };
    let answer = Answer::Status(Box::new(report));
    let text = serde_json::to_string(&answer).unwrap();
    assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    let newer = text.replace("\"reads\":3", "\"reads\":3,\"to_come\":{\"x\":[1]}");
    assert_eq!(serde_json::from_str::<Answer>(&newer).unwrap(), answer);
    let older = text.replace("\"writes\":0,", "");
    assert_eq!(serde_json::from_str::<Answer>(&older).unwrap(), answer);
}

struct Fixture {
    server: Server,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = socket(dir.path());
    Fixture { server: Server::bind(path.clone()).unwrap(), path, _dir: dir }
}

impl Fixture {
    fn client(&self) -> UnixStream {
        UnixStream::connect(&self.path).unwrap()
    }

    /// As the control thread's loop does, until somebody asks.
    fn next(&mut self) -> (ClientId, Request) {
        loop {
            rustix::event::poll(&mut self.server.polled().collect::<Vec<_>>(), None).unwrap();
            if let Some(asked) = self.server.requests().pop() {
                return asked;
            }
        }
    }
}

fn rest(stream: &mut UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn socket_when_bound_then_is_for_its_owner_alone_and_replaces_one_that_was_left() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = socket(dir.path());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind(path.clone()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(server);
    assert!(!path.exists());
}

#[test]
fn clients_when_silent_slow_or_wrong_then_cost_nobody_else_anything() {
    let mut fixture = fixture();
    let silent = fixture.client();
    let mut half = fixture.client();
    half.write_all(b"{\"command\":").unwrap();
    let mut wrong = fixture.client();
    wrong.write_all(b"what?\n").unwrap();
    let mut endless = fixture.client();
    endless.write_all(&[b'x'; 5000]).unwrap();
    let gone = fixture.client();
    drop(gone);
    let mut good = fixture.client();
    good.write_all(b"{\"command\":\"status\"}\n").unwrap();
    let (id, request) = fixture.next();
    assert_eq!(request, Request::Status);
    fixture.server.answer(id, &Answer::Failed("no".into()));
    assert_eq!(rest(&mut good), "{\"failed\":\"no\"}\n");
    assert!(rest(&mut wrong).contains("not understood"));
    // Reset or ended: it has been let go.
    assert!(matches!(endless.read(&mut [0; 8]), Ok(0) | Err(_)));
    half.write_all(b"\"resize\",\"disk\":\"a\"}\n").unwrap();
    let (id, request) = fixture.next();
    assert_eq!(request, Request::Resize { disk: "a".into() });
    // An answer to one that left while it waited.
    drop(half);
    fixture.server.answer(id, &Answer::Resized { before: 1, after: 2 });
    drop(silent);
}

#[test]
fn answer_when_larger_than_the_socket_takes_then_goes_out_as_the_client_reads() {
    let mut fixture = fixture();
    let mut client = fixture.client();
    client.write_all(b"{\"command\":\"status\"}\n").unwrap();
    let (id, _) = fixture.next();
    let long = "y".repeat(4 << 20);
    fixture.server.answer(id, &Answer::Failed(long.clone()));
    let reader = std::thread::spawn(move || rest(&mut client));
    while !fixture.server.clients().is_empty() {
        rustix::event::poll(&mut fixture.server.polled().collect::<Vec<_>>(), None).unwrap();
        assert!(fixture.server.requests().is_empty());
    }
    assert!(reader.join().unwrap().contains(&long));
}

#[test]
fn clients_when_too_many_then_wait_to_be_accepted_until_one_leaves() {
    let mut fixture = fixture();
    let mut idle: Vec<_> = (0..16).map(|_| fixture.client()).collect();
    assert!(fixture.server.requests().is_empty());
    let mut late = fixture.client();
    late.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert!(fixture.server.requests().is_empty());
    assert_eq!(fixture.server.clients().len(), 16);
    idle.pop();
    let (id, _) = fixture.next();
    fixture.server.answer(id, &Answer::Failed(String::new()));
    assert!(!rest(&mut late).is_empty());
}

#[test]
fn daemon_when_there_is_none_then_asking_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let error = ask(dir.path(), &Request::Status).unwrap_err();
    assert!(matches!(error, AskError::NoDaemon { .. }), "{error}");
    assert!(error.to_string().contains("--run-dir"), "{error}");
}
