//! Transactions: isolation, conflicts, retries, events.

use std::cell::Cell;

use xenstore::wire::Kind;
use xenstore::{ClientOptions, Error};

use crate::ears::Ears;
use crate::subject::Subject;

pub fn changes_when_uncommitted_then_are_seen_inside_alone(subject: &mut Subject) {
    let (client, other) = (subject.dom0(), subject.dom0());
    for (path, value) in [("/a", "old"), ("/gone/x", ""), ("/stays", "")] {
        client.write(path, value).unwrap();
    }
    client
        .transaction(|transaction| {
            transaction.write("/a", "new")?;
            transaction.write("/b/c", "new")?;
            transaction.remove("/gone")?;
            assert_eq!(transaction.read_string("/a")?, "new");
            assert_eq!(transaction.directory("/b")?, ["c"]);
            assert!(transaction.read("/gone/x").unwrap_err().is_not_found());
            assert!(transaction.read("/gone").unwrap_err().is_not_found());
            // Neither another connection nor this one outside the transaction sees any of it.
            for outside in [&client, &other] {
                assert_eq!(outside.read_string("/a")?, "old");
                assert!(outside.read("/b").unwrap_err().is_not_found());
                assert_eq!(outside.directory("/gone")?, ["x"]);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(other.read_string("/a").unwrap(), "new");
    assert_eq!(other.read_string("/b/c").unwrap(), "new");
    assert!(other.read("/gone/x").unwrap_err().is_not_found());
    let top = other.directory("/").unwrap();
    assert!(top.contains(&"b".to_owned()) && !top.contains(&"gone".to_owned()));
}

pub fn changes_when_aborted_then_are_gone(subject: &mut Subject) {
    let mut raw = subject.raw();
    raw.get(Kind::Write, 0, b"/a\0old");
    let transaction = raw.begin();
    raw.get(Kind::Write, transaction, b"/a\0new");
    raw.get(Kind::Mkdir, transaction, b"/b\0");
    raw.get(Kind::TransactionEnd, transaction, b"F\0");
    assert_eq!(raw.get(Kind::Read, 0, b"/a\0"), b"old");
    raw.refuse(Kind::Read, 0, b"/b\0", "ENOENT");
    raw.refuse(Kind::TransactionEnd, transaction, b"T\0", "ENOENT");
}

pub fn body_when_it_fails_then_nothing_happens(subject: &mut Subject) {
    let client = subject.dom0();
    let runs = Cell::new(0);
    let outcome = client.transaction(|transaction| {
        runs.set(runs.get() + 1);
        transaction.write("/a", "1")?;
        transaction.read("/missing")
    });
    assert!(outcome.unwrap_err().is_not_found());
    assert_eq!(runs.get(), 1);
    assert!(client.read("/a").unwrap_err().is_not_found());
}

pub fn node_when_read_and_changed_outside_then_conflicts(subject: &mut Subject) {
    for change in [(Kind::Write, &b"/a\0x"[..]), (Kind::Rm, b"/a\0"), (Kind::SetPerms, b"/a\0r0\0")] {
        let mut raw = subject.raw();
        raw.get(Kind::Write, 0, b"/a\0old");
        let transaction = raw.begin();
        raw.get(Kind::Read, transaction, b"/a\0");
        raw.get(change.0, 0, change.1);
        assert_eq!(raw.get(Kind::Read, transaction, b"/a\0"), b"old", "what was read stays as it was");
        raw.get(Kind::Write, transaction, b"/b\0new");
        raw.refuse(Kind::TransactionEnd, transaction, b"T\0", "EAGAIN");
        raw.refuse(Kind::Read, 0, b"/b\0", "ENOENT");
        raw.refuse(Kind::TransactionEnd, transaction, b"T\0", "ENOENT");
    }
}

pub fn node_when_missing_and_created_outside_then_conflicts(subject: &mut Subject) {
    let mut raw = subject.raw();
    let transaction = raw.begin();
    raw.refuse(Kind::Read, transaction, b"/a\0", "ENOENT");
    raw.get(Kind::Mkdir, 0, b"/a\0");
    raw.refuse(Kind::Read, transaction, b"/a\0", "ENOENT");
    raw.refuse(Kind::TransactionEnd, transaction, b"T\0", "EAGAIN");
}

pub fn children_when_added_by_two_then_conflict(subject: &mut Subject) {
    let mut raw = subject.raw();
    raw.get(Kind::Mkdir, 0, b"/a\0");
    let (first, second) = (raw.begin(), raw.begin());
    assert_ne!(first, second);
    raw.get(Kind::Mkdir, first, b"/a/1\0");
    raw.get(Kind::Mkdir, second, b"/a/2\0");
    raw.get(Kind::TransactionEnd, second, b"T\0");
    raw.refuse(Kind::TransactionEnd, first, b"T\0", "EAGAIN");
    assert_eq!(raw.get(Kind::Directory, 0, b"/a\0"), b"2\0");
}

pub fn node_when_only_read_then_commits_beside_other_changes(subject: &mut Subject) {
    let mut raw = subject.raw();
    for path in [&b"/a/x\0"[..], b"/b/y\0"] {
        raw.get(Kind::Write, 0, path);
    }
    let transaction = raw.begin();
    raw.get(Kind::Read, transaction, b"/a/x\0");
    raw.get(Kind::Write, transaction, b"/a/x\0new");
    raw.get(Kind::Write, 0, b"/b/y\0other");
    raw.get(Kind::Mkdir, 0, b"/b/z\0");
    raw.get(Kind::TransactionEnd, transaction, b"T\0");
    assert_eq!(raw.get(Kind::Read, 0, b"/a/x\0"), b"new");
    assert_eq!(raw.get(Kind::Read, 0, b"/b/y\0"), b"other");
}

pub fn conflict_when_it_happens_then_everything_is_tried_again(subject: &mut Subject) {
    let (client, other) = (subject.dom0(), subject.dom0());
    client.write("/a", "0").unwrap();
    let runs = Cell::new(0);
    let seen = client
        .transaction(|transaction| {
            let value = transaction.read_string("/a")?;
            if runs.replace(runs.get() + 1) < 3 {
                other.write("/a", format!("changed {}", runs.get()))?;
            }
            transaction.write("/b", &value)?;
            Ok(value)
        })
        .unwrap();
    assert_eq!((runs.get(), seen.as_str()), (4, "changed 3"));
    assert_eq!(other.read_string("/b").unwrap(), "changed 3");
}

pub fn conflict_when_it_never_ends_then_is_reported(subject: &mut Subject) {
    let options = ClientOptions { transaction_attempts: 5, ..ClientOptions::default() };
    let (client, other) = (subject.dom0_with(options), subject.dom0());
    let runs = Cell::new(0);
    let outcome = client.transaction(|transaction| {
        runs.set(runs.get() + 1);
        let _ = transaction.read("/a");
        other.write("/a", "")
    });
    assert!(matches!(outcome, Err(Error::Again)));
    assert_eq!(runs.get(), 5);
    // None was left open, and aborts were not needed: a failed commit ends its transaction.
    client.transaction(|transaction| transaction.write("/b", "")).unwrap();
}

pub fn counter_when_many_count_then_loses_nothing(subject: &mut Subject) {
    subject.dom0().write("/counter", "0").unwrap();
    let options = ClientOptions { transaction_attempts: 1000, ..ClientOptions::default() };
    let shared = subject.dom0_with(options.clone());
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let client = if thread % 2 == 0 { shared.clone() } else { subject.dom0_with(options.clone()) };
            scope.spawn(move || {
                for _ in 0..30 {
                    client
                        .transaction(|transaction| {
                            let count: u32 = transaction.read_string("/counter")?.parse().unwrap();
                            transaction.write("/counter", (count + 1).to_string())
                        })
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(shared.read_string("/counter").unwrap(), "180");
}

pub fn events_when_in_a_transaction_then_come_with_the_commit(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    for path in ["/a/1", "/a/2", "/a/3", "/a/4"] {
        client.write(path, "").unwrap();
    }
    client.watch("/a", "t").unwrap();
    ears.heard();
    client
        .transaction(|transaction| {
            for path in ["/a/3", "/a/1", "/a/2", "/a/1", "/a/new"] {
                transaction.write(path, "x")?;
            }
            transaction.remove("/a/4")?;
            assert!(ears.paths().is_empty(), "before the commit");
            Ok(())
        })
        .unwrap();
    assert_eq!(ears.paths(), ["/a/3", "/a/1", "/a/2", "/a/new", "/a/4"]);
    let aborted: xenstore::Result<()> = client.transaction(|transaction| {
        transaction.write("/a/1", "y")?;
        Err(Error::Disconnected)
    });
    assert!(aborted.is_err());
    client.transaction(|transaction| transaction.read("/a/1")).unwrap();
    assert!(ears.paths().is_empty());
}

pub fn transaction_when_unknown_then_is_not_found(subject: &mut Subject) {
    let (mut raw, mut other) = (subject.raw(), subject.raw());
    let transaction = raw.begin();
    for (kind, payload) in
        [(Kind::Read, &b"/\0"[..]), (Kind::Write, b"/a\0x"), (Kind::TransactionEnd, b"T\0")]
    {
        raw.refuse(kind, transaction + 1000, payload, "ENOENT");
        // A number belongs to its connection.
        other.refuse(kind, transaction + 1000, payload, "ENOENT");
    }
    raw.refuse(Kind::TransactionEnd, 0, b"T\0", "ENOENT");
    raw.refuse(Kind::TransactionEnd, transaction, b"X\0", "EINVAL");
    raw.get(Kind::TransactionEnd, transaction, b"T\0");
}

pub fn transaction_when_inside_another_then_is_busy(subject: &mut Subject) {
    let mut raw = subject.raw();
    let transaction = raw.begin();
    raw.refuse(Kind::TransactionStart, transaction, b"\0", "EBUSY");
    raw.get(Kind::TransactionEnd, transaction, b"F\0");
}

pub fn subtree_when_removed_inside_then_goes_with_the_commit(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    for path in ["/a/b/c", "/a/d", "/e"] {
        client.write(path, "").unwrap();
    }
    client.watch("/a/b/c", "deep").unwrap();
    client.watch("/", "root").unwrap();
    ears.heard();
    client
        .transaction(|transaction| {
            transaction.remove("/a")?;
            transaction.write("/a/new", "")
        })
        .unwrap();
    assert_eq!(client.directory("/a").unwrap(), ["new"]);
    let heard = ears.heard();
    let of = |token: &str| -> Vec<&str> {
        heard.iter().filter(|event| event.1 == token).map(|event| event.0.as_str()).collect()
    };
    assert_eq!(of("deep"), ["/a/b/c"]);
    let root = of("root");
    assert!(root.contains(&"/a") && root.contains(&"/a/new"), "{root:?}");
}
