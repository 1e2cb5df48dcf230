//! What is too long, malformed or too much.

use xenstore::wire::Kind;
use xenstore::{Client, Error, Permission};

use crate::subject::{NODE_SIZE, NODES, PERMISSIONS, Subject, TRANSACTIONS, WATCHES};

fn is_quota<T: std::fmt::Debug>(outcome: &xenstore::Result<T>) -> bool {
    matches!(outcome, Err(Error::Quota { .. }))
}

/// Xen 4.17 compares some quotas with "more than" before it counts, and so allows one more.
fn at_or_one_beyond(allowed: usize, quota: usize) -> bool {
    allowed == quota || allowed == quota + 1
}

pub fn path_when_bad_then_never_reaches_the_server(subject: &mut Subject) {
    let client = subject.dom0();
    client.write("/a", "untouched").unwrap();
    let long = format!("/{}", "x".repeat(3072));
    for path in ["", "//", "/a/", "/a//b", "/a\0/b", "/a b", "/\u{e9}", "/a.b", "/a\n", &long] {
        assert!(matches!(client.read(path), Err(Error::Invalid { .. })), "{path:?}");
        assert!(matches!(client.write(path, "x"), Err(Error::Invalid { .. })), "{path:?}");
        assert!(matches!(client.mkdir(path), Err(Error::Invalid { .. })), "{path:?}");
        assert!(matches!(client.remove(path), Err(Error::Invalid { .. })), "{path:?}");
        assert!(matches!(client.directory(path), Err(Error::Invalid { .. })), "{path:?}");
        assert!(matches!(client.permissions(path), Err(Error::Invalid { .. })), "{path:?}");
        assert!(matches!(client.set_permissions(path, &[Permission::none(0)]), Err(Error::Invalid { .. })));
        assert!(matches!(client.watch(path, "t"), Err(Error::Invalid { .. })), "{path:?}");
        let outcome = client.transaction(|transaction| transaction.write(path, "x"));
        assert!(matches!(outcome, Err(Error::Invalid { .. })), "{path:?}");
    }
    assert!(matches!(client.read("@releaseDomain"), Err(Error::Invalid { .. })));
    assert_eq!(client.read_string("/a").unwrap(), "untouched");
}

pub fn path_when_bad_on_the_wire_then_is_refused(subject: &mut Subject) {
    let mut raw = subject.raw();
    for path in ["", "//", "/a/", "/a//b", "/a b", "/\u{e9}", "/a.b", "@releaseDomain", "@x"] {
        let payload = [path.as_bytes(), b"\0"].concat();
        for kind in [Kind::Read, Kind::Write, Kind::Mkdir, Kind::Rm, Kind::Directory] {
            raw.refuse(kind, 0, &payload, "EINVAL");
        }
    }
    for path in ["//", "/a/", "/a b"] {
        raw.refuse(Kind::Watch, 0, &[path.as_bytes(), b"\0t\0"].concat(), "EINVAL");
        raw.refuse(Kind::SetPerms, 0, &[path.as_bytes(), b"\0n0\0"].concat(), "EINVAL");
        raw.refuse(Kind::GetPerms, 0, &[path.as_bytes(), b"\0"].concat(), "EINVAL");
    }
}

pub fn path_when_too_long_then_is_refused(subject: &mut Subject) {
    let guest = subject.domain(3);
    // The home does not count.
    let fits = "x".repeat(2048);
    let outcome = guest.write(&fits, "");
    assert!(outcome.is_ok() || is_quota(&outcome), "{outcome:?}: the length is no reason");
    let outcome = guest.read(&format!("/local/domain/3/{fits}x"));
    assert!(matches!(outcome, Err(Error::Invalid { .. })), "{outcome:?}");
    let outcome = guest.watch(&format!("/{fits}"), "t");
    assert!(matches!(outcome, Err(Error::Invalid { .. })), "{outcome:?}");
}

pub fn payload_when_at_the_limit_then_fits_and_beyond_does_not(subject: &mut Subject) {
    let client = subject.dom0();
    let value = vec![b'v'; 4096 - 3];
    client.write("/a", &value).unwrap();
    assert_eq!(client.read("/a").unwrap(), value);
    let outcome = client.write("/a", vec![b'w'; 4096 - 2]);
    assert!(matches!(outcome, Err(Error::TooBig { .. })), "{outcome:?}");
    let outcome = client.set_permissions("/a", &[Permission::read(10000); 700]);
    assert!(matches!(outcome, Err(Error::TooBig { .. })), "{outcome:?}");
    assert_eq!(client.read("/a").unwrap(), value);
}

pub fn payload_when_malformed_then_is_refused(subject: &mut Subject) {
    let mut raw = subject.raw();
    for kind in [Kind::Read, Kind::Mkdir, Kind::Rm, Kind::Directory, Kind::GetPerms] {
        for payload in [&b""[..], b"/", b"/\0/\0", b"/tool"] {
            // Which error is by chance in Xen 4.17, which leaves errno as an earlier request set it.
            assert_eq!(raw.ask(kind, 0, payload).0, Kind::Error, "{kind:?} {payload:?}");
        }
    }
    raw.refuse(Kind::Write, 0, b"/a", "EINVAL");
    raw.refuse(Kind::Write, 0, b"", "EINVAL");
    for payload in [&b""[..], b"/a", b"/a\0", b"/a\0t\0depth\0more\0"] {
        raw.refuse(Kind::Watch, 0, payload, "EINVAL");
    }
    raw.refuse(Kind::Unwatch, 0, b"/a\0", "EINVAL");
    raw.refuse(Kind::DirectoryPart, 0, b"/\0", "EINVAL");
    raw.refuse(Kind::Introduce, 0, b"5\0", "EINVAL");
    raw.refuse(Kind::TransactionEnd, 0, b"", "EINVAL");
    raw.get(Kind::Read, 0, b"/\0");
}

