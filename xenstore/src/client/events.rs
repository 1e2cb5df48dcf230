//! The queue of watch events, between the reader thread and whoever fetches them.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

/// A watch fired.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchEvent {
    /// What changed: the watched path or one below it, relative if the watch's path was.
    pub path: String,
    /// The token the watch was registered with.
    pub token: String,
}

/// The events of a client's watches, in the server's order. Its descriptor ([`AsFd`]) polls readable while
/// the queue is not empty; poll it only, reading it is the queue's own business.
#[derive(Debug)]
pub struct Events {
    queue: Mutex<Queue>,
    arrived: Condvar,
    ready: OwnedFd,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<WatchEvent>,
    /// Those of `waiting` that an equal event may be dropped for.
    coalescing: HashSet<WatchEvent>,
}

impl Events {
    pub(super) fn new() -> rustix::io::Result<Events> {
        let ready = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Events { queue: Mutex::default(), arrived: Condvar::new(), ready })
    }

    /// The next event, or none now.
    pub fn try_next(&self) -> Option<WatchEvent> {
        self.pop(&mut self.lock())
    }

    /// The next event, waiting for it at most `timeout`; none if there was none.
    pub fn next_within(&self, timeout: Duration) -> Option<WatchEvent> {
        let deadline = Instant::now() + timeout;
        let mut queue = self.lock();
        loop {
            if let Some(event) = self.pop(&mut queue) {
                return Some(event);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            queue = self.arrived.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn push(&self, event: WatchEvent, coalesce: bool) {
        let mut queue = self.lock();
        if coalesce && !queue.coalescing.insert(event.clone()) {
            return;
        }
        queue.waiting.push_back(event);
        if queue.waiting.len() == 1 {
            // The counter is 0 whenever the queue is empty, both change under the lock: this cannot block.
            let _ = rustix::io::write(&self.ready, &1u64.to_ne_bytes());
        }
        self.arrived.notify_one();
    }

    /// Forgets queued events for which `stays` says no.
    pub(super) fn retain(&self, mut stays: impl FnMut(&WatchEvent) -> bool) {
        let mut queue = self.lock();
        let Queue { waiting, coalescing } = &mut *queue;
        waiting.retain(|event| {
            let stay = stays(event);
            if !stay {
                coalescing.remove(event);
            }
            stay
        });
        self.settle(&queue);
    }

    fn pop(&self, queue: &mut Queue) -> Option<WatchEvent> {
        let event = queue.waiting.pop_front()?;
        queue.coalescing.remove(&event);
        self.settle(queue);
        Some(event)
    }

    /// An empty queue does not poll readable.
    fn settle(&self, queue: &Queue) {
        if queue.waiting.is_empty() {
            let _ = rustix::io::read(&self.ready, &mut [0; 8]);
        }
    }

    /// A panic elsewhere leaves the queue whole: nothing is half done under the lock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn event(path: &str) -> WatchEvent {
        WatchEvent { path: path.to_owned(), token: "t".to_owned() }
    }

    fn readable(events: &Events) -> bool {
        let mut polled = [PollFd::new(events, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn queue_when_filled_and_emptied_then_polls_readable_meanwhile() {
        let events = Events::new().unwrap();
        assert!(!readable(&events));
        for path in ["/a", "/b", "/a"] {
            events.push(event(path), false);
        }
        assert!(readable(&events));
        for path in ["/a", "/b", "/a"] {
            assert!(readable(&events));
            assert_eq!(events.try_next(), Some(event(path)));
        }
        assert!(!readable(&events));
        assert_eq!(events.try_next(), None);
    }

    #[test]
    fn equal_event_when_still_queued_then_is_dropped_only_if_coalescing() {
        let events = Events::new().unwrap();
        events.push(event("/a"), true);
        events.push(event("/b"), true);
        events.push(event("/a"), true);
        assert_eq!(events.try_next(), Some(event("/a")));
        events.push(event("/a"), true);
        assert_eq!(events.try_next(), Some(event("/b")));
        assert_eq!(events.try_next(), Some(event("/a")));
        assert_eq!(events.try_next(), None);
    }

    #[test]
    fn event_when_forgotten_then_may_come_again() {
        let events = Events::new().unwrap();
        events.push(event("/a"), true);
        events.retain(|_| false);
        assert!(!readable(&events));
        events.push(event("/a"), true);
        assert_eq!(events.try_next(), Some(event("/a")));
    }
}
