//! One connection and many users of it.

use xenstore::wire::{self, Kind};

use crate::ears::Ears;
use crate::subject::Subject;

pub fn client_when_shared_by_threads_then_each_gets_its_answer(subject: &mut Subject) {
    let client = subject.dom0();
    client.watch("/", "all").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                let path = format!("/thread/{thread}");
                for round in 0..100 {
                    let value = format!("{thread}:{round}:{}", "x".repeat(round * 10));
                    client.write(&path, &value).unwrap();
                    assert_eq!(client.read_string(&path).unwrap(), value);
                    assert!(client.read(&format!("{path}/missing")).unwrap_err().is_not_found());
                }
            });
        }
    });
    assert_eq!(client.directory("/thread").unwrap().len(), 8);
}

pub fn requests_when_pipelined_then_are_answered_in_order(subject: &mut Subject) {
    let mut raw = subject.raw();
    let mut bytes = Vec::new();
    for number in 1..=50u32 {
        let value = number.to_string();
        let payload: [&[u8]; 2] = [b"/a\0", value.as_bytes()];
        bytes.extend(wire::encode(Kind::Write, number, 0, &payload).unwrap());
        bytes.extend(wire::encode(Kind::Read, 1000 + number, 0, &[b"/a\0"]).unwrap());
    }
    // In odd pieces, so that messages arrive cut.
    for piece in bytes.chunks(13) {
        raw.send_bytes(piece);
    }
    for number in 1..=50u32 {
        let written = raw.receive().unwrap();
        assert_eq!((written.kind(), written.header.request), (Some(Kind::Write), number));
        let read = raw.receive().unwrap();
        assert_eq!((read.kind(), read.header.request), (Some(Kind::Read), 1000 + number));
        assert_eq!(read.payload, number.to_string().into_bytes());
    }
}

pub fn client_when_dropped_then_its_watches_and_transactions_end(subject: &mut Subject) {
    let (client, other) = (subject.dom0(), subject.dom0());
    let ears = Ears::new(subject, &other);
    client.write("/a", "old").unwrap();
    let mut raw = subject.raw();
    let transaction = raw.begin();
    raw.get(Kind::Write, transaction, b"/a\0new");
    raw.get(Kind::Watch, 0, b"/a\0t\0");
    drop(raw);
    drop(client);
    other.watch("/a", "mine").unwrap();
    ears.heard();
    other.write("/a", "newer").unwrap();
    assert_eq!(ears.paths(), ["/a"]);
    assert_eq!(other.read_string("/a").unwrap(), "newer");
}
