//! The watches a client wants: what is registered now, and registered again after a reconnect.

use super::WatchEvent;
use crate::path;

/// Which events of a watch may be dropped while others are queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coalesce {
    /// None.
    Nothing,
    /// Those equal to one that is queued.
    Equal,
    /// All but one: each names the watched path, whatever changed below it.
    Whole,
}

/// One watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) path: String,
    pub(super) token: String,
    pub(super) coalesce: Coalesce,
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

    /// Whether an event may be dropped for an equal one: every watch it can be of allows that. Where each of them is
    /// watched as a whole, the event comes to name the watched path.
    pub(super) fn coalesce(&self, event: &mut WatchEvent) -> bool {
        let covering = || self.0.iter().filter(|watch| watch.covers(event));
        let drops = |watch: &Watch| watch.coalesce != Coalesce::Nothing;
        let coalesces = covering().next().is_some() && covering().all(drops);
        let whole = covering().all(|watch| watch.coalesce == Coalesce::Whole);
        if coalesces
            && whole
            && let Some(path) = covering().map(|watch| watch.path.clone()).next()
        {
            event.path = path;
        }
        coalesces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watches(all: &[(&str, Coalesce)]) -> Watches {
        let watch =
            |&(path, coalesce): &(&str, _)| Watch { path: path.to_owned(), token: "t".to_owned(), coalesce };
        Watches(all.iter().map(watch).collect())
    }

    fn coalesced(watches: &Watches, path: &str) -> (String, bool) {
        let mut event = WatchEvent { path: path.to_owned(), token: "t".to_owned() };
        let coalesces = watches.coalesce(&mut event);
        (event.path, coalesces)
    }

    #[test]
    fn event_below_a_whole_watch_when_it_fires_then_names_the_watch() {
        let watches = watches(&[("/a/state", Coalesce::Whole)]);
        assert_eq!(coalesced(&watches, "/a/state"), ("/a/state".to_owned(), true));
        assert_eq!(coalesced(&watches, "/a/state/new/name"), ("/a/state".to_owned(), true));
    }

    #[test]
    fn event_of_two_watches_when_one_wants_paths_then_keeps_its_own() {
        let both = watches(&[("/a", Coalesce::Whole), ("/a/b", Coalesce::Equal)]);
        assert_eq!(coalesced(&both, "/a/b/c"), ("/a/b/c".to_owned(), true));
        let all = watches(&[("/a", Coalesce::Whole), ("/a/b", Coalesce::Nothing)]);
        assert_eq!(coalesced(&all, "/a/b/c"), ("/a/b/c".to_owned(), false));
        assert_eq!(coalesced(&all, "/elsewhere"), ("/elsewhere".to_owned(), false));
    }
}
