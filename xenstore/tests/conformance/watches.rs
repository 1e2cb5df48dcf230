//! Watches: what fires them, with which path, in which order.

use std::collections::HashSet;

use xenstore::wire::Kind;
use xenstore::{Error, Permission};

use crate::ears::{Ears, next};
use crate::subject::Subject;

pub fn watch_when_registered_then_fires_once(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.write("/there", "").unwrap();
    // The root last: it hears the fence too.
    for path in ["/there", "/not/there", "@releaseDomain", "/"] {
        client.watch(path, "token").unwrap();
        assert_eq!(ears.heard().first(), Some(&(path.to_owned(), "token".to_owned())));
    }
}

pub fn change_when_below_the_watch_then_fires_with_its_path(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.watch("/a/b", "t").unwrap();
    ears.heard();
    client.write("/a/b", "1").unwrap();
    assert_eq!(ears.paths(), ["/a/b"]);
    client.write("/a/b/c", "1").unwrap();
    assert_eq!(ears.paths(), ["/a/b/c"]);
    client.mkdir("/a/b/d").unwrap();
    assert_eq!(ears.paths(), ["/a/b/d"]);
    client.write("/a/b", "1").unwrap();
    assert_eq!(ears.paths(), ["/a/b"], "the same value is a change too");
    client.remove("/a/b/d").unwrap();
    assert_eq!(ears.paths(), ["/a/b/d"]);
}

pub fn change_when_elsewhere_then_does_not_fire(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.write("/a/b", "").unwrap();
    client.watch("/a/b", "t").unwrap();
    ears.heard();
    for path in ["/a", "/a/bc", "/b", "/a/c/b"] {
        client.write(path, "1").unwrap();
    }
    client.remove("/a/c").unwrap();
    client.remove("/a/b/missing").unwrap();
    assert!(ears.paths().is_empty());
}

pub fn creation_when_deep_then_fires_for_the_node_alone(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.watch("/a", "t").unwrap();
    client.watch("/a/b", "u").unwrap();
    ears.heard();
    client.write("/a/b/c/d", "").unwrap();
    let mut heard = ears.heard();
    heard.sort_by(|left, right| left.1.cmp(&right.1));
    let expected = [("/a/b/c/d".to_owned(), "t".to_owned()), ("/a/b/c/d".to_owned(), "u".to_owned())];
    assert_eq!(heard, expected);
}

pub fn ancestor_when_removed_then_the_watch_fires_with_its_own_path(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.write("/a/b/c", "").unwrap();
    client.watch("/a/b/c", "t").unwrap();
    client.watch("/a/b/missing", "u").unwrap();
    ears.heard();
    client.remove("/a").unwrap();
    assert_eq!(ears.paths(), ["/a/b/c"]);
}

pub fn removal_when_watched_from_above_then_fires_once(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    for path in ["/a/b/c", "/a/b/d/e"] {
        client.write(path, "").unwrap();
    }
    client.watch("/a", "t").unwrap();
    ears.heard();
    client.remove("/a/b").unwrap();
    assert_eq!(ears.paths(), ["/a/b"]);
}

pub fn permissions_when_set_then_fire(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.write("/a/b", "").unwrap();
    client.watch("/a", "t").unwrap();
    ears.heard();
    client.set_permissions("/a/b", &[Permission::read(0)]).unwrap();
    assert_eq!(ears.paths(), ["/a/b"]);
}

pub fn node_when_made_again_then_does_not_fire(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.write("/a", "").unwrap();
    client.watch("/a", "t").unwrap();
    ears.heard();
    client.mkdir("/a").unwrap();
    client.read("/a").unwrap();
    assert!(ears.paths().is_empty());
}

pub fn changes_when_many_then_fire_in_order(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.watch("/a", "t").unwrap();
    ears.heard();
    let paths: Vec<String> = (0..500).map(|number| format!("/a/{}", number * 7919 % 500)).collect();
    for path in &paths {
        client.write(path, "").unwrap();
    }
    assert_eq!(ears.paths(), paths);
}

pub fn watch_when_registered_twice_then_exists(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.watch("/a", "t").unwrap();
    assert!(matches!(client.watch("/a", "t"), Err(Error::Exists { .. })));
    // Still there, once.
    ears.heard();
    client.write("/a", "").unwrap();
    assert_eq!(ears.paths(), ["/a"]);
    // The server itself says so too, and knows each connection's watches apart.
    let mut raw = subject.raw();
    raw.get(Kind::Watch, 0, b"/a\0t\0");
    raw.refuse(Kind::Watch, 0, b"/a\0t\0", "EEXIST");
}

pub fn watch_when_tokens_differ_then_each_fires(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    let tokens = ["", "1", "with space/and:more \u{e9}", &"x".repeat(1000)];
    for token in tokens {
        client.watch("/a", token).unwrap();
    }
    ears.heard();
    client.write("/a", "").unwrap();
    let heard: HashSet<String> = ears.heard().into_iter().map(|(_, token)| token).collect();
    assert_eq!(heard, tokens.iter().map(|&token| token.to_owned()).collect());
    client.unwatch("/a", "1").unwrap();
    client.write("/a", "").unwrap();
    assert_eq!(ears.heard().len(), 3);
    assert!(matches!(client.watch("/a", "nul\0"), Err(Error::Invalid { .. })));
    assert!(matches!(client.watch("/a", &"x".repeat(1023)), Err(Error::Invalid { .. })));
}

