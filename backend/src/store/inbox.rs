//! What one queue of a disk is told by the others and by the maintenance thread.
//!
//! ```text
//! another thread: post -> lock, push, unlock -> `some` was false? ring ----> the queue's thread wakes
//! the queue:      take -> `some` = false -> lock, swap the list, unlock <--- and looks
//! ```
//!
//! No event is lost: `some` is set after the push and cleared before the look. A poster that finds it set need not
//! ring: the queue has not looked since, and will, either because it was rung already or, if it posted to itself,
//! because it looks before it goes back to sleep.

use crate::io::Doorbell;
use crate::store::Errno;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What has happened to one of a queue's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Its range is locked for it.
    Range,
    /// A sidecar block that it waited for may be used, or cannot be had.
    Block {
        /// The block.
        block: u64,
        /// Whether the block is kept in the cache until this request has looked at it.
        pinned: bool,
        /// Why it cannot be had.
        error: Option<Errno>,
    },
    /// What was to be durable before it goes on is durable, or never will be.
    Announced(Result<(), Errno>),
    /// There was no room for its record, and there may be now.
    Room,
    /// Its record is gone from the log, or will not go for now.
    Retired,
    /// Its flush has ended.
    Flushed(Result<(), Errno>),
}

/// A queue's inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    some: AtomicBool,
    events: Mutex<Vec<(usize, Wake)>>,
    doorbell: Doorbell,
}

/// A request that waits: whom to tell.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) inbox: Arc<Inbox>,
    /// The request's place in its queue.
    pub(crate) slot: usize,
}

impl Inbox {
    pub(crate) fn new(doorbell: Doorbell) -> Self {
        Self { some: AtomicBool::new(false), events: Mutex::new(Vec::new()), doorbell }
    }

    /// Swaps what has arrived into `events`, which is empty; false if nothing has.
    pub(crate) fn take(&self, events: &mut Vec<(usize, Wake)>) -> bool {
        // A plain load first: nearly every look finds nothing. Acquire pairs with the Release of `post`, though
        // the list's own mutex orders its contents.
        if !self.some.load(Ordering::Acquire) || !self.some.swap(false, Ordering::AcqRel) {
            return false;
        }
        std::mem::swap(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner), events);
        true
    }
}

impl Waiter {
    /// Tells the waiting queue, of which `me` is the inbox of the calling queue, if it is one.
    pub(crate) fn post(&self, wake: Wake, me: Option<&Arc<Inbox>>) {
        self.inbox.events.lock().unwrap_or_else(PoisonError::into_inner).push((self.slot, wake));
        let was = self.inbox.some.swap(true, Ordering::AcqRel);
        if !was && !me.is_some_and(|me| Arc::ptr_eq(me, &self.inbox)) {
            self.inbox.doorbell.ring();
        }
    }
}
