//! The watches a client wants: what is registered now, and registered again after a reconnect.

use super::WatchEvent;
use crate::path;

/// One watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) path: String,
    pub(super) token: String,
    pub(super) coalesce: bool,
}

impl Watch {
    fn is(&self, path: &str, token: &str) -> bool {
        self.path == path && self.token == token
    }

    fn covers(&self, event: &WatchEvent) -> bool {
        self.token == event.token && path::is_within(&event.path, &self.path)
    }
}

/// All of them, in the order they were registered in. A daemon has a handful per disk: a list is enough.
#[derive(Debug, Default)]
pub(super) struct Watches(Vec<Watch>);

impl Watches {
    pub(super) fn contains(&self, path: &str, token: &str) -> bool {
        self.0.iter().any(|watch| watch.is(path, token))
    }

    pub(super) fn insert(&mut self, watch: Watch) {
        self.0.push(watch);
    }

    pub(super) fn remove(&mut self, path: &str, token: &str) {
        self.0.retain(|watch| !watch.is(path, token));
    }

    pub(super) fn all(&self) -> Vec<Watch> {
        self.0.clone()
    }

    /// Whether some watch still stands for this event.
    pub(super) fn wants(&self, event: &WatchEvent) -> bool {
        self.0.iter().any(|watch| watch.covers(event))
    }

    /// Whether every watch this event can be of allows dropping it for an equal one.
    pub(super) fn coalesces(&self, event: &WatchEvent) -> bool {
        let mut any = false;
        for watch in self.0.iter().filter(|watch| watch.covers(event)) {
            if !watch.coalesce {
                return false;
            }
            any = true;
        }
        any
    }
}
