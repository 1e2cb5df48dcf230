//! Reading, writing, making and removing nodes.

use xenstore::Error;

use crate::subject::Subject;

pub fn value_when_written_then_is_read_back(subject: &mut Subject) {
    let client = subject.dom0();
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [&b""[..], b"x", b"a\0b\0\0", &every_byte, &[7; 4000]] {
        client.write("/value", value).unwrap();
        assert_eq!(client.read("/value").unwrap(), value);
    }
    client.write("/value", "text").unwrap();
    assert_eq!(client.read_string("/value").unwrap(), "text");
    client.write("/value", [0xff]).unwrap();
    assert!(matches!(client.read_string("/value"), Err(Error::Invalid { .. })));
}

pub fn value_when_overwritten_then_children_stay(subject: &mut Subject) {
    let client = subject.dom0();
    client.write("/a/b", "1").unwrap();
    client.write("/a", "2").unwrap();
    assert_eq!(client.read_string("/a").unwrap(), "2");
    assert_eq!(client.read_string("/a/b").unwrap(), "1");
}

pub fn parents_when_missing_then_are_created_empty(subject: &mut Subject) {
    let client = subject.dom0();
    client.write("/a/b/c", "1").unwrap();
    assert_eq!(client.read("/a").unwrap(), b"");
    assert_eq!(client.read("/a/b").unwrap(), b"");
    assert_eq!(client.directory("/a").unwrap(), ["b"]);
    client.mkdir("/d/e/f").unwrap();
    assert_eq!(client.read("/d/e/f").unwrap(), b"");
    assert_eq!(client.directory("/d/e").unwrap(), ["f"]);
}

pub fn node_when_made_again_then_keeps_its_value(subject: &mut Subject) {
    let client = subject.dom0();
    client.write("/a", "1").unwrap();
    client.mkdir("/a").unwrap();
    assert_eq!(client.read_string("/a").unwrap(), "1");
}

pub fn subtree_when_removed_then_is_gone(subject: &mut Subject) {
    let client = subject.dom0();
    for path in ["/a/b/c", "/a/b/d/e", "/a/x", "/ab"] {
        client.write(path, path).unwrap();
    }
    client.remove("/a/b").unwrap();
    for path in ["/a/b", "/a/b/c", "/a/b/d", "/a/b/d/e"] {
        assert!(client.read(path).unwrap_err().is_not_found(), "{path}");
    }
    assert_eq!(client.directory("/a").unwrap(), ["x"]);
    client.remove("/a").unwrap();
    assert_eq!(client.read_string("/ab").unwrap(), "/ab");
    // Nothing of the old subtree comes back with a new one.
    client.mkdir("/a/b").unwrap();
    assert!(client.directory("/a/b").unwrap().is_empty());
}

pub fn missing_node_when_removed_then_depends_on_its_parent(subject: &mut Subject) {
    let client = subject.dom0();
    client.mkdir("/a").unwrap();
    client.remove("/a/missing").unwrap();
    assert!(client.remove("/missing/either").unwrap_err().is_not_found());
}

pub fn missing_node_when_asked_for_then_is_not_found(subject: &mut Subject) {
    let client = subject.dom0();
    assert!(matches!(client.read("/x"), Err(Error::NotFound { path }) if path == "/x"));
    assert!(client.directory("/x").unwrap_err().is_not_found());
    assert!(client.permissions("/x").unwrap_err().is_not_found());
    let permissions = [xenstore::Permission::none(0)];
    assert!(client.set_permissions("/x", &permissions).unwrap_err().is_not_found());
}

pub fn root_when_removed_then_is_refused(subject: &mut Subject) {
    let client = subject.dom0();
    client.write("/a", "1").unwrap();
    assert!(matches!(client.remove("/"), Err(Error::Invalid { .. })));
    assert_eq!(client.read_string("/a").unwrap(), "1");
}
