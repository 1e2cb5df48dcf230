//! Domains: coming, going, and what they may ask.

use xenstore::{Error, Permission};

use crate::ears::Ears;
use crate::subject::Subject;

pub fn domain_when_introduced_then_is_said_to_be(subject: &mut Subject) {
    let client = subject.dom0();
    assert!(!client.is_introduced(5).unwrap());
    let _guest = subject.domain(5);
    assert!(client.is_introduced(5).unwrap());
    assert!(client.is_introduced(0).unwrap());
    client.release(5).unwrap();
    assert!(!client.is_introduced(5).unwrap());
    assert!(client.release(5).unwrap_err().is_not_found());
    assert!(matches!(client.release(0), Err(Error::Invalid { .. })));
    if let Some(handle) = subject.handle() {
        handle.introduce(6).unwrap();
        assert!(client.is_introduced(6).unwrap() && handle.is_introduced(6));
        handle.release(6).unwrap();
        assert!(!client.is_introduced(6).unwrap() && !handle.is_introduced(6));
        assert!(handle.release(6).unwrap_err().is_not_found());
        assert!(handle.release(0).is_err());
    }
}

pub fn domain_when_it_comes_and_goes_then_special_watches_fire(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.watch("@introduceDomain", "came").unwrap();
    client.watch("@releaseDomain", "went").unwrap();
    client.watch("/", "all").unwrap();
    ears.heard();
    let _guest = subject.domain(5);
    let special =
        |paths: Vec<String>| paths.into_iter().filter(|path| path.starts_with('@')).collect::<Vec<_>>();
    assert_eq!(special(ears.paths()), ["@introduceDomain"]);
    client.release(5).unwrap();
    assert_eq!(special(ears.paths()), ["@releaseDomain"]);
}

pub fn domain_when_released_then_its_nodes_go(subject: &mut Subject) {
    let client = subject.dom0();
    let guest = subject.domain(5);
    guest.write("data/x", "1").unwrap();
    client.write("/shared/a", "").unwrap();
    client.set_permissions("/shared", &[Permission::none(0), Permission::both(5)]).unwrap();
    client
        .set_permissions("/shared/a", &[Permission::none(0), Permission::read(5), Permission::read(6)])
        .unwrap();
    guest.write("/shared/of-the-guest/below", "").unwrap();
    client.write("/shared/of-the-guest/dom0s", "").unwrap();
    drop(guest);
    client.release(5).unwrap();
    assert!(client.read("/local/domain/5").unwrap_err().is_not_found());
    assert_eq!(client.directory("/shared").unwrap(), ["a"]);
    assert!(client.read("/shared/of-the-guest/dom0s").unwrap_err().is_not_found());
    // Whoever has the number next has none of its rights; whether the entries are still shown is the server's
    // business (Xen 4.17 shows and ignores them).
    let guest = subject.domain(5);
    assert!(matches!(guest.read("/shared"), Err(Error::Access { .. })));
    assert!(matches!(guest.read("/shared/a"), Err(Error::Access { .. })));
    assert!(client.permissions("/shared/a").unwrap().contains(&Permission::read(6)));
}

pub fn domain_when_it_asks_for_privileged_things_then_is_denied(subject: &mut Subject) {
    let guest = subject.domain(5);
    assert!(matches!(guest.introduce(6, 1, 1), Err(Error::Access { .. })));
    assert!(matches!(guest.release(5), Err(Error::Access { .. })));
    assert!(matches!(guest.is_introduced(5), Err(Error::Access { .. })));
    assert_eq!(guest.domain_path(6).unwrap(), "/local/domain/6");
}

pub fn path_when_relative_then_is_at_the_domains_home(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(5));
    let ears = Ears::new(subject, &guest);
    guest.watch("device", "relative").unwrap();
    guest.watch("/local/domain/5/device", "absolute").unwrap();
    ears.heard();
    guest.write("device/vbd", "1").unwrap();
    assert_eq!(client.read_string("/local/domain/5/device/vbd").unwrap(), "1");
    assert_eq!(guest.read_string("/local/domain/5/device/vbd").unwrap(), "1");
    assert_eq!(guest.directory("device").unwrap(), ["vbd"]);
    let mut heard = ears.heard();
    heard.sort();
    let expected = [("/local/domain/5/device/vbd", "absolute"), ("device/vbd", "relative")];
    assert_eq!(heard, expected.map(|(path, token)| (path.to_owned(), token.to_owned())));
    guest.unwatch("device", "relative").unwrap();
    // Dom0's own home, from its socket.
    client.write("own", "0").unwrap();
    assert_eq!(client.read_string("/local/domain/0/own").unwrap(), "0");
}

pub fn special_watch_when_not_permitted_then_does_not_fire(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(5));
    let ears = Ears::new(subject, &guest);
    guest.watch("@introduceDomain", "came").unwrap();
    ears.heard();
    client.set_permissions("@introduceDomain", &[Permission::none(0)]).unwrap();
    ears.heard();
    let _other = subject.domain(6);
    assert!(ears.paths().is_empty());
    client.set_permissions("@introduceDomain", &[Permission::none(0), Permission::read(5)]).unwrap();
    ears.heard();
    let _another = subject.domain(7);
    assert_eq!(ears.paths(), ["@introduceDomain"]);
}

pub fn home_when_asked_for_then_is_below_local_domain(subject: &mut Subject) {
    let client = subject.dom0();
    assert_eq!(client.domain_path(0).unwrap(), "/local/domain/0");
    assert_eq!(client.domain_path(12345).unwrap(), "/local/domain/12345");
    if let Some(handle) = subject.handle() {
        assert_eq!(handle.domain_path(12), client.domain_path(12).unwrap());
    }
}