pub fn watch_when_dropped_then_is_silent(subject: &mut Subject) {
    let client = subject.dom0();
    let ears = Ears::new(subject, &client);
    client.watch("/a", "t").unwrap();
    client.watch("/a/b", "t").unwrap();
    for number in 0..100 {
        client.write(&format!("/a/b/{number}"), "").unwrap();
        client.write(&format!("/a/c/{number}"), "").unwrap();
    }
    // Those queued go with it, except where the other watch stands for them too.
    client.unwatch("/a", "t").unwrap();
    let heard = ears.paths();
    assert!(heard.iter().all(|path| path.starts_with("/a/b")), "{heard:?}");
    assert!(heard.len() > 100);
    client.write("/a/c", "").unwrap();
    assert!(ears.paths().is_empty());
    assert!(client.unwatch("/a", "t").unwrap_err().is_not_found());
    assert!(client.unwatch("/a/b", "other").unwrap_err().is_not_found());
    subject.raw().refuse(Kind::Unwatch, 0, b"/a\0t\0", "ENOENT");
}

pub fn events_when_not_fetched_then_hold_up_nothing_and_are_all_there(subject: &mut Subject) {
    let (client, other) = (subject.dom0(), subject.dom0());
    client.watch("/a", "t").unwrap();
    // More than any socket buffer or ring holds.
    for number in 0..10_000 {
        let path = format!("/a/{}", number % 100);
        if number % 100 == 0 {
            client.write(&path, "").unwrap();
        } else {
            other.write(&format!("{path}/{number}"), "").unwrap();
        }
    }
    assert_eq!(client.read("/a/0").unwrap(), b"");
    assert_eq!(next(&client).0, "/a");
    for number in 0..10_000 {
        let path = format!("/a/{}", number % 100);
        let expected = if number % 100 == 0 { path } else { format!("{path}/{number}") };
        // The one path written over and over may have been merged by the server while still unread.
        let mut heard = next(&client).0;
        if expected == "/a/0" && heard != expected {
            continue;
        }
        while heard == "/a/0" && expected != heard {
            heard = next(&client).0;
        }
        assert_eq!(heard, expected);
    }
}

pub fn event_when_equal_to_a_queued_one_then_is_merged_if_asked(subject: &mut Subject) {
    let client = subject.dom0();
    client.watch_coalesced("/a", "merged").unwrap();
    client.watch("/fence", "fence").unwrap();
    for _ in 0..100 {
        client.write("/a/x", "").unwrap();
        client.write("/a/y", "").unwrap();
        // Behind this answer the events above are in the client's queue.
        client.read("/a/x").unwrap();
    }
    let heard: Vec<String> =
        std::iter::from_fn(|| client.events().try_next()).map(|event| event.path).collect();
    assert_eq!(heard, ["/a", "/fence", "/a/x", "/a/y"]);
    client.write("/a/x", "").unwrap();
    assert_eq!(next(&client).0, "/a/x");
}

pub fn answer_when_a_watch_is_registered_then_comes_before_its_event(subject: &mut Subject) {
    let mut raw = subject.raw();
    raw.send(Kind::Watch, 5, 0, b"/a\0t\0");
    let answer = raw.receive().unwrap();
    assert_eq!((answer.kind(), answer.header.request), (Some(Kind::Watch), 5));
    assert_eq!(answer.payload, b"OK\0");
    let event = raw.receive().unwrap();
    assert_eq!(
        (event.kind(), event.header.request, event.header.transaction),
        (Some(Kind::WatchEvent), 0, 0)
    );
    assert_eq!(event.payload, b"/a\0t\0");
}

pub fn watches_when_reset_then_are_gone(subject: &mut Subject) {
    let mut raw = subject.raw();
    raw.get(Kind::Watch, 0, b"/a\0t\0");
    let transaction = raw.begin();
    raw.get(Kind::ResetWatches, 0, b"\0");
    raw.refuse(Kind::Unwatch, 0, b"/a\0t\0", "ENOENT");
    raw.refuse(Kind::Read, transaction, b"/\0", "ENOENT");
}

pub fn domain_when_it_may_not_read_then_hears_nothing(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(3));
    let ears = Ears::new(subject, &guest);
    client.mkdir("/a/open").unwrap();
    client.set_permissions("/a/open", &[Permission::read(0)]).unwrap();
    guest.watch("/a", "t").unwrap();
    assert_eq!(ears.paths(), ["/a"], "the first event comes whatever the permissions");
    client.write("/a", "").unwrap();
    client.write("/a/secret", "").unwrap();
    client.write("/a/secret/deeper", "").unwrap();
    client.write("/a/open", "").unwrap();
    assert_eq!(ears.paths(), ["/a/open"]);
    client.set_permissions("/a/open", &[Permission::none(0)]).unwrap();
    assert_eq!(ears.paths(), ["/a/open"], "the loss of the right to read is still told");
    client.write("/a/open", "").unwrap();
    assert!(ears.paths().is_empty());
}

pub fn domain_when_its_readable_node_goes_then_hears_of_it(subject: &mut Subject) {
    let (client, guest) = (subject.dom0(), subject.domain(3));
    let ears = Ears::new(subject, &guest);
    for node in ["/a/open", "/a/too"] {
        client.mkdir(node).unwrap();
        client.set_permissions(node, &[Permission::read(0)]).unwrap();
        guest.watch(node, "t").unwrap();
    }
    ears.heard();
    client.remove("/a/open").unwrap();
    assert_eq!(ears.paths(), ["/a/open"]);
    client.transaction(|transaction| transaction.remove("/a")).unwrap();
    assert_eq!(ears.paths(), ["/a/too"]);
}
