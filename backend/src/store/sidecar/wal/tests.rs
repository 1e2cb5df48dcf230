//! The log's thread on a medium with a fault.

use super::read::Found;
use super::*;
use crate::io::Doorbell;
use crate::io::tap::{Deed, Event, Fault, Tape};
use crate::store::inbox::Inbox;
use crate::store::lock::Access;
use crate::store::medium::Direct;
use crate::store::sidecar::Live;
use integrity::{Guard, PiType, Profile, ProfileSpec};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tempfile::NamedTempFile;

/// A sidecar's file, and its header.
fn sidecar() -> (NamedTempFile, Header) {
    let (guard, interval, metadata_size) = (Guard::Crc16T10Dif, 512, 8);
    let (pi_offset, tag_size, pi_type) = (0, 2, PiType::Type1);
    let profile =
        Profile::new(ProfileSpec { guard, interval, metadata_size, pi_offset, tag_size, pi_type }).unwrap();
    let header = Header::new(profile, 1 << 20, false);
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(header.sidecar_bytes()).unwrap();
    (file, header)
}

/// What an inbox is told next.
fn told(inbox: &Inbox) -> Vec<Wake> {
    let mut events = Vec::new();
    while !inbox.take(&mut events) {
        std::thread::yield_now();
    }
    events.into_iter().map(|(_, wake)| wake).collect()
}

#[test]
fn records_of_a_batch_that_failed_when_a_shorter_one_takes_its_place_never_count() {
    let (file, header) = sidecar();
    let medium = Medium::open(file.path(), Access::Exclusive, Direct::Off, PAGE as u32).unwrap();
    let wal = Wal::new(&header, false, file.path()).unwrap();
    let header = |wal: &Wal| Header { live: Live::Log, log_state: wal.tail(wal.cut()), ..header.clone() };
    let start = header(&wal);
    let inbox = Arc::new(Inbox::new(Doorbell::new().unwrap()));
    let waiter = || Waiter { inbox: Arc::clone(&inbox), slot: 0 };
    let told = || told(&inbox);

    let tape = Tape::start(&[file.as_file()]);
    tape.fail(Fault { file: 0, deed: Deed::Write, after: 0, times: 1 });
    // The first record is a page long, so the second one begins where a batch could.
    assert!(matches!(
        wal.write(0, &[1; 168 * 512], &[2; 168 * 8], &mut Vec::new(), waiter),
        Appended::Queued(_)
    ));
    assert!(matches!(wal.discard(500, 1, waiter), Appended::Queued(_)));
    std::thread::scope(|scope| {
        scope.spawn(|| wal.run(&medium, wal.staging().unwrap()));
        let failed = Wake::Announced(Err(Errno(libc::EIO)));
        assert!(told().iter().all(|wake| *wake == failed), "it was written");
        // For all that it has reached the medium.
        for event in tape.stop() {
            if let Event::Written { offset, bytes, .. } = event {
                file.as_file().write_all_at(&bytes, offset).unwrap();
            }
        }
        assert!(matches!(wal.discard(7, 1, waiter), Appended::Queued(_)));
        while !told().contains(&Wake::Announced(Ok(()))) {}
        wal.stop();
    });
    let bodies = |header: &Header| {
        let found = Found::read(&medium, header).unwrap();
        found.records().map(|record| format!("{:?}", record.body)).collect::<Vec<_>>()
    };
    assert_eq!(bodies(&start), [format!("{:?}", Body::Discard { first: 7, count: 1 })]);
    // Nor once that is retired, and the log begins behind it.
    let last = Found::read(&medium, &start).unwrap().records().last().unwrap().sequence;
    wal.close(last, false);
    assert_eq!(bodies(&header(&wal)), [""; 0]);
}

#[test]
fn discard_that_failed_is_told_once_its_record_is_retired_or_never_will_be() {
    let (file, header) = sidecar();
    let medium = Medium::open(file.path(), Access::Exclusive, Direct::Off, PAGE as u32).unwrap();
    let wal = Wal::new(&header, false, file.path()).unwrap();
    let inbox = Arc::new(Inbox::new(Doorbell::new().unwrap()));
    let waiter = || Waiter { inbox: Arc::clone(&inbox), slot: 0 };
    let queued = |appended| match appended {
        Appended::Queued(sequence) => sequence,
        other => panic!("{other:?}"),
    };
    let nothing = || !inbox.take(&mut Vec::new());
    // Both are in one batch, for the thread has yet to start.
    let write = queued(wal.write(0, &[1; 512], &[2; 8], &mut Vec::new(), waiter));
    let discard = queued(wal.discard(7, 1, waiter));
    std::thread::scope(|scope| {
        scope.spawn(|| wal.run(&medium, wal.staging().unwrap()));
        let mut left = 2;
        while left > 0 {
            left -= told(&inbox).len();
        }
        wal.disown(discard, waiter());
        wal.retire(wal.cut());
        assert!(nothing(), "the batch of a write that is not over was retired");
        assert!(wal.close(write, false), "nobody asks for the checkpoint that is waited for");
        assert!(wal.wants_checkpoint());
        wal.retire(wal.cut());
        assert_eq!(told(&inbox), [Wake::Retired]);
        assert!(!wal.wants_checkpoint());

        let discard = queued(wal.discard(7, 1, waiter));
        assert_eq!(told(&inbox), [Wake::Announced(Ok(()))]);
        wal.disown(discard, waiter());
        assert!(nothing());
        wal.refuse(Errno(libc::EIO));
        assert_eq!(told(&inbox), [Wake::Retired]);
        wal.stop();
    });
}
