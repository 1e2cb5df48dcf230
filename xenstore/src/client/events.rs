//! The queue of watch events.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A watch fired.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchEvent {
    /// What changed: the watched path or one below it.
    pub path: String,
    /// The token the watch was registered with.
    pub token: String,
}

/// The events of a client's watches, in the server's order. Its descriptor polls readable while the queue
/// is not empty.
#[derive(Debug)]
pub struct Events {
    ready: OwnedFd,
}

impl Events {
    /// The next event, or none now.
    pub fn try_next(&self) -> Option<WatchEvent> {
        None
    }

    /// The next event, waiting for it at most `timeout`; none if there was none.
    pub fn next_within(&self, timeout: Duration) -> Option<WatchEvent> {
        let _ = timeout;
        None
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}
