//! Who may do what, and what an error gives away.

use xenstore::wire::{Code, Kind};
use xenstore::{Access, Client, Error, Permission};

use crate::subject::Subject;

fn is_denied<T>(outcome: xenstore::Result<T>) -> bool {
    matches!(outcome, Err(Error::Access { .. }))
}

fn with(client: &Client, path: &str, permissions: &[Permission]) {
    client.write(path, "value").unwrap();
    client.set_permissions(path, permissions).unwrap();
}

pub fn permissions_when_set_then_are_read_back(subject: &mut Subject) {
    let client = subject.dom0();
    client.mkdir("/a").unwrap();
    assert_eq!(client.permissions("/a").unwrap(), [Permission::none(0)]);
    let list = [Permission::none(3), Permission::read(4), Permission::write(5), Permission::both(6)];
    client.set_permissions("/a", &list).unwrap();
    assert_eq!(client.permissions("/a").unwrap(), list);
    client.write("/a", "changed").unwrap();
    assert_eq!(client.permissions("/a").unwrap(), list);
}

pub fn node_when_created_then_inherits_from_its_parent(subject: &mut Subject) {
    let client = subject.dom0();
    let list = [Permission::read(3), Permission::both(4)];
    with(&client, "/a", &list);
    client.write("/a/b/c", "").unwrap();
    client.mkdir("/a/d").unwrap();
    for path in ["/a/b", "/a/b/c", "/a/d"] {
        assert_eq!(client.permissions(path).unwrap(), list, "{path}");
    }
    // Inherited once, at creation.
    client.set_permissions("/a", &[Permission::none(0)]).unwrap();
    assert_eq!(client.permissions("/a/b").unwrap(), list);
}

pub fn node_when_created_by_a_domain_then_is_its_own(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(3));
    with(&client, "/a", &[Permission::none(0), Permission::both(3), Permission::read(4)]);
    guest.write("/a/b/c", "").unwrap();
    let expected = [Permission::none(3), Permission::both(3), Permission::read(4)];
    assert_eq!(client.permissions("/a/b").unwrap(), expected);
    assert_eq!(client.permissions("/a/b/c").unwrap(), expected);
    assert_eq!(client.permissions("/a").unwrap()[0], Permission::none(0));
}

pub fn domain_when_it_has_an_entry_then_may_do_what_that_says(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(3));
    for access in [Access::None, Access::Read, Access::Write, Access::Both] {
        let entry = Permission { domain: 3, access };
        // The general access is the opposite, and must not matter.
        let general =
            Permission { domain: 0, access: if access.reads() { Access::None } else { Access::Both } };
        client.mkdir("/closed").unwrap();
        with(&client, "/closed/node", &[general, Permission::none(9), entry]);
        assert_eq!(guest.read("/closed/node").is_ok(), access.reads(), "{entry}");
        assert_eq!(guest.directory("/closed/node").is_ok(), access.reads(), "{entry}");
        assert_eq!(guest.permissions("/closed/node").is_ok(), access.reads(), "{entry}");
        assert_eq!(guest.write("/closed/node", "guest").is_ok(), access.writes(), "{entry}");
        assert_eq!(guest.write("/closed/node/child", "guest").is_ok(), access.writes(), "{entry}");
        assert_eq!(guest.mkdir("/closed/node").is_ok(), access.writes(), "{entry}");
        assert!(is_denied(guest.set_permissions("/closed/node", &[Permission::both(3)])), "{entry}");
        assert_eq!(guest.remove("/closed/node").is_ok(), access.writes(), "{entry}");
        client.remove("/closed").unwrap();
    }
    with(&client, "/own", &[Permission::none(3)]);
    guest.read("/own").unwrap();
    guest.write("/own", "x").unwrap();
    guest.set_permissions("/own", &[Permission::read(3)]).unwrap();
    guest.remove("/own").unwrap();
}

pub fn domain_when_it_has_no_entry_then_may_do_what_the_first_says(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(3));
    for access in [Access::None, Access::Read, Access::Write, Access::Both] {
        let first = Permission { domain: 0, access };
        with(&client, "/node", &[first, Permission::both(4)]);
        assert_eq!(guest.read("/node").is_ok(), access.reads(), "{first}");
        assert_eq!(guest.write("/node", "guest").is_ok(), access.writes(), "{first}");
    }
    with(&client, "/node", &[Permission::none(0)]);
    assert!(is_denied(guest.read("/node")));
    assert!(is_denied(guest.write("/node", "x")));
    assert!(is_denied(guest.remove("/node")));
}

/// What is missing is said to be missing only where the nearest existing ancestor may be used that way.
pub fn missing_node_when_the_parent_is_closed_then_is_denied(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(3));
    with(&client, "/closed", &[Permission::none(0)]);
    with(&client, "/readable", &[Permission::read(0)]);
    with(&client, "/writable", &[Permission::write(0)]);
    assert!(is_denied(guest.read("/closed/missing")));
    assert!(is_denied(guest.read("/closed/missing/deeper")));
    assert!(guest.read("/readable/missing/deeper").unwrap_err().is_not_found());
    assert!(is_denied(guest.read("/writable/missing")));
    assert!(is_denied(guest.write("/closed/missing", "")));
    assert!(is_denied(guest.write("/readable/missing", "")));
    assert!(is_denied(guest.remove("/readable/missing")));
    guest.remove("/writable/missing").unwrap();
    guest.write("/writable/missing", "").unwrap();
}

pub fn owner_when_changed_by_a_domain_then_is_refused(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(3));
    with(&client, "/own", &[Permission::none(3)]);
    let outcome = guest.set_permissions("/own", &[Permission::none(4)]);
    assert!(matches!(outcome, Err(Error::Refused { code: Code::NotPermitted, .. })), "{outcome:?}");
    guest.set_permissions("/own", &[Permission::both(3), Permission::read(4)]).unwrap();
    client.set_permissions("/own", &[Permission::none(4)]).unwrap();
    assert!(is_denied(guest.read("/own")));
}

pub fn permissions_when_set_by_a_stranger_then_are_denied(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(3));
    with(&client, "/other", &[Permission::both(0), Permission::both(3)]);
    assert!(is_denied(guest.set_permissions("/other", &[Permission::both(0)])));
    assert!(is_denied(guest.set_permissions("/", &[Permission::both(3)])));
    assert_eq!(client.permissions("/other").unwrap(), [Permission::both(0), Permission::both(3)]);
}

pub fn permissions_when_malformed_then_are_refused(subject: &mut Subject) {
    let client = subject.dom0();
    client.mkdir("/a").unwrap();
    assert!(matches!(client.set_permissions("/a", &[]), Err(Error::Invalid { .. })));
    let mut raw = subject.raw();
    for payload in [&b"/a\0"[..], b"/a\0x0\0", b"/a\0n\0r\0", b"/a\0nx\0", b""] {
        raw.refuse(Kind::SetPerms, 0, payload, "EINVAL");
    }
    assert_eq!(client.permissions("/a").unwrap(), [Permission::none(0)]);
}
