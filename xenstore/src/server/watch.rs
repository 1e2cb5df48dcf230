//! Watches of one connection, and which of them a change fires.

use crate::path;

/// Which watches a change fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those on the changed path itself.
    Exact,
    /// Those on the changed path and on all above it.
    Ancestors,
}

#[derive(Debug)]
pub(super) struct Watch {
    /// Absolute, or special.
    pub(super) path: String,
    pub(super) token: String,
    /// What its events leave away at the front, if it was asked for relatively.
    prefix: usize,
}

impl Watch {
    pub(super) fn new(path: String, token: String, prefix: usize) -> Watch {
        Watch { path, token, prefix }
    }

    pub(super) fn is(&self, path: &str, token: &str) -> bool {
        self.path == path && self.token == token
    }

    pub(super) fn hears(&self, changed: &str, reach: Reach) -> bool {
        match reach {
            Reach::Exact => changed == self.path,
            Reach::Ancestors => path::is_within(changed, &self.path),
        }
    }

    /// The payload of its event for `changed`.
    pub(super) fn event(&self, changed: &str) -> Vec<u8> {
        let shown = changed.get(self.prefix..).unwrap_or(changed);
        [shown.as_bytes(), b"\0", self.token.as_bytes(), b"\0"].concat()
    }
}
