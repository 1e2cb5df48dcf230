//! The server goes away, and comes back empty.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use xenstore::{ClientOptions, Error};

use crate::ears::{Ears, next};
use crate::subject::{GUARD, Subject};

/// Reads wait for the server as long as it takes.
fn patient() -> ClientOptions {
    ClientOptions { patience: GUARD, ..ClientOptions::default() }
}

/// Does not wait for it at all.
fn impatient() -> ClientOptions {
    ClientOptions { patience: Duration::ZERO, ..ClientOptions::default() }
}

pub fn server_when_restarted_then_watches_fire_again(subject: &mut Subject) {
    let client = subject.dom0_with(patient());
    client.watch("/a", "1").unwrap();
    client.watch_coalesced("/b", "2").unwrap();
    client.watch("/c", "3").unwrap();
    client.unwatch("/c", "3").unwrap();
    assert_eq!([next(&client).0, next(&client).0], ["/a", "/b"]);
    for _ in 0..3 {
        subject.stop();
        subject.go();
        assert_eq!(next(&client), ("/a".to_owned(), "1".to_owned()));
        assert_eq!(next(&client), ("/b".to_owned(), "2".to_owned()));
        // A read goes through once the new connection is up; then a write does.
        assert!(client.read("/a").unwrap_err().is_not_found());
        client.write("/b/x", "").unwrap();
        client.write("/c", "").unwrap();
        client.write("/a/x", "").unwrap();
        assert_eq!([next(&client).0, next(&client).0], ["/b/x", "/a/x"]);
    }
    client.read("/").unwrap();
    assert_eq!(client.events().try_next(), None);
}

pub fn server_when_restarted_then_reads_go_through(subject: &mut Subject) {
    let client = subject.dom0_with(patient());
    client.write("/a", "1").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn({
            let (client, stop) = (client.clone(), &stop);
            move || {
                // The guard is for a main thread that failed before it could say stop.
                let deadline = Instant::now() + GUARD;
                while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                    match client.read("/a") {
                        Ok(value) => assert_eq!(value, b"1"),
                        Err(error) => assert!(error.is_not_found(), "{error}"),
                    }
                    assert!(!client.directory("/").unwrap().is_empty());
                }
            }
        });
        for _ in 0..3 {
            subject.stop();
            subject.go();
            let other = subject.dom0();
            other.write("/a", "1").unwrap();
            other.read("/a").unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    });
}

pub fn server_when_gone_then_requests_fail(subject: &mut Subject) {
    let client = subject.dom0_with(impatient());
    client.read("/").unwrap();
    subject.stop();
    // Whether the client has noticed yet or not.
    for _ in 0..50 {
        assert!(matches!(client.write("/a", ""), Err(Error::Disconnected)));
        assert!(matches!(client.read("/"), Err(Error::Disconnected)));
        assert!(matches!(client.transaction(|_| Ok(())), Err(Error::Disconnected)));
    }
    assert!(matches!(xenstore::Client::connect(subject.socket()), Err(Error::Io { .. })));
}

pub fn transaction_when_the_server_is_lost_then_fails(subject: &mut Subject) {
    let client = subject.dom0_with(patient());
    let mut runs = 0;
    let outcome = client.transaction(|transaction| {
        runs += 1;
        transaction.write("/a", "half")?;
        subject.stop();
        subject.go();
        // The new server must not see what belongs to the old one's transaction, same number or not.
        client.read("/").unwrap();
        transaction.write("/b", "other half")
    });
    assert!(matches!(outcome, Err(Error::Disconnected)), "{outcome:?}");
    assert_eq!(runs, 1);
    assert!(client.read("/b").unwrap_err().is_not_found());
    assert!(client.read("/a").unwrap_err().is_not_found());
}

pub fn watch_when_registered_without_a_server_then_comes_with_it(subject: &mut Subject) {
    let client = subject.dom0_with(patient());
    subject.stop();
    client.watch("/a", "t").unwrap();
    assert!(matches!(client.watch("/a", "t"), Err(Error::Exists { .. })));
    subject.go();
    assert_eq!(next(&client).0, "/a");
    client.read("/").unwrap();
    client.write("/a/b", "").unwrap();
    assert_eq!(next(&client).0, "/a/b");
}

pub fn watch_when_dropped_without_a_server_then_stays_away(subject: &mut Subject) {
    let client = subject.dom0_with(patient());
    client.watch("/a", "t").unwrap();
    client.watch("/b", "u").unwrap();
    subject.stop();
    client.unwatch("/a", "t").unwrap();
    subject.go();
    client.read("/").unwrap();
    let ears = Ears::new(subject, &client);
    client.write("/a", "").unwrap();
    client.write("/b", "").unwrap();
    assert_eq!(ears.paths(), ["/b"]);
}
