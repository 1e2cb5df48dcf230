//! Listing children, few and many.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use xenstore::wire::Kind;

use crate::subject::Subject;

pub fn children_when_listed_then_come_in_order_of_creation(subject: &mut Subject) {
    let client = subject.dom0();
    client.mkdir("/list").unwrap();
    assert!(client.directory("/list").unwrap().is_empty());
    for name in ["c", "a", "B", "b-1", "x_y", "0"] {
        client.mkdir(&format!("/list/{name}")).unwrap();
    }
    client.mkdir("/list/a/below").unwrap();
    assert_eq!(client.directory("/list").unwrap(), ["c", "a", "B", "b-1", "x_y", "0"]);
    client.remove("/list/B").unwrap();
    client.mkdir("/list/B").unwrap();
    assert_eq!(client.directory("/list").unwrap(), ["c", "a", "b-1", "x_y", "0", "B"]);
    let top = client.directory("/").unwrap();
    assert!(top.contains(&"list".to_owned()) && top.contains(&"tool".to_owned()), "{top:?}");
}

/// Exactly 4096 bytes of names fit one answer; one byte more does not.
pub fn list_when_at_the_message_limit_then_is_whole(subject: &mut Subject) {
    let client = subject.dom0();
    for (node, extra) in [("/fits", 15), ("/over", 16)] {
        let mut names: Vec<String> = (0..255).map(|number| format!("name-of-16-b{number:03}")).collect();
        names.push("x".repeat(extra));
        let total: usize = names.iter().map(|name| name.len() + 1).sum();
        assert_eq!(total, 4096 + extra - 15);
        client
            .transaction(|transaction| {
                names.iter().try_for_each(|name| transaction.mkdir(&format!("{node}/{name}")))
            })
            .unwrap();
        assert_eq!(client.directory(node).unwrap(), names);
    }
    let mut raw = subject.raw();
    assert_eq!(raw.get(Kind::Directory, 0, b"/fits\0").len(), 4096);
    raw.refuse(Kind::Directory, 0, b"/over\0", "E2BIG");
}

pub fn list_when_longer_than_a_message_then_is_whole(subject: &mut Subject) {
    let client = subject.dom0();
    let names = many(&client);
    assert_eq!(client.directory("/many").unwrap(), names);
}

pub fn list_when_longer_than_a_message_in_a_transaction_then_is_whole(subject: &mut Subject) {
    let client = subject.dom0();
    let mut names = many(&client);
    let seen = client
        .transaction(|transaction| {
            transaction.mkdir("/many/one-more")?;
            transaction.directory("/many")
        })
        .unwrap();
    names.push("one-more".to_owned());
    assert_eq!(seen, names);
}

pub fn long_list_when_it_changes_meanwhile_then_is_one_of_its_states(subject: &mut Subject) {
    let client = subject.dom0();
    let names: HashSet<String> = many(&client).into_iter().collect();
    let other = subject.dom0();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // At most one of the two exists at any time. Fewer changes than the client's tries, so that no
            // list can fail for them.
            for _ in 0..20 {
                for name in ["/many/comes", "/many/goes"] {
                    other.mkdir(name).unwrap();
                    other.remove(name).unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let list = client.directory("/many").unwrap();
            let seen: HashSet<String> = list.iter().cloned().collect();
            assert_eq!(seen.len(), list.len(), "a name came twice");
            assert!(names.is_subset(&seen));
            assert!(seen.len() <= names.len() + 1, "two states in one list");
        }
    });
}

pub fn part_when_the_list_changed_then_has_another_generation(subject: &mut Subject) {
    let client = subject.dom0();
    many(&client);
    let mut raw = subject.raw();
    let mut generation = |offset: &str| {
        let payload = [b"/many\0", offset.as_bytes(), b"\0"].concat();
        let answer = raw.get(Kind::DirectoryPart, 0, &payload);
        assert!(answer.len() <= 4096);
        answer.split(|&byte| byte == 0).next().unwrap().to_vec()
    };
    let first = generation("0");
    assert_eq!(generation("1000"), first);
    assert_eq!(generation("1000000"), first);
    client.mkdir("/many/new").unwrap();
    assert_ne!(generation("1000"), first);
}

/// Fills `/many` with 25 KB of names.
fn many(client: &xenstore::Client) -> Vec<String> {
    let names: Vec<String> =
        (0..1000).map(|number| format!("child-{}{number}", "x".repeat(number % 30))).collect();
    client
        .transaction(|transaction| {
            names.iter().try_for_each(|name| transaction.mkdir(&format!("/many/{name}")))
        })
        .unwrap();
    names
}