pub fn request_when_unknown_then_is_unsupported(subject: &mut Subject) {
    let mut raw = subject.raw();
    for number in [20, 1000, 0xffff, u32::MAX, Kind::WatchEvent.number(), Kind::Error.number()] {
        raw.send_header(number, 0);
        let answer = raw.receive().unwrap();
        assert_eq!(answer.kind(), Some(Kind::Error), "{number}");
        assert_eq!(answer.payload, b"ENOSYS\0", "{number}");
    }
}

pub fn message_when_oversized_then_ends_the_connection(subject: &mut Subject) {
    let client = subject.dom0();
    for length in [4097, u32::MAX] {
        let mut raw = subject.raw();
        raw.get(Kind::Read, 0, b"/\0");
        raw.send_header(Kind::Read.number(), length);
        assert_eq!(raw.receive(), None);
        // Nobody else minds.
        client.read("/").unwrap();
    }
}

pub fn domain_when_it_owns_too_many_nodes_then_is_stopped(subject: &mut Subject) {
    let guest = subject.domain(3);
    // Not one fewer than the quota, its home included.
    for number in 1..NODES {
        guest.write(&format!("{number}"), "").unwrap();
    }
    assert!(is_quota(&guest.write("more", "")));
    assert!(is_quota(&guest.transaction(|transaction| transaction.write("more", ""))));
    guest.write("1", "changes are free").unwrap();
    guest.remove("1").unwrap();
    guest.write("more", "").unwrap();
    assert!(is_quota(&guest.write("1", "")));
    // Several at once count as several, and none is left half done.
    guest.remove("2").unwrap();
    assert!(is_quota(&guest.write("deep/er", "")));
    assert!(guest.read("deep").unwrap_err().is_not_found());
    guest.write("2", "").unwrap();
}

pub fn domain_when_its_node_grows_too_large_then_is_stopped(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(3));
    guest.write("a", vec![b'x'; NODE_SIZE / 2]).unwrap();
    assert!(is_quota(&guest.write("a", vec![b'x'; NODE_SIZE + 1])));
    assert_eq!(guest.read("a").unwrap().len(), NODE_SIZE / 2);
    // Names of children count too.
    let outcomes: Vec<_> = (0..NODES / 2).map(|n| guest.mkdir(&format!("b/{}{n}", "x".repeat(50)))).collect();
    assert!(outcomes[0].is_ok() && is_quota(&outcomes[NODES / 2 - 1]));
    // Dom0 is not bound.
    client.write("/local/domain/3/a", vec![b'x'; NODE_SIZE + 1]).unwrap();
}

pub fn domain_when_it_watches_too_much_then_is_stopped(subject: &mut Subject) {
    let guest = subject.domain(3);
    let allowed = (0..).find(|number| is_quota(&guest.watch("a", &number.to_string()))).unwrap();
    assert!(at_or_one_beyond(allowed, WATCHES), "{allowed}");
    guest.unwatch("a", "0").unwrap();
    guest.watch("a", "more").unwrap();
    assert!(is_quota(&guest.watch("a", "still more")));
}

pub fn domain_when_it_opens_too_many_transactions_then_is_stopped(subject: &mut Subject) {
    fn nested(client: &Client, depth: usize) -> usize {
        let outcome = client.transaction(|_| Ok(nested(client, depth + 1)));
        if is_quota(&outcome) { depth } else { outcome.unwrap() }
    }
    let guest = subject.domain(3);
    let allowed = nested(&guest, 0);
    assert!(at_or_one_beyond(allowed, TRANSACTIONS), "{allowed}");
    assert_eq!(nested(&guest, 0), allowed, "all were given back");
}

pub fn domain_when_it_sets_too_many_permissions_then_is_stopped(subject: &mut Subject) {
    let guest = subject.domain(3);
    guest.write("a", "").unwrap();
    let list: Vec<Permission> = [3, 4, 5, 6, 7].map(Permission::read).to_vec();
    guest.set_permissions("a", &list[..PERMISSIONS]).unwrap();
    assert!(is_quota(&guest.set_permissions("a", &list)));
    assert_eq!(guest.permissions("a").unwrap().len(), PERMISSIONS);
}

pub fn dom0_when_beyond_a_domains_quotas_then_goes_on(subject: &mut Subject) {
    let client = subject.dom0();
    for number in 0..NODES * 3 {
        client.write(&format!("/a/{number}-{}", "x".repeat(30)), vec![b'x'; NODE_SIZE * 2]).unwrap();
        client.watch("/a", &number.to_string()).unwrap();
    }
    client.set_permissions("/a", &(0..20).map(Permission::read).collect::<Vec<_>>()).unwrap();
    assert_eq!(client.directory("/a").unwrap().len(), NODES * 3);
}
