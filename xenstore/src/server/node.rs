//! One node: value, children's names, permissions; and what a caller may do with it.

use crate::{Access, Permission};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) domain: u16,
}

impl Caller {
    /// dom0 passes every permission and is under no quota.
    pub(super) fn is_privileged(self) -> bool {
        self.domain == 0
    }
}

/// What an operation needs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    Write,
    /// To own it, which implies the rest.
    Own,
}

/// A node, never changed in place: a change is a new node with a new generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// When it was last changed; no two changes anywhere share one.
    pub(super) generation: u64,
    /// At least one entry: the first names the owner.
    pub(super) permissions: Vec<Permission>,
    pub(super) children: Names,
    pub(super) value: Vec<u8>,
}

impl Node {
    /// An empty node of dom0's that no other domain may touch.
    pub(super) fn closed() -> Node {
        Node {
            generation: 0,
            permissions: vec![Permission::none(0)],
            children: Names::default(),
            value: Vec::new(),
        }
    }

    pub(super) fn owner(&self) -> u16 {
        self.permissions.first().map_or(0, |entry| entry.domain)
    }

    /// The owner may do everything; a domain with an entry of its own what that says; all others what the
    /// first entry says.
    pub(super) fn allows(&self, caller: Caller, need: Need) -> bool {
        if caller.is_privileged() || self.owner() == caller.domain {
            return true;
        }
        let mut entries = self.permissions.iter();
        let general = entries.next().map_or(Access::None, |entry| entry.access);
        let own = entries.find(|entry| entry.domain == caller.domain);
        let access = own.map_or(general, |entry| entry.access);
        match need {
            Need::Read => access.reads(),
            Need::Write => access.writes(),
            Need::Own => false,
        }
    }

    /// Bytes the node counts for against [`node_size`](super::ServerConfig::node_size).
    pub(super) fn size(&self) -> usize {
        // xenstored's own header and permission entry are about that long.
        24 + 8 * self.permissions.len() + self.value.len() + self.children.as_bytes().len()
    }
}

/// Children's names, each followed by a NUL, in the order they were created in: as the wire has them, so a
/// listing is a copy and a part of one is a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names(Vec<u8>);

impl Names {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn push(&mut self, name: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
    }

    pub(super) fn remove(&mut self, name: &str) {
        let mut at = 0;
        for entry in self.0.split_inclusive(|&byte| byte == 0) {
            let end = at + entry.len();
            if entry.strip_suffix(b"\0") == Some(name.as_bytes()) {
                self.0.drain(at..end);
                return;
            }
            at = end;
        }
    }

    /// The names as text. They were text when they came in.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let entries = self.0.split_inclusive(|&byte| byte == 0);
        entries.filter_map(|entry| std::str::from_utf8(entry.strip_suffix(b"\0")?).ok())
    }

    /// Whole names from byte `offset` on, at most `room` bytes of them, and whether they end the list.
    pub(super) fn part(&self, offset: usize, room: usize) -> (&[u8], bool) {
        let rest = self.0.get(offset..).unwrap_or_default();
        if rest.len() <= room {
            return (rest, true);
        }
        let window = rest.get(..room).unwrap_or_default();
        let end = window.iter().rposition(|&byte| byte == 0).map_or(0, |nul| nul + 1);
        (window.get(..end).unwrap_or_default(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Names {
        let mut names = Names::default();
        list.iter().for_each(|name| names.push(name));
        names
    }

    #[test]
    fn name_when_removed_then_only_the_whole_name_goes() {
        let mut list = names(&["ab", "b", "a"]);
        list.remove("b");
        assert_eq!(list.iter().collect::<Vec<_>>(), ["ab", "a"]);
        list.remove("x");
        assert_eq!(list, names(&["ab", "a"]));
    }

    #[test]
    fn part_when_cut_then_ends_on_a_whole_name() {
        let list = names(&["ab", "cd", "e"]);
        assert_eq!(list.part(0, 7), (&b"ab\0cd\0"[..], false));
        assert_eq!(list.part(0, 8), (&b"ab\0cd\0e\0"[..], true));
        assert_eq!(list.part(6, 7), (&b"e\0"[..], true));
        assert_eq!(list.part(99, 7), (&b""[..], true));
    }

    #[test]
    fn permission_when_decided_then_owner_then_own_entry_then_the_first() {
        let mut node = Node::closed();
        node.permissions = vec![Permission::read(5), Permission::none(6), Permission::write(7)];
        let may = |domain, need| node.allows(Caller { domain }, need);
        assert!(may(0, Need::Own) && may(5, Need::Own) && may(5, Need::Write));
        assert!(!may(6, Need::Read) && !may(6, Need::Write));
        assert!(!may(7, Need::Read) && may(7, Need::Write) && !may(7, Need::Own));
        assert!(may(8, Need::Read) && !may(8, Need::Write));
    }
}
